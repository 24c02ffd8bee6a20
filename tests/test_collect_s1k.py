"""collect-s1k: s1K-1.1 from a file, a hub or ModelScope, as rows that convert takes; present only where it is named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.collect_s1k import LeftOutAnswer, main
from stages.convert import main as convert
from stages.lib.rows import read_rows
from stages.lib.rows.distilled import Distilled
from tests.workspace import Workspace

Params = Callable[..., Path]
Runs = Callable[..., Result]

QUESTIONS = (
    "Compute the sum of all positive divisors of 2016 that are not divisible by seven.",
    "A ball is thrown upwards at 20 m/s: how high does it rise above the hand that threw it?",
    "求方程 x² − 5x + 6 = 0 的所有实根之和。",
)


def source_rows(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with all the columns that s1K-1.1 has."""
    rows = []
    for index, question in enumerate(QUESTIONS):
        row = {
            "solution": f"Solution {index}: 6",
            "question": question,
            "cot_type": "math",
            "source_type": "qfq/openaimath",
            "metadata": "{}",
            "gemini_thinking_trajectory": "Gemini's thought",
            "gemini_attempt": "Gemini's answer",
            "deepseek_thinking_trajectory": f"R1's thought {index}",
            "deepseek_attempt": f"R1's answer {index} \\boxed{{6}}",
            "gemini_grade": "Yes",
            "gemini_grade_reason": "",
            "deepseek_grade": "Yes",
            "deepseek_grade_reason": "",
        }
        rows.append(row | (changes[index] if index < len(changes) else {}))
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    write_table(Table.from_pylist(rows), path)
    return path


def from_file(path: Path) -> dict[str, object]:
    return {"collect_s1k": {"s1k": {"origin": "file", "path": str(path)}}}


def arguments(folder: Path, params: Path, name: str = "s1k") -> list[object]:
    outs = {"rows": "s1k.jsonl", "left-out": "left_out.jsonl", "metrics": "metrics.json"}
    paths = [part for option, file in outs.items() for part in (f"--{option}", folder / file)]
    return ["--name", name, *paths, "--params", params]


def test_a_row_is_deepseeks_answer_in_the_form_of_a_distilled_one(
    tmp_path: Path, project_params: Params, runs: Runs
) -> None:
    path = write_jsonl(tmp_path / "source.jsonl", source_rows())
    runs(main, *arguments(tmp_path, project_params(from_file(path))))
    first, *others = (tmp_path / "s1k.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {
        "id": "s1k-0",
        "question": QUESTIONS[0],
        "answer": "Solution 0: 6",
        "solution": "Solution 0: 6",
        "source": "s1K-1.1",
        "sample": 0,
        "reasoning": "R1's thought 0",
        "response": "R1's answer 0 \\boxed{6}",
        "finish_reason": "stop",
        "model": "deepseek-r1",
        "usage": {},
    }
    assert [json.loads(line)["id"] for line in others] == ["s1k-1", "s1k-2"]
    assert json.loads((tmp_path / "metrics.json").read_bytes()) == {
        "in": 3,
        "rows": 3,
        "left_out": {"duplicate": 0, "contaminated": 0},
        "contamination": {"ngram": 13, "gsm8k": "not checked", "mgsm": "not checked", "mmlu": "not checked"},
    }


def test_a_file_a_hub_and_modelscope_give_the_same_rows(tmp_path: Path, project_params: Params, runs: Runs) -> None:
    folder = tmp_path / "modelscope"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", source_rows())
    sources = {
        "jsonl": from_file(write_jsonl(tmp_path / "source.jsonl", source_rows())),
        "parquet": from_file(write_parquet(tmp_path / "source.parquet", source_rows())),
        "modelscope": {"collect_s1k": {"s1k": {"origin": "modelscope", "path": str(folder)}}},
        "hub": {"collect_s1k": {"s1k": {"origin": "hub", "path": str(folder)}}},
    }
    written = {}
    for name, changes in sources.items():
        runs(main, *arguments(tmp_path, project_params(changes)))
        written[name] = (tmp_path / "s1k.jsonl").read_bytes()
    assert len(set(written.values())) == 1, {name: text[:200] for name, text in written.items()}


def test_what_repeats_a_question_or_a_benchmarks_is_left_out_and_counted(
    tmp_path: Path, project_params: Params, runs: Runs
) -> None:
    rows = source_rows({}, {"question": QUESTIONS[0].upper()}, {"question": "So: Janet has three ducks and a half ."})
    path = write_jsonl(tmp_path / "source.jsonl", rows)
    benchmark = tmp_path / "test.jsonl"
    benchmark.write_text('{"question": "Janet has three ducks and sells them.", "answer": "#### 3"}\n')
    changes = {"collect.contamination.benchmarks.gsm8k": str(benchmark), "collect.contamination.ngram": 4}
    runs(main, *arguments(tmp_path, project_params(from_file(path) | changes)))
    kept = list(read_rows(tmp_path / "s1k.jsonl", Distilled, ""))
    repeated, contaminated = read_rows(tmp_path / "left_out.jsonl", LeftOutAnswer, "")
    assert [row.id for row in kept] == ["s1k-0"]
    assert (repeated.id, repeated.reason, repeated.same_as) == ("s1k-1", "duplicate", "s1k-0")
    assert (contaminated.id, contaminated.reason) == ("s1k-2", "contaminated")
    assert [hit.ngram for hit in contaminated.benchmark_hits] == ["janet has three ducks"]
    metrics = json.loads((tmp_path / "metrics.json").read_bytes())
    assert metrics["left_out"] == {"duplicate": 1, "contaminated": 1}
    assert metrics["in"] == metrics["rows"] + sum(metrics["left_out"].values())
    assert metrics["contamination"]["gsm8k"] == {"hits": 1, "questions": 1, "too_short": 0}


def test_an_answer_that_is_missing_goes_on_and_is_dropped_by_convert(
    tmp_path: Path, tiny_params: Params, runs: Runs
) -> None:
    rows = source_rows({"deepseek_attempt": None}, {"deepseek_thinking_trajectory": ""})
    params = tiny_params(from_file(write_jsonl(tmp_path / "source.jsonl", rows)))
    runs(main, *arguments(tmp_path, params))
    out = ["--out", tmp_path / "s1k", "--metrics", tmp_path / "convert.json"]
    runs(convert, "--rows", tmp_path / "s1k.jsonl", *out, "--params", params)
    metrics = json.loads((tmp_path / "convert.json").read_bytes())
    assert (metrics["in"], metrics["rows"], metrics["dropped"]["empty_text"]) == (3, 1, 2)
    assert json.loads((tmp_path / "s1k" / "s1k.json").read_bytes())[0]["conversations"][0]["value"] == QUESTIONS[2]


BAD_FILES = [
    pytest.param(b'{"question": "q"', ":1: not a JSON object", id="a broken line"),
    pytest.param(b"\xff\n", ":1: not a JSON object", id="not UTF-8"),
    pytest.param(b"[]\n", ":1: not a row of s1K-1.1 (Input should be", id="a list"),
    pytest.param(
        b'{"question": "q", "solution": "s", "thinking_trajectories": ["t"], "attempt": "a"}\n',
        ":1: not a row of s1K-1.1 (field 'deepseek_thinking_trajectory': Field required)",
        id="the older s1K",
    ),
    pytest.param(b"", ": 0 rows, and none of them is kept", id="empty"),
]


@pytest.mark.parametrize(("content", "complaint"), BAD_FILES)
def test_a_file_that_is_not_s1k_is_named_with_the_line(
    content: bytes, complaint: str, tmp_path: Path, project_params: Params, refuses: Callable[..., str]
) -> None:
    path = tmp_path / "source.jsonl"
    path.write_bytes(content)
    line = refuses(main, *arguments(tmp_path, project_params(from_file(path))))
    assert line.startswith(f"{path}{complaint}")
    assert line.endswith("Point collect_s1k.s1k.path at simplescaling/s1K-1.1.")
    assert not (tmp_path / "s1k.jsonl").exists()


def test_a_file_that_is_no_parquet_and_one_that_is_not_there_are_named(
    tmp_path: Path, project_params: Params, refuses: Callable[..., str]
) -> None:
    path = tmp_path / "source.parquet"
    path.write_bytes(b"no parquet")
    assert refuses(main, *arguments(tmp_path, project_params(from_file(path)))).startswith(f"{path}: not a Parquet")
    gone = tmp_path / "gone.jsonl"
    assert refuses(main, *arguments(tmp_path, project_params(from_file(gone)))).startswith(f"{gone}: no such file. ")


@pytest.mark.heavy
def test_a_hub_that_is_out_of_reach_is_told_in_one_line_with_the_way_round(
    tmp_path: Path, project_params: Params
) -> None:
    params = project_params({"collect_s1k": {"s1k": {"origin": "hub", "path": "simplescaling/s1K-1.1"}}})
    command = [sys.executable, "-m", "stages.collect_s1k", *map(str, arguments(tmp_path, params))]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}  # read when it is imported
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: collect_s1k.s1k.path: hub gave no 'simplescaling/s1K-1.1' (")
    assert "set origin: file" in last
    assert "Traceback" not in done.stderr


def test_an_entry_that_params_do_not_have_is_named(
    tmp_path: Path, project_params: Params, refuses: Callable[..., str]
) -> None:
    line = refuses(main, *arguments(tmp_path, project_params()))
    assert line == "params.yaml: collect_s1k: no entry 's1k'. Known: none."


@pytest.mark.heavy
def test_the_stage_is_there_just_where_params_name_it_and_feeds_its_dataset(tmp_path: Path, tiny_student: Path) -> None:
    space = Workspace.of_the_repository(tmp_path / "space", tiny_student)
    assert "s1k" not in space.run("dvc", "stage", "list", "--name-only")
    write_parquet(tmp_path / "source.parquet", source_rows())
    space.change(from_file(tmp_path / "source.parquet") | {"datasets.s1k": {"rows": "data/s1k.jsonl"}})
    assert space.repro("convert@s1k") == {"collect-s1k@s1k", "convert@s1k"}
    assert space.repro("convert@s1k") == set()
    metrics = json.loads((space.folder / "metrics" / "collect_s1k" / "s1k.json").read_bytes())
    assert metrics["rows"] == 3
    assert len(json.loads((space.folder / "data" / "sharegpt" / "s1k" / "s1k.json").read_bytes())) == 3
