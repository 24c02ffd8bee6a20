"""The benchmarks on a tiny student: lm-eval's own numbers to the last digit, both scores, no network."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.eval_data import main as gather
from stages.evaluate import main as evaluate
from stages.lib.params import load_params, prompt_text
from tests.benchmark_arms import ROOT, Arm
from tests.benchmark_files import write_gsm8k, write_mgsm, write_mmlu
from tests.talking_student import ANSWER, taught
from tests.workspace import write_changed_params

pytestmark = pytest.mark.heavy

Runs = Callable[..., Result]
ZH, ANATOMY = "lm-eval:mgsm_native_cot_zh", "lm-eval:mmlu_anatomy"
SHOTS = "lm-eval:gsm8k"  # the same task, with lm-eval's own five examples
ASKED = {
    "evaluate.benchmarks": ["heldout", "gsm8k", "mgsm_direct", ZH, ANATOMY, SHOTS],
    "evaluate.num_fewshot": {"gsm8k": 0},
    "evaluate.limit": 4,
    "evaluate.max_gen_toks": 64,
    "evaluate.backend.batch_size": 4,
    "evaluate.churn": {"batch_size": 3, "limit": 5},
    "evaluate.seed": 7,
    "run.threads": 1,
}


def sources(folder: Path) -> dict[str, Any]:
    """The official files of a folder, as params name them."""
    return {
        f"eval_data.{name}": {"origin": "folder", "path": str(folder / name), "revision": None}
        for name in ("gsm8k", "mgsm", "mmlu")
    }


def gathered(official: Path, folder: Path) -> Path:
    params = folder / "gather.yaml"
    write_changed_params(ROOT / "params.yaml", sources(official), params)
    words = ["--out", folder / "eval_data", "--metrics", folder / "eval_data.json", "--params", params]
    result = CliRunner().invoke(gather, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "eval_data"


@pytest.fixture(scope="module")
def eval_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gathered")
    write_gsm8k(folder / "official" / "gsm8k")
    write_mgsm(folder / "official" / "mgsm")
    write_mmlu(folder / "official" / "mmlu")
    return gathered(folder / "official", folder)


@pytest.fixture(scope="module")
def student(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tiny_student, tmp_path_factory.mktemp("taught") / "student")


@pytest.fixture(scope="module")
def arm(eval_data: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Arm:
    """The student asked four questions of each."""
    folder = tmp_path_factory.mktemp("arm")
    write_changed_params(ROOT / "params.yaml", ASKED, folder / "params.yaml")
    arm = Arm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv("HF_HOME", str(folder / "huggingface"))
        result = CliRunner().invoke(evaluate, arm.arguments(folder / "params.yaml", student, eval_data))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return arm


def of_lm_eval(task: str, student: Path, eval_data: Path, fewshot: int | None) -> dict[str, Any]:
    """The same task through lm-eval alone, its own ``think_end_token`` included; results and samples."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from stages.lib.evaluation.tasks import folder_of_tasks

    folders = [folder_of_tasks() / name for name in ("gsm8k", "mgsm/native_cot", "mmlu/default")]
    before = Path.cwd()
    os.chdir(eval_data)
    try:
        found: dict[str, Any] = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(student), "dtype": "float32", "think_end_token": "<answer>"},
            device="cpu",
            batch_size=4,
            tasks=[task],
            task_manager=TaskManager(include_path=folders, include_defaults=False),
            num_fewshot=fewshot,
            limit=4,
            gen_kwargs={"max_gen_toks": 64, "until": ["<|im_end|>"]},
            system_instruction=prompt_text("brief"),
            apply_chat_template=True,
            random_seed=7,
            numpy_random_seed=7,
            torch_random_seed=7,
            fewshot_random_seed=7,
        )
    finally:
        os.chdir(before)
    return found


@pytest.mark.parametrize(
    ("benchmark", "task", "fewshot"),
    [("gsm8k", "gsm8k", 0), (SHOTS, "gsm8k", None), (ZH, "mgsm_native_cot_zh", None), (ANATOMY, "mmlu_anatomy", None)],
)
def test_the_numbers_are_those_of_lm_eval_alone_to_the_last_digit(
    benchmark: str, task: str, fewshot: int | None, arm: Arm, student: Path, eval_data: Path
) -> None:
    alone = of_lm_eval(task, student, eval_data, fewshot)
    assert arm.facts["lm_eval"][benchmark] == json.loads(json.dumps(alone["results"]))
    hashes = {(sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]) for sample in alone["samples"][task]}
    rows = [row for row in arm.rows if row.benchmark == benchmark]
    assert {(row.doc_hash, row.prompt_hash, row.target_hash) for row in rows} == hashes
    marks = {
        s["doc_id"]: s.get("acc", s.get("exact_match")) for s in alone["samples"][task] if "strict" not in s["filter"]
    }
    assert [row.lm_eval for row in rows] == [marks[number] == 1 for number in range(4)]
    if benchmark == SHOTS:
        assert rows[0].prompt.count("<|im_start|>user") == 6, "five examples, each a turn, and the question"


def test_the_thought_is_kept_in_the_answers_and_taken_off_before_lm_eval_scores_them(arm: Arm) -> None:
    rows = [row for row in arm.rows if row.benchmark == "gsm8k"]
    assert {row.response for row in rows} == {ANSWER}
    # the first '####' is the thought's 12: it counts where the thought is scored too
    assert [row.answer for row in rows if row.lm_eval] == ["3"]
    assert arm.metrics["gsm8k"]["lm_eval_strict_match"] == 0.25
    assert arm.metrics["gsm8k"]["no_end_marker"] == 0.0


def test_both_scores_and_the_audit_stand_beside_each_other(arm: Arm) -> None:
    found = arm.metrics["gsm8k"]
    assert (found["headline"], found["value"], found["n"]) == ("verifier", found["verifier"], 4)
    assert found["verifier"] == found["lm_eval"] == 0.25
    assert (found["differ"], found["cut_off"], found["unread"]) == (0, 0.0, 0.0)
    assert (found["if_unsure_wrong"], found["if_unsure_right"]) == (0.25, 0.25)
    assert arm.metrics["system_prompt"] == "brief"
    assert list(arm.metrics) == ["system_prompt", "settings", "heldout", "gsm8k", "mgsm_direct", ZH, ANATOMY, SHOTS]


def test_how_the_arm_was_asked_stands_beside_its_scores(arm: Arm, student: Path) -> None:
    found = arm.metrics["settings"]
    asked = load_params(arm.folder / "params.yaml").evaluate.model_dump(mode="json")
    backend = asked.pop("backend")
    asked |= {"backend": backend.pop("kind"), "backend_args": backend.pop("args"), **backend}
    assert {name: found[name] for name in found if name not in ("chat_template", "versions")} == {
        name: value
        for name, value in asked.items()
        if name not in ("benchmarks", "base_prompt", "chat_template", "churn")  # none of them changes a first answer
    }
    template = (student / "chat_template.jinja").read_text(encoding="utf-8")
    assert found["chat_template"] == hashlib.sha256(template.encode()).hexdigest()[:12]
    assert list(found["versions"]) == ["lm_eval", "transformers", "torch", "accelerate"]
    assert not any("+" in each for each in found["versions"].values()), "a build is no version"


def test_mgsm_is_eleven_languages_and_their_mean_with_an_error_by_problem(arm: Arm) -> None:
    found = arm.metrics["mgsm_direct"]
    assert list(found["languages"]) == ["bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"]
    assert found["n"] == 44
    assert found["languages"]["zh"]["n"] == 4
    assert "languages" not in found["languages"]["zh"]
    assert {row["cluster"] for row in arm.scores if row["benchmark"] == "mgsm_direct"} == set("0123")
    assert {row["question_id"] for row in arm.scores if row["benchmark"] == "mgsm_direct"} >= {"zh/0", "bn/3"}


def test_choices_have_rows_and_scores_but_no_audit_and_no_verifier(arm: Arm) -> None:
    found = arm.metrics[ANATOMY]
    assert (found["headline"], found["verifier"], found["cut_off"], found["tokens_median"]) == ("lm_eval", *[None] * 3)
    assert found["value"] == found["lm_eval"]
    rows = [row for row in arm.rows if row.benchmark == ANATOMY]
    assert {row.response for row in rows} <= set("ABCD")
    assert [row.correct for row in rows] == [row.prediction == row.answer for row in rows]
    assert sum(row["correct"] == "1" for row in arm.scores if row["benchmark"] == ANATOMY) == round(found["value"] * 4)


def test_the_second_pass_asks_some_of_the_same_requests(arm: Arm) -> None:
    """Drawn examples too: lm-eval draws them one question after the other, so a sample alone would get others."""
    (folder,) = (arm.folder / ".cache" / "evaluation" / arm.name).iterdir()
    first, second = (keys(folder / f"{name}_rank0.db") for name in ("answers", "again_3_of_5"))
    assert second < first
    # four questions a task, and mgsm_direct has eleven tasks
    sampled = {name: each["churn"]["n"] for name, each in arm.metrics.items() if "churn" in each}
    assert sampled == {"heldout": 4, "gsm8k": 4, "mgsm_direct": 5, ZH: 4, ANATOMY: 4, SHOTS: 4}
    assert len(second) == 4 + 4 + 5 + 4 + 4 * 4 + 4
    assert all(each["churn"]["flipped"] == 0 for name, each in arm.metrics.items() if name in sampled)


def keys(cache: Path) -> set[str]:
    """The requests of which a cache has the answers."""
    with closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as found:
        return {str(row[0]) for row in found.execute("SELECT key FROM unnamed")}


def test_the_headline_says_which_score_counts(
    arm: Arm, student: Path, tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert all(row.correct == (row.verdict == "right") for row in arm.rows if row.verdict is not None)
    by_lm_eval = {"evaluate.headline": "lm_eval", "evaluate.benchmarks": ["heldout"], "evaluate.num_fewshot": {}}
    write_changed_params(ROOT / "params.yaml", ASKED | by_lm_eval, tmp_path / "params.yaml")
    other = Arm(tmp_path)
    runs(evaluate, *other.arguments(tmp_path / "params.yaml", student, None))
    assert (other.metrics["heldout"]["headline"], arm.metrics["heldout"]["headline"]) == ("lm_eval", "verifier")
    assert {row.decided_by for row in other.rows} == {"lm-eval"}
    assert all(row.correct == row.lm_eval for row in other.rows)


@pytest.mark.parametrize("benchmark", ["mgsm_direct", ZH])
def test_examples_that_were_not_downloaded_are_refused(
    benchmark: str, student: Path, tmp_path: Path, refuses: Callable[..., str]
) -> None:
    write_mgsm(tmp_path / "official" / "mgsm", exemplars=False)
    write_gsm8k(tmp_path / "official" / "gsm8k")
    write_mmlu(tmp_path / "official" / "mmlu")
    folder = gathered(tmp_path / "official", tmp_path)
    shots = {"evaluate.benchmarks": [benchmark], "evaluate.num_fewshot": {benchmark: 1}}
    write_changed_params(ROOT / "params.yaml", ASKED | shots, tmp_path / "params.yaml")
    line = refuses(evaluate, *Arm(tmp_path).arguments(tmp_path / "params.yaml", student, folder))
    assert line.startswith(f"evaluate.num_fewshot: 1 examples for '{benchmark}', but juletxara/mgsm was downloaded")
    assert "exemplars.py" in line


def test_more_examples_than_there_are_are_refused_before_anything_is_asked(
    eval_data: Path, student: Path, tmp_path: Path, refuses: Callable[..., str]
) -> None:
    shots = {"evaluate.benchmarks": [ANATOMY], "evaluate.num_fewshot": {ANATOMY: 6}}
    write_changed_params(ROOT / "params.yaml", ASKED | shots, tmp_path / "params.yaml")
    line = refuses(evaluate, *Arm(tmp_path).arguments(tmp_path / "params.yaml", student, eval_data))
    assert line == f"evaluate.num_fewshot: 6 examples for '{ANATOMY}', but 'mmlu_anatomy' has 5. Lower it."


WATCHED = """
import os, sys
def watched(event, arguments):
    name = arguments[0] if event == "socket.getaddrinfo" else arguments[1] if event == "socket.connect" else None
    host = name[0] if isinstance(name, tuple) else name
    if name is not None and host not in ("127.0.0.1", "::1", "localhost"):
        sys.stderr.write(f"ASKED {event} {host}\\n")
        sys.stderr.flush()
        os._exit(9)
sys.addaudithook(watched)
"""


def test_an_evaluation_of_gathered_benchmarks_connects_to_nothing(
    eval_data: Path, student: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCHED)
    watched = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    seen = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 9), timeout=1)"],
        env=os.environ | watched,
        capture_output=True,
    )
    assert seen.returncode == 9, "a connection to elsewhere is seen"
    write_changed_params(
        ROOT / "params.yaml",
        ASKED | {"evaluate.benchmarks": ["gsm8k", ZH, ANATOMY], "evaluate.limit": 1},
        tmp_path / "params.yaml",
    )
    arm = Arm(tmp_path)
    done = arm.run(arm.arguments(tmp_path / "params.yaml", student, eval_data), watched)
    assert done.returncode == 0, done.stderr[-2000:]
    assert arm.metrics["gsm8k"]["n"] == 1
    assert "downloads from the hub" not in done.stderr
    assert "it/s]" not in done.stderr, "no bars where stderr is no terminal"


def test_what_is_not_gathered_is_asked_of_the_hub_and_the_log_says_so(student: Path, tmp_path: Path) -> None:
    write_changed_params(ROOT / "params.yaml", ASKED | {"evaluate.benchmarks": ["gsm8k"]}, tmp_path / "params.yaml")
    (tmp_path / "eval_data").mkdir()
    arm = Arm(tmp_path)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = arm.run(arm.arguments(tmp_path / "params.yaml", student, tmp_path / "eval_data"), offline)
    assert done.returncode == 1
    assert "gsm8k: not in" in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: evaluate.benchmarks: the questions of 'gsm8k' cannot be loaded (")
    assert "make eval-data" in line
