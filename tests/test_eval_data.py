"""eval-data: from every origin the same files, whole or refused; and unmodified lm-eval tasks need no network then."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.eval_data import main
from stages.lib.eval_data.forms import FORMS, LANGUAGES, SUBJECTS
from tests.benchmark_files import Hub, serving, write_gsm8k, write_mgsm, write_mmlu, write_repository
from tests.public_data import official as as_published
from tests.standin_hub import client_environment

Params = Callable[..., Path]
Runs = Callable[..., Result]
Refuses = Callable[..., str]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three benchmarks' official files, made up."""
    folder = tmp_path_factory.mktemp("official")
    write_gsm8k(folder / "gsm8k")
    write_mgsm(folder / "mgsm")
    write_mmlu(folder / "mmlu")
    return folder


def source(path: object, origin: str = "folder", revision: str | None = None) -> dict[str, Any]:
    return {"origin": origin, "path": str(path), "revision": revision}


def folders(parent: Path, *names: str) -> dict[str, Any]:
    """The benchmarks that are in a folder, as params name them."""
    return {f"eval_data.{name}": source(parent / name) for name in names or tuple(FORMS)}


def arguments(tmp_path: Path, params: Path) -> list[object]:
    return ["--out", tmp_path / "eval_data", "--metrics", tmp_path / "eval_data.json", "--params", params]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def test_nothing_is_gathered_where_no_source_is_named(
    tmp_path: Path, project_params: Params, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "distillery.eval_data")
    runs(main, *arguments(tmp_path, project_params()))
    assert "eval-data: mgsm not collected, because eval_data.mgsm names no source: " in caplog.text
    nothing = {"gsm8k": None, "mgsm": None, "mmlu": None}
    assert list(contents(tmp_path / "eval_data")) == ["manifest.json"]
    assert json.loads((tmp_path / "eval_data" / "manifest.json").read_bytes()) == {"benchmarks": nothing, "files": {}}
    assert json.loads((tmp_path / "eval_data.json").read_bytes()) == nothing


def test_the_official_files_become_the_hubs_rows(
    tmp_path: Path, project_params: Params, runs: Runs, official: Path
) -> None:
    runs(main, *arguments(tmp_path, project_params(folders(official))))
    folder = tmp_path / "eval_data"
    assert rows(folder / "openai/gsm8k/main/train.jsonl")[1] == {
        "question": "How many “train” 1?",
        "answer": "1 = 1\n#### 1",
    }
    assert rows(folder / "juletxara/mgsm/zh/test.jsonl")[1] == {
        "question": 'Wie viele "zh" 2?',
        "answer": None,
        "answer_number": 2002,
        "equation_solution": None,
    }
    assert rows(folder / "juletxara/mgsm/zh/train.jsonl")[7] == {
        "question": "Question: 8?",
        "answer": "Step-by-Step Answer: so 8.",
        "answer_number": 18,
        "equation_solution": "8 + 10 = 18.",
    }
    assert rows(folder / "cais/mmlu/anatomy/test.jsonl")[2] == {
        "question": "anatomy, 2?\nWhich?",
        "subject": "anatomy",
        "choices": ["0", "4", "2, 3", "6"],
        "answer": 2,
    }
    assert not (official / "mgsm" / "was run").exists(), "exemplars.py is read and not run"
    metrics = json.loads((tmp_path / "eval_data.json").read_bytes())
    assert {name: (each["configs"], each["rows"], each["fewshot"]) for name, each in metrics.items()} == {
        "gsm8k": (1, {"train": 7473, "test": 1319}, True),
        "mgsm": (11, {"train": 88, "test": 2750}, True),
        "mmlu": (57, {"dev": 285, "test": 14042}, True),
    }


def test_the_manifest_has_every_file_by_its_hash(
    tmp_path: Path, project_params: Params, runs: Runs, official: Path
) -> None:
    runs(main, *arguments(tmp_path, project_params(folders(official, "gsm8k"))))
    found = contents(tmp_path / "eval_data")
    manifest = json.loads(found.pop("manifest.json"))
    assert set(manifest["files"]) == set(found)
    for path, data in found.items():
        assert manifest["files"][path]["sha256"] == hashlib.sha256(data).hexdigest()
        assert manifest["files"][path]["bytes"] == len(data)
    train = manifest["files"]["openai/gsm8k/main/train.jsonl"]
    assert (train["rows"], train["source"]) == (7473, "train.jsonl")
    assert manifest["benchmarks"]["gsm8k"]["source"] == source(official / "gsm8k")


def test_the_same_inputs_are_the_same_bytes_and_replace_what_was_there(
    tmp_path: Path, project_params: Params, runs: Runs, official: Path
) -> None:
    params = project_params(folders(official))
    runs(main, *arguments(tmp_path, params))
    before = contents(tmp_path / "eval_data")
    (tmp_path / "eval_data" / "stale.jsonl").touch()
    runs(main, *arguments(tmp_path, params))
    assert contents(tmp_path / "eval_data") == before


def test_mgsm_without_its_exemplars_is_zero_shot_and_says_so(
    tmp_path: Path, project_params: Params, runs: Runs
) -> None:
    write_mgsm(tmp_path / "files" / "mgsm", exemplars=False)
    result = runs(main, *arguments(tmp_path, project_params(folders(tmp_path / "files", "mgsm"))))
    manifest = json.loads((tmp_path / "eval_data" / "manifest.json").read_bytes())
    assert manifest["benchmarks"]["mgsm"]["fewshot"] is False
    assert manifest["benchmarks"]["mgsm"]["rows"] == {"train": 0, "test": 2750}
    assert "zero-shot only" in rows(tmp_path / "eval_data" / "juletxara/mgsm/bn/train.jsonl")[0]["question"]
    assert result.exit_code == 0


def cut(file: Path) -> None:
    """Take the last row away; a question of MMLU is two lines long."""
    lines = 2 if file.suffix == ".csv" else 1
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-lines]))


@pytest.mark.parametrize(
    ("name", "write", "file", "line"),
    [
        ("gsm8k", write_gsm8k, "test.jsonl", "1318 rows in split 'test' of '{}', and gsm8k has 1319"),
        ("mgsm", write_mgsm, "mgsm_th.tsv", "2749 rows in split 'test' of '{}', and mgsm has 2750"),
        ("mmlu", write_mmlu, "dev/virology_dev.csv", "'dev' of '{}', and mmlu has 285"),
    ],
)
def test_a_benchmark_that_is_not_whole_is_refused(
    name: str,
    write: Callable[[Path], Path],
    file: str,
    line: str,
    tmp_path: Path,
    project_params: Params,
    refuses: Refuses,
) -> None:
    folder = write(tmp_path / "files" / name)
    cut(folder / file)
    said = refuses(main, *arguments(tmp_path, project_params(folders(folder.parent, name))))
    assert said.startswith(f"eval_data.{name}: ")
    assert line.format(folder) in said
    assert not (tmp_path / "eval_data").exists()


def test_what_cannot_be_read_is_named_with_its_place(tmp_path: Path, project_params: Params, refuses: Refuses) -> None:
    files = tmp_path / "files"
    write_mgsm(files / "mgsm")
    for path, said in (
        (files / "none", "no such folder. Point eval_data.mgsm.path at MGSM"),
        (files, "no configuration 'bn' there"),
    ):
        params = project_params({"eval_data.mgsm": source(path)})
        line = refuses(main, *arguments(tmp_path, params))
        assert line.startswith(f"{path}: {said}"), line
    params = project_params(folders(files, "mgsm"))
    (files / "mgsm" / "exemplars.py").write_text("MGSM_EXEMPLARS = load()\n")
    assert ": not MGSM's exemplars.py (" in refuses(main, *arguments(tmp_path, params))
    (files / "mgsm" / "mgsm_bn.tsv").write_text("Two?\t2\nHow many?\tmany\n")
    line = refuses(main, *arguments(tmp_path, params))
    assert line.startswith(f"{files}/mgsm/mgsm_bn.tsv:2: not a row of mgsm (question, tab, answer). Point eval_data.")
    (files / "mgsm" / "mgsm_bn.tsv").unlink()
    assert refuses(main, *arguments(tmp_path, params)).startswith(f"{files}/mgsm/mgsm_bn.tsv: no such file. ")


def as_repository(name: str, laid_down: Path, folder: Path) -> Path:
    """What eval-data laid down of a benchmark, as a hub keeps it."""
    form = FORMS[name]
    tables = {
        config: {split: rows(laid_down / form.folder / config / f"{split}.jsonl") for split in form.rows}
        for config in form.configs
    }
    return write_repository(folder, tables)


@pytest.mark.heavy
def test_a_dataset_in_parquet_gives_the_rows_of_the_official_files(
    tmp_path: Path, project_params: Params, runs: Runs, official: Path
) -> None:
    runs(main, *arguments(tmp_path / "first", project_params(folders(official))))
    laid_down = tmp_path / "first" / "eval_data"
    for name in FORMS:
        as_repository(name, laid_down, tmp_path / "repositories" / name)
    runs(main, *arguments(tmp_path / "second", project_params(folders(tmp_path / "repositories"))))
    first, second = contents(laid_down), contents(tmp_path / "second" / "eval_data")
    assert {path for path in first if first[path] != second[path]} == {
        "manifest.json",
        *(f"{form.folder}/README.md" for form in FORMS.values()),
    }


@pytest.fixture(scope="module")
def hub(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """GSM8K in Parquet with a configuration that is not needed, MGSM as tables with a script."""
    folder = tmp_path_factory.mktemp("hub")
    questions = {split: rows(official / "gsm8k" / f"{split}.jsonl") for split in ("train", "test")}
    write_repository(folder / "gsm8k", {"main": questions, "socratic": questions})
    (official / "mgsm" / "mgsm.py").write_text("raise SystemExit('a script was run')\n")
    with serving({"openai/gsm8k": folder / "gsm8k", "juletxara/mgsm": official / "mgsm"}) as server:
        yield server


def gather(home: Path, origin: str, address: str, params: Path) -> subprocess.CompletedProcess[str]:
    """The stage in a process of its own, for the clients read their address once."""
    environment = client_environment(home, address)
    command = [sys.executable, "-m", "stages.eval_data", *map(str, arguments(home, params))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.heavy
@pytest.mark.parametrize("origin", ["hub", "modelscope"])
def test_a_hub_gives_what_the_official_files_give_at_its_revision(
    origin: str, hub: Hub, tmp_path: Path, project_params: Params, runs: Runs, official: Path
) -> None:
    ids = {"gsm8k": "openai/gsm8k", "mgsm": "juletxara/mgsm"}
    of_hub = {f"eval_data.{name}": source(ids[name], origin, "v1.0") for name in ids}
    done = gather(tmp_path, origin, hub.address, project_params(of_hub))
    assert done.returncode == 0, done.stderr
    assert any("v1.0" in path for path in hub.asked)
    assert not any("socratic%2F" in path or "socratic/" in path for path in hub.asked if "tree" not in path), hub.asked
    runs(main, *arguments(tmp_path / "folder", project_params(folders(official, "gsm8k", "mgsm"))))
    found, expected = contents(tmp_path / "eval_data"), contents(tmp_path / "folder" / "eval_data")
    data = {path for path in expected if path.endswith(".jsonl")}
    assert {path: found[path] for path in data} == {path: expected[path] for path in data}


@pytest.mark.heavy
@pytest.mark.parametrize("origin", ["hub", "modelscope"])
def test_a_hub_that_has_it_not_is_one_line_that_names_the_way_out(
    origin: str, hub: Hub, tmp_path: Path, project_params: Params
) -> None:
    params = project_params({"eval_data.mmlu": source("cais/mmlu", origin)})
    done = gather(tmp_path, origin, hub.address, params)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"Error: eval_data.mmlu.path: {origin} gave no 'cais/mmlu' (")
    assert "set origin: folder" in last
    assert "Traceback" not in done.stderr


def test_the_subjects_and_languages_are_those_of_lm_evals_tasks() -> None:
    import lm_eval

    tasks = Path(lm_eval.__file__).parent / "tasks"
    subjects = {path.stem.removeprefix("mmlu_") for path in (tasks / "mmlu" / "default").glob("mmlu_*.yaml")}
    assert subjects == set(SUBJECTS)
    languages = {path.stem.removeprefix("mgsm_direct_") for path in (tasks / "mgsm" / "direct").glob("mgsm_*.yaml")}
    assert languages == set(LANGUAGES)


# with every connection watched: what asks another machine for anything ends the process
EVALUATION = """
import json, os, sys
from pathlib import Path

def watched(event, arguments):
    name = arguments[0] if event == "socket.getaddrinfo" else arguments[1] if event == "socket.connect" else None
    host = name[0] if isinstance(name, tuple) else name
    if name is not None and host not in ("127.0.0.1", "::1", "localhost"):
        print("ASKED", event, host, flush=True)
        os._exit(9)

sys.addaudithook(watched)
import lm_eval
from lm_eval.tasks import TaskManager

folder = Path(lm_eval.__file__).parent / "tasks"
paths = [str(folder / name) for name in ("gsm8k", "mgsm", "mmlu/default")]
manager = TaskManager(include_path=paths, include_defaults=False)
results = lm_eval.simple_evaluate(
    model="dummy", tasks=sys.argv[1:], task_manager=manager, limit=2, bootstrap_iters=0, log_samples=True
)
samples = {
    name: {sample["doc_id"]: [sample["arguments"][0][0], str(sample["target"])] for sample in found}
    for name, found in results["samples"].items()
}
print(json.dumps(samples))
"""


def evaluate(folder: Path, home: Path, *tasks: str, offline: str = "1") -> subprocess.CompletedProcess[str]:
    """lm-eval with its own tasks, two questions of each, in a process whose connections are watched."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": offline,
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", EVALUATION, *tasks]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def samples(done: subprocess.CompletedProcess[str]) -> dict[str, list[list[str]]]:
    """Each task's prompts and targets, question by question."""
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    return {name: list(found.values()) for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.heavy
def test_unmodified_tasks_find_their_questions_there_and_connect_to_nothing(
    tmp_path: Path, project_params: Params, runs: Runs, official: Path
) -> None:
    runs(main, *arguments(tmp_path, project_params(folders(official))))
    tasks = ("gsm8k", "mgsm_direct_zh", "mgsm_native_cot_bn", "mmlu_anatomy")
    found = samples(evaluate(tmp_path / "eval_data", tmp_path, *tasks))
    assert {name: len(found[name]) for name in tasks} == dict.fromkeys(tasks, 2)
    (prompt, _), (_, target) = found["gsm8k"]
    assert prompt.count("Question: How many “train” ") == 5
    assert target == "1 = 1\n#### 1"
    assert found["mgsm_direct_zh"][0] == ['问题： Wie viele "zh" 1?\nAnswer:', "1001"]
    assert found["mgsm_native_cot_bn"][1][1] == "2002"
    assert [target for _, target in found["mmlu_anatomy"]] == ["0", "1"]


@pytest.mark.heavy
def test_without_the_files_the_same_tasks_would_ask_the_hub(tmp_path: Path) -> None:
    """What the test above rests on: a connection to elsewhere is seen."""
    done = evaluate(tmp_path, tmp_path, "mgsm_direct_zh", offline="0")
    assert done.returncode == 9, done.stderr[-2000:]
    assert done.stdout.startswith("ASKED socket.getaddrinfo ")


@pytest.mark.slow
def test_the_published_benchmarks_run_so_with_all_of_mmlu(
    tmp_path: Path, project_params: Params, runs: Runs, development_data: Path
) -> None:
    runs(main, *arguments(tmp_path, project_params(folders(as_published(tmp_path / "official")))))
    tasks = ("gsm8k", "mgsm_direct_zh", "mgsm_native_cot_bn", "mmlu")
    found = samples(evaluate(tmp_path / "eval_data", tmp_path, *tasks))
    assert len(found) == 3 + 57
    assert all(len(each) == 2 for each in found.values())
    prompt, target = found["gsm8k"][0]
    assert prompt.endswith("How much in dollars does she make every day at the farmers' market?\nAnswer:")
    assert target.endswith("#### 18")
