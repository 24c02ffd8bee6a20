"""filter: right answers kept, each other one dropped with its reason, and a control of the same size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from benchmarks.filter import filtered
from stages.filter import main
from stages.lib.rows import read_some_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Filtered, Rejected

OUTPUTS = ("filtered", "rejected", "control", "disagreements", "metrics")

RIGHT = {"response": "2 + 3 = 5. The answer is 5."}
WRONG = {"response": "The answer is 6."}
TWO_ANSWERS = {"response": "The answer is 5. No, the answer is 6."}
NO_ANSWER = {"response": "I would rather not say."}
EMPTY = {"response": ""}


def arguments(rows_path: Path, folder: Path, params: Path) -> list[object]:
    outputs = [part for name in OUTPUTS for part in (f"--{name}", folder / name)]
    return ["--distilled", rows_path, "--params", params, *outputs]


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


@pytest.fixture
def filtering(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> Callable[..., Path]:
    """``filtering(RIGHT, WRONG)``: the folder with filter's outputs for these rows."""

    def run(*changes: dict[str, Any], seed: int = 3, name: str = "out") -> Path:
        params = project_params({"filter.control_seed": seed})
        runs(main, *arguments(distilled_file(*changes), tmp_path / name, params))
        return tmp_path / name

    return run


def test_right_answers_are_kept_and_wrong_ones_rejected_in_their_order(filtering: Callable[..., Path]) -> None:
    out = filtering(RIGHT, WRONG, RIGHT, NO_ANSWER, WRONG, RIGHT)
    assert ids(out / "filtered") == ["q0", "q2", "q5"]
    assert ids(out / "rejected") == ["q1", "q3", "q4"]


@pytest.mark.parametrize(
    ("change", "reason", "verdict", "prediction"),
    [
        pytest.param(WRONG, "wrong_answer", "wrong", "6", id="wrong"),
        pytest.param(TWO_ANSWERS, "no_answer_read", "unsure", "6", id="two answers"),
        pytest.param(NO_ANSWER, "no_answer_read", "unsure", None, id="no answer"),
        pytest.param(EMPTY, "no_answer_read", "unsure", None, id="empty"),
        pytest.param(RIGHT | {"answer": "blue"}, "no_answer_read", "unsure", "5", id="a gold answer without a number"),
    ],
)
def test_a_rejected_row_says_why(
    change: dict[str, Any], reason: str, verdict: str, prediction: str | None, filtering: Callable[..., Path]
) -> None:
    (row,) = read_some_rows(filtering(RIGHT, change) / "rejected", Rejected, "")
    assert (row.reason, row.verdict, row.prediction) == (reason, verdict, prediction)
    assert row.decided_by.startswith("rule:")


def test_a_kept_row_is_the_distilled_one_with_its_verdict(
    filtering: Callable[..., Path], distilled_file: Callable[..., Path]
) -> None:
    (kept,) = read_some_rows(filtering(RIGHT) / "filtered", Filtered, "")
    (distilled,) = read_some_rows(distilled_file(RIGHT), Distilled, "")
    verdict: dict[str, Any] = {"prediction": "5", "verdict": "right", "decided_by": "rule:label"}
    verdict |= {"rule_verdict": "right", "judge_verdict": None}
    assert kept.model_dump() == distilled.model_dump() | verdict


def test_an_unsure_answer_is_kept_and_counted_where_params_say_so(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> None:
    params = project_params({"filter.on_unsure": "keep"})
    runs(main, *arguments(distilled_file(RIGHT, WRONG, NO_ANSWER), tmp_path / "out", params))
    assert ids(tmp_path / "out" / "filtered") == ["q0", "q2"]
    assert json.loads((tmp_path / "out" / "metrics").read_bytes())["kept_unsure"] == 1


def test_the_reasoning_does_not_count_as_the_answer(filtering: Callable[..., Path]) -> None:
    out = filtering(RIGHT | {"reasoning": "The answer is 6. \\boxed{6}"}, WRONG | {"reasoning": "The answer is 5."})
    assert ids(out / "filtered") == ["q0"]


def test_every_row_that_came_in_is_counted_where_it_went(filtering: Callable[..., Path]) -> None:
    out = filtering(RIGHT, WRONG, WRONG, NO_ANSWER, RIGHT | {"response": "**5**"})
    assert json.loads((out / "metrics").read_bytes()) == {
        "in": 5,
        "kept": 2,
        "kept_unsure": 0,
        "kept_share": 0.4,
        "rejected": 3,
        "rejected_by_reason": {"no_answer_read": 1, "wrong_answer": 2},
        "decided_by": {"rule:bold": 1, "rule:label": 3, "rule:none": 1},
        "rule_by_judge": {"right": {"not_asked": 2}, "wrong": {"not_asked": 2}, "unsure": {"not_asked": 1}},
        "judge_contradicts": None,
        "judge_asked": 0,
        "judge_calls_saved": None,
        "rule_against_judge": 0,
        "gold_suspect": 0,
        "questions_by_right_share": {"0/1": 3, "1/1": 2},
        "control": 2,
        "reviews": None,
    }
    assert sorted(ids(out / "filtered") + ids(out / "rejected")) == ["q0", "q1", "q2", "q3", "q4"]


class TestControl:
    """As many dropped as by the filter, but at random."""

    MIXED = (RIGHT, WRONG, NO_ANSWER) * 20

    def test_it_has_as_many_rows_as_were_kept(self, filtering: Callable[..., Path]) -> None:
        out = filtering(*self.MIXED)
        assert len(ids(out / "control")) == len(ids(out / "filtered")) == 20

    def test_it_is_drawn_from_all_rows_and_not_from_the_kept_ones(self, filtering: Callable[..., Path]) -> None:
        out = filtering(*self.MIXED)
        control = set(ids(out / "control"))
        assert control & set(ids(out / "filtered"))
        assert control & set(ids(out / "rejected"))

    def test_it_keeps_the_order_of_the_rows_and_repeats_none(self, filtering: Callable[..., Path]) -> None:
        numbers = [int(name[1:]) for name in ids(filtering(*self.MIXED) / "control")]
        assert numbers == sorted(set(numbers))

    def test_its_rows_are_the_distilled_ones_untouched(
        self, filtering: Callable[..., Path], distilled_file: Callable[..., Path]
    ) -> None:
        control = read_some_rows(filtering(*self.MIXED) / "control", Distilled, "")
        distilled = read_some_rows(distilled_file(*self.MIXED), Distilled, "")
        assert set(map(repr, control)) <= set(map(repr, distilled))
        assert "verdict" not in json.loads((distilled_file(RIGHT).parent / "out" / "control").open().readline())

    def test_the_same_seed_draws_the_same_and_another_seed_others(self, filtering: Callable[..., Path]) -> None:
        first, again, other = (
            filtering(*self.MIXED, seed=seed, name=name) for seed, name in ((3, "a"), (3, "b"), (4, "c"))
        )
        for name in OUTPUTS:
            assert (first / name).read_bytes() == (again / name).read_bytes()
        assert ids(first / "control") != ids(other / "control")
        assert ids(first / "filtered") == ids(other / "filtered")

    def test_where_all_are_right_it_is_all_of_them(self, filtering: Callable[..., Path]) -> None:
        out = filtering(RIGHT, RIGHT, RIGHT)
        assert ids(out / "control") == ids(out / "filtered") == ["q0", "q1", "q2"]
        assert (out / "rejected").read_bytes() == b""


def test_samples_of_one_question_are_judged_apart(filtering: Callable[..., Path]) -> None:
    out = filtering(RIGHT | {"id": "q", "sample": 0}, WRONG | {"id": "q", "sample": 1})
    assert [row.sample for row in read_some_rows(out / "filtered", Filtered, "")] == [0]
    assert [row.sample for row in read_some_rows(out / "rejected", Rejected, "")] == [1]


SAMPLES = (WRONG, RIGHT | {"reasoning": "a longer thought"}, RIGHT | {"reasoning": "short"}, NO_ANSWER)
SELECTED = [
    pytest.param("all_correct", "reject", [1, 2], id="all"),
    pytest.param("first_correct", "reject", [1], id="the first"),
    pytest.param("shortest_correct", "reject", [2], id="the shortest, reasoning included"),
    pytest.param("all_correct", "keep", [1, 2, 3], id="all, and the unsure"),
    pytest.param("first_correct", "keep", [1], id="the first, for there is a right one"),
    pytest.param("shortest_correct", "keep", [2], id="the shortest right one, though the unsure one is shorter"),
]


@pytest.mark.parametrize(("select", "on_unsure", "kept"), SELECTED)
def test_of_several_answers_to_a_question_those_are_kept_that_params_say(
    select: str,
    on_unsure: str,
    kept: list[int],
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> None:
    rows = [change | {"id": "many", "sample": sample} for sample, change in enumerate(SAMPLES)]
    rows += [WRONG | {"id": "none", "sample": sample} for sample in range(2)]
    params = project_params({"filter.select": select, "filter.on_unsure": on_unsure})
    runs(main, *arguments(distilled_file(*rows), tmp_path / "out", params))
    assert [row.sample for row in read_some_rows(tmp_path / "out" / "filtered", Filtered, "")] == kept
    metrics = json.loads((tmp_path / "out" / "metrics").read_bytes())
    assert metrics["questions_by_right_share"] == {"0/2": 1, "2/4": 1}
    assert metrics["rejected"] == 6 - len(kept)
    reasons = {row.sample: row.reason for row in read_some_rows(tmp_path / "out" / "rejected", Rejected, "")[:-2]}
    left = {0: "wrong_answer", 3: "no_answer_read" if on_unsure == "reject" else "not_selected"}
    left |= dict.fromkeys((1, 2), "not_selected")
    assert reasons == {sample: left[sample] for sample in range(4) if sample not in kept}


def test_where_no_answer_is_right_the_first_unsure_one_is_kept_if_params_say_so(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> None:
    rows = [change | {"id": "q", "sample": sample} for sample, change in enumerate((WRONG, NO_ANSWER, EMPTY))]
    params = project_params({"filter.select": "first_correct", "filter.on_unsure": "keep"})
    runs(main, *arguments(distilled_file(*rows), tmp_path / "out", params))
    assert [row.sample for row in read_some_rows(tmp_path / "out" / "filtered", Filtered, "")] == [1]


def test_the_rule_alone_asks_nobody_and_opens_no_store(
    filtering: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    out = filtering(RIGHT, WRONG, NO_ANSWER)
    assert (out / "disagreements").read_bytes() == b""
    assert json.loads((out / "metrics").read_bytes())["judge_calls_saved"] is None
    assert not list(tmp_path.rglob("answers.*"))


def test_not_one_right_answer_is_refused(
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    refuses: Callable[..., str],
    tmp_path: Path,
) -> None:
    rows = distilled_file(WRONG, NO_ANSWER)
    line = refuses(main, *arguments(rows, tmp_path / "out", project_params()))
    assert line.startswith(f"{rows}: none of 2 answers is kept. ")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow  # half a minute
def test_twenty_times_the_rows_take_the_same_memory(tmp_path: Path) -> None:
    few, many = (filtered(count, tmp_path).peak_mb for count in (10_000, 200_000))
    assert many < 1.3 * few


def test_what_was_kept_and_why_the_rest_was_not_is_logged(
    filtering: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    filtering(RIGHT, WRONG, WRONG, NO_ANSWER)
    assert "filter: kept 1 of 4 (2 wrong_answer, 1 no_answer_read)" in caplog.messages
