"""profiles/own-data.yaml: a file of questions without gold answers goes through the whole chain, judged by a model."""

import csv
import json
import re
from pathlib import Path

import pytest

from tests.workspace import ROOT, Workspace

QUESTIONS = ROOT / "examples" / "questions.csv"
SUM = re.compile(r"\d+(?: [+-] \d+)+")


def results() -> dict[str, int]:
    """The right result of each example by its id, worked out here."""
    with QUESTIONS.open(encoding="utf-8", newline="") as file:
        return {row["id"]: result(row["question"]) for row in csv.DictReader(file)}


def result(question: str) -> int:
    (found,) = SUM.findall(question)
    first, *rest = re.findall(r"[+-]?\d+", found.replace(" ", ""))
    return int(first) + sum(map(int, rest))


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_examples_are_fifty_questions_and_have_no_gold_answers() -> None:
    assert len(results()) == 50
    with QUESTIONS.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["id", "question", "topic"]


@pytest.mark.heavy
def test_questions_without_gold_answers_go_through_the_whole_chain(workspace: Workspace, tiny_student: Path) -> None:
    workspace.make("profile-own-data")
    tiny = {"train.student.kind": "path", "train.student.name": str(tiny_student), "run.threads": 1}
    workspace.change(tiny | {"evaluate.max_gen_toks": 8, "run.embedded.latency_s": 0.0})
    stages = workspace.repro()
    assert {"collect", "distill", "filter", "prefer", "compare", "report"} <= stages
    distilled = rows(workspace.folder / "data" / "distilled.jsonl")
    assert [row["id"] for row in distilled] == [f"q{number:02}" for number in range(1, 41)]
    assert {row["answer"] for row in distilled} == {None}
    right = {
        row["id"]
        for row in distilled
        if re.findall(r"-?\d+", str(row["response"]))[-1] == str(results()[str(row["id"])])
    }
    kept = rows(workspace.folder / "data" / "filtered.jsonl")
    assert 0 < len(kept) < len(distilled)
    assert {row["id"] for row in kept} == right
    assert {row["decided_by"] for row in kept} == {"rubric"}
    compared = json.loads((workspace.folder / "metrics" / "prefer.json").read_bytes())
    assert {(pair["first"], pair["second"]) for pair in compared["pairs"].values()} == {
        ("filtered", "base"),
        ("unfiltered", "base"),
        ("filtered", "unfiltered"),
    }
    assert all(pair["wins"] + pair["losses"] + pair["ties"] == 10 for pair in compared["pairs"].values())
    assert "preference" in (workspace.folder / "report" / "index.html").read_text(encoding="utf-8")
