"""The strategy majority: the value that most samples of a question state, in whatever form and order they state it."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.filter import main
from stages.lib.answers import rule_verdict, stated_answer
from stages.lib.deciders.majority import ByMajority
from stages.lib.rows.distilled import Distilled
from tests.public_data import WHOLE
from tests.test_filter import OUTPUTS

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def samples(
    *responses: str, question: str = "How many clips did she sell?", answer: str | None = None
) -> list[Distilled]:
    return [
        Distilled(
            id="q",
            question=question,
            answer=answer,
            sample=number,
            reasoning="",
            response=response,
            finish_reason="stop",
            model="m",
            usage={},
        )
        for number, response in enumerate(responses)
    ]


CASES = [
    pytest.param(("It is 72.", "So 72.", "The answer is 72.", "The answer is 70."), "72", [3, 1], id="three of four"),
    pytest.param(("The answer is 1,080.", "The answer is 1080.", "The answer is 9."), "1080", [2, 1], id="two forms"),
    pytest.param(("The answer is 4.", "The answer is 5."), None, [1, 1], id="one each"),
    pytest.param(("The answer is 4.",) * 2 + ("The answer is 5.",) * 2, None, [2, 2], id="a tie"),
    pytest.param(("The answer is 4.",), None, [1], id="one sample is no majority"),
    pytest.param(("The answer is 4.", "The answer is 4.", "?", "?", "?"), None, [2], id="too small a share"),
    pytest.param(("I do not know.", "Nor do I."), None, [], id="no value"),
    pytest.param((r"\boxed{\frac{1}{2}}", "The answer is 0.5.", "The answer is 3."), "0.5", [2, 1], id="a fraction"),
]


@pytest.mark.parametrize(("responses", "value", "clusters"), CASES)
def test_the_largest_cluster_decides_in_any_order(
    responses: tuple[str, ...], value: str | None, clusters: list[int]
) -> None:
    for order in itertools.permutations(responses):
        decisions = ByMajority(0.5).decide(samples(*order), len(order))
        for majority in (decision.majority for decision in decisions):
            assert majority and (majority.value, majority.clusters) == (value, clusters)
        right = [decision for decision in decisions if decision.verdict == "right"]
        assert len(right) == (clusters[0] if value else 0)


@pytest.mark.parametrize(
    ("question", "response", "value"),
    [
        ("Is 7 a prime number?", "Yes, 7 is a prime number.", "yes"),
        ("Is 9 a prime number?", "No. 9 = 3 x 3.", "no"),
        ("9大于8吗？", "是的，9大于8。", "yes"),
        ("Which is prime? A) 9 B) 5", "The answer is B) 5.", "b"),
        ("What is the capital of France?", "The answer is Paris.", "paris"),
        ("How many?", "72", "72"),
        ("Sum up the text.", "Three farmers met in 1848 and argued about 3 cows for a long time, until 1850.", None),
    ],
)
def test_a_response_states_a_number_a_side_a_choice_or_nothing(question: str, response: str, value: str | None) -> None:
    assert stated_answer(question, response) == value


def test_what_right_answers_of_real_models_state_is_the_gold_answer(development_data: Path) -> None:
    """Of 426 right answers 397 state the gold value, 17 another one and 12 none."""
    paths = sorted((development_data / "answers").glob("*.jsonl"))
    rows = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    found = Counter(_stated_gold(row) for row in rows if row["label"] == "right")
    assert found["right"] >= 0.92 * found.total()


def _stated_gold(row: dict[str, Any]) -> str:
    stated = stated_answer(row["question"], row["response"])
    answer = str(row["answer"])
    return rule_verdict(row["question"], f"The answer is {stated}.", answer).verdict if stated else "none"


def test_a_larger_share_keeps_fewer_answers_of_which_more_are_right(development_data: Path) -> None:
    """Four models' answers to a question of GSM8K as its samples; their own labels say which are right."""
    path = development_data / "gsm8k_model_solutions" / "example_model_solutions.jsonl"
    lines = path.read_bytes().splitlines()[:200]
    precision = [_precision(map(json.loads, lines), share) for share in (0.5, 0.75, 1.0)]
    kept = [count for count, _ in precision]
    assert kept == sorted(kept, reverse=True)
    if WHOLE:  # the sample has too few questions for a share
        assert precision[0][1] < precision[1][1] < precision[2][1]


def _precision(rows: Any, share: float) -> tuple[int, float]:
    kept = right = 0
    for row in rows:
        texts = samples(*(row[model]["solution"] for model in MODELS), question=row["question"])
        for model, decision in zip(MODELS, ByMajority(share).decide(texts, len(texts)), strict=True):
            kept += decision.verdict == "right"
            right += decision.verdict == "right" and row[model]["is_correct"]
    return kept, right / max(kept, 1)


@pytest.fixture
def filtering(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> Callable[..., dict[str, Any]]:
    """``filtering(rows, min_share=0.5)``: the metrics of the stage; its other outputs are in tmp_path."""

    def run(rows: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
        changes = {"filter.strategy": "majority", "distill.samples_per_question": 4}
        params = project_params(changes | {f"filter.{name}": value for name, value in values.items()})
        outputs = [part for name in OUTPUTS for part in (f"--{name}", tmp_path / name)]
        runs(main, "--distilled", distilled_file(*rows), "--params", params, *outputs)
        metrics: dict[str, Any] = json.loads((tmp_path / "metrics").read_bytes())
        return metrics

    return run


def rows_of(name: str, *responses: str, **fields: Any) -> list[dict[str, Any]]:
    row = {"id": name, "answer": None, "solution": None} | fields
    return [row | {"sample": number, "response": response} for number, response in enumerate(responses)]


def test_rows_say_the_value_its_share_and_the_sizes_of_all_clusters(
    filtering: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    rows = rows_of("a", "The answer is 5.", "It is 5.", "The answer is 6.", "Hm.")
    metrics = filtering(rows + rows_of("b", "The answer is 1.", "The answer is 2."), min_share=0.5)
    kept = [json.loads(line) for line in (tmp_path / "filtered").read_bytes().splitlines()]
    assert [row["sample"] for row in kept] == [0, 1]
    assert kept[0]["majority"] == {"value": "5", "share": 0.5, "clusters": [2, 1]}
    assert (kept[0]["rule_verdict"], kept[0]["prediction"], kept[0]["decided_by"]) == (None, "5", "majority")
    assert metrics["rejected_by_reason"] == {"no_answer_read": 1, "no_majority": 2, "not_the_majority": 1}
    expected = {"questions": 2, "decided": 1, "undecided": 1, "largest_share": {"0.50": 2}}
    assert metrics["majority"] == expected
    assert metrics["control"] == 2


def test_an_answer_that_fails_a_check_has_no_vote_but_counts_in_the_share(
    filtering: Callable[..., dict[str, Any]],
) -> None:
    rows = rows_of("a", "The answer is 5.", "It is 5.", "The answer is 6.<|im_end|>", "The answer is 6.<|im_end|>")
    rows += rows_of("b", "The answer is 5.", "The answer is 5.")
    metrics = filtering(rows, min_share=0.6, checks=[{"kind": "markers"}])
    assert metrics["rejected_by_reason"] == {"marker_in_text": 2, "no_majority": 2}
    assert metrics["kept"] == 2


def test_gold_answers_decide_nothing_and_are_compared(filtering: Callable[..., dict[str, Any]]) -> None:
    rows = rows_of("a", "The answer is 6.", "It is 6.", "The answer is 5.", answer="5")
    metrics = filtering(rows, min_share=0.5)
    assert metrics["kept"] == 2
    assert metrics["majority"]["by_gold"]["right"] == {"right": 0, "wrong": 2, "unsure": 0}


def test_rows_without_gold_are_unsure_for_a_strategy_that_needs_it(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
    refuses: Callable[..., str],
) -> None:
    outputs = [part for name in OUTPUTS for part in (f"--{name}", tmp_path / "out" / name)]
    params = project_params()
    runs(main, "--distilled", distilled_file({}, {"answer": None}), "--params", params, *outputs)
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "rejected").read_bytes().splitlines()]
    assert (row["reason"], row["verdict"], row["rule_verdict"]) == ("no_gold", "unsure", None)
    line = refuses(main, "--distilled", distilled_file({"answer": None}), "--params", params, *outputs)
    assert ": no row that passes the checks has a gold answer, and the strategy needs one. " in line
