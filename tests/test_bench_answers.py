"""The benchmark of verdicts: what each method calls right, what is counted, and where the answers come from."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from benchmarks.answers import (
    METHODS,
    OWN,
    Labelled,
    Measured,
    confusion,
    labelled,
    last_bold_number,
    last_number,
    lm_eval_flexible,
    main,
    math_verify,
    scores,
    sets,
    sketch,
)

Refuses = Callable[..., str]
Runs = Callable[..., Result]


def judged(method: Callable[[Labelled], str], response: str, answer: str = "28") -> str:
    return method(Labelled("How many?", response, answer, "right"))


@pytest.mark.parametrize(
    ("response", "bold", "last", "outline"),
    [
        ("So **28** are left.", "right", "right", "right"),
        ("So **36 - 8 = 28** are left. Now try 12.", "right", "wrong", "right"),
        ("**Final Answer:** 28 pencils. Check: 28 + 8 = 36.", "unsure", "wrong", "right"),
        ("Final answer: $28.00, of 36", "unsure", "wrong", "right"),
        ("### Final Answer\n\\[\\boxed{28}\\]", "unsure", "right", "right"),
        ("**36** are 28 and 8.", "wrong", "wrong", "unsure"),
        ("So **1,028** are left.", "wrong", "wrong", "wrong"),
        ("Many are left.", "unsure", "unsure", "wrong"),
        ("From 36-8 it is 28", "unsure", "right", "unsure"),
    ],
)
def test_the_simple_rules_read_what_their_names_say(response: str, bold: str, last: str, outline: str) -> None:
    assert judged(last_bold_number, response) == bold
    assert judged(last_number, response) == last
    assert judged(sketch, response) == outline


@pytest.mark.parametrize("method", [last_bold_number, last_number, sketch])
def test_a_gold_answer_that_is_no_number_makes_the_simple_rules_unsure(method: Callable[[Labelled], str]) -> None:
    assert judged(method, "It is **3/2**.", "\\frac{3}{2}") == "unsure"
    assert judged(method, "It is **-5,000**.", "$-5000$") == "right"


@pytest.mark.parametrize(
    ("response", "answer", "verdict"),
    [
        ("She has 28 left.", "28", "right"),
        ("She has $1,250.", "1250", "right"),
        ("She has 28 left, of 36.", "28", "wrong"),
        ("She has 12 left.", "12.0", "right"),
        ("none", "28", "wrong"),
    ],
)
def test_lm_eval_s_filter_and_comparison_are_those_of_its_gsm8k(response: str, answer: str, verdict: str) -> None:
    assert judged(lm_eval_flexible(), response, answer) == verdict


def test_math_verify_is_unsure_where_it_finds_nothing() -> None:
    judge = math_verify()
    assert judged(judge, "It is $\\frac{6}{4}$.", "\\frac{3}{2}") == "right"
    assert judged(judge, "It is $\\frac{6}{5}$.", "\\frac{3}{2}") == "wrong"
    assert judged(judge, "It is none.", "\\frac{3}{2}") == "unsure"


def test_every_method_stands_in_the_table_of_the_answers_of_its_own(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILLERY_DATA", raising=False)
    printed = runs(main).output
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    found = {row[0]: row[1:7] for row in cells if row[0] in METHODS}
    labels = Counter(row.label for row in labelled(OWN))
    assert list(found) == list(METHODS)
    assert all(sum(map(int, counts[:3])) == labels["right"] for counts in found.values())
    assert all(sum(map(int, counts[3:])) == labels["wrong"] for counts in found.values())


def test_answers_come_from_the_folder_that_the_environment_names_without_those_that_are_unclear(
    tmp_path: Path, runs: Runs, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    assert refuses(main).startswith(f"DISTILLERY_DATA={tmp_path}: no labelled answers there. ")
    (tmp_path / "answers").mkdir()
    rows = [{"question": "?", "response": "**28**", "answer": 28, "label": label} for label in ("right", "wrong", None)]
    (tmp_path / "answers" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    published = tmp_path / "gsm8k_model_solutions"
    published.mkdir()
    marked: dict[str, Any] = {"is_correct": False, "solution": "9 * 2 = <<9*2=18>>18\nA: 26"}
    row = {"question": "?", "ground_truth": "…\nA: 18", "6b": marked, "175b": marked | {"is_correct": True}}
    (published / "example_model_solutions.jsonl").write_text(json.dumps(row) + "\n")
    found = sets(None, str(tmp_path))
    assert {name: [each.label for each in rows] for name, rows in found.items()} == {
        "mine": ["right", "wrong"],
        "gpt3_gsm8k": ["wrong", "right"],
    }
    assert found["gpt3_gsm8k"][0].answer == "18"
    printed = runs(main, "--limit", 1).output
    assert "\nmine\n" in printed
    assert "\ngpt3_gsm8k\n" in printed


def test_a_row_that_is_no_labelled_answer_is_named(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "?", "response": "28", "answer": "28"}\n')
    assert refuses(main, "--rows", tmp_path / "rows.jsonl").startswith(f"{tmp_path / 'rows.jsonl'}:1: not a labelled")


def test_a_file_without_one_label_is_named(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "?", "response": "28", "answer": "28", "label": null}\n')
    line = refuses(main, "--rows", tmp_path / "rows.jsonl")
    assert line.startswith(f"{tmp_path / 'rows.jsonl'}: no labelled answers there. ")


def test_both_errors_of_both_scores_are_counted() -> None:
    ours = Counter({("right", "right"): 6, ("right", "unsure"): 1, ("wrong", "wrong"): 2, ("wrong", "unsure"): 1})
    theirs = Counter({("right", "right"): 4, ("right", "wrong"): 3, ("wrong", "wrong"): 2, ("wrong", "right"): 1})
    seconds = [0.001] * 9 + [0.003]
    found = {"rule_verdict": Measured(ours, seconds), "lm-eval, flexible-extract": Measured(theirs, seconds)}
    line = [cell.strip() for cell in scores({"mine": found}).splitlines()[-1].strip("|").split("|")]
    assert line == ["mine", "10", "70.0", "60.0", "80.0", "0", "1", "50.0", "1", "3"]
    first = [cell.strip() for cell in confusion(found).splitlines()[2].strip("|").split("|")]
    assert first == ["rule_verdict", "6", "0", "1", "0", "2", "1", "1.000", "2.100"]
