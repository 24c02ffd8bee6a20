"""The strategy judge_rubric: how a judge's reply is read, what it is sent, and what its marks decide."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.filter import main
from stages.lib.judge.rubric import read_score, read_yes_no
from stages.lib.params import prompt_names, prompt_text
from stages.lib.teacher.backends.embedded import grader
from tests.distill_runner import Server
from tests.test_filter import OUTPUTS
from tests.test_filter_judge import FilterRunner, Reply, judge, runner, says

__all__ = ["judge", "runner"]  # fixtures

SCORES = [
    ("Score: 8", 8),
    ("**Score: 8**", 8),
    ("**Score:** 8/10", 8),
    ("Score: 8/10.", 8),
    ("Score (1-10): 7", 7),
    ("Score:\n8", 8),
    ("Rating: [[5]]", 5),  # lm-sys/FastChat's form
    ("[[9]]", 9),
    ('{"reason": "ok", "score": 8}', 8),
    ('```json\n{"score": "8"}\n```', 8),
    ("得分：8", 8),
    ("得分：8分", 8),
    ("得分：**8**分（满分10分）", 8),
    ("评分：８分", 8),
    ("综合评分为9分", 9),
    ("打分: 七分", 7),
    ("I'd give it 8 out of 10.", 8),
    ("8", 8),
    ("Fine.\n\n8/10", 8),
    ("8\nBecause it is good.", 8),
    ("Accuracy score: 9\nStyle score: 6\nOverall: 7", 7),
    ("Score: 7.5", 7.5),
    ("The final score is **9**.", 9),
    ("It has 10 sentences.\nScore: 3", 3),
    ("Score: 3\n\nNote: 10 is best", 3),
    # not a score, or not on this scale
    ("Score: 4/5", None),
    ("Score (1-10):", None),
    ("Score: 7-8", None),
    ("得分：7-8分", None),
    ("Score: 7 or 8", None),
    ("It misses 2 of the points.", None),
    ("Score: 11", None),
    ("Score: 0", None),
    ("Score: -3", None),
    ("Score: 85%", None),
    ("Score: N", None),
    ("Overall, it has 3 errors.", None),
    ("A grade 5 pupil would understand it.", None),
    ("", None),
]


@pytest.mark.parametrize(("reply", "score"), SCORES)
def test_a_score_is_read_where_it_is_one(reply: str, score: float | None) -> None:
    assert read_score(reply, 1, 10) == score


MARKS = [
    ("Yes", True),
    ("Verdict: Yes", True),
    ("是", True),
    ("结论：是", True),
    ("是否合格：是", True),
    ("是的，完成了任务。", True),
    ("The answer is fine.\nYes, it does all.", True),
    ('{"verdict": "yes"}', True),
    ("It is good. Final answer: **YES**", True),
    ("No.", False),
    ("**Verdict:** no", False),
    ("否。", False),
    ("结论：不是", False),
    ("是否完成任务：否", False),
    ("No, it misses the limit.\nIt is too long.", False),
    ("[[No]]", False),
    ("不对", False),
    ("是/否", None),
    ("Yes/No", None),
    ("结论：是/否", None),
    ("Yes and no.", None),
    ("No issues found.", None),
    ("Partially", None),
    ("Yes, it is short.\nNo.", None),
    ("否则不行", None),
    ("No one knows", None),
    ("", None),
]


@pytest.mark.parametrize(("reply", "passed"), MARKS)
def test_yes_and_no_are_read_where_they_are_the_mark(reply: str, passed: bool | None) -> None:
    assert read_yes_no(reply) is passed


@pytest.mark.parametrize("piece", ["*", " ", "score ", "是", "(", "1", "verdict", "yes ", "1 /", "[["])
def test_a_reply_of_a_hundred_thousand_characters_is_read_at_once(piece: str) -> None:
    reply, start = piece * (100_000 // len(piece)), time.process_time()
    read_score(reply, 1, 10)
    read_yes_no(reply)
    assert time.process_time() - start < 5


RUBRIC = {"filter.strategy": "judge_rubric", "filter.judge.prompt": "rubric_en"}


@pytest.fixture
def rubric(runner: FilterRunner) -> FilterRunner:
    """The runner with questions without gold answers, a rubric and its scale."""
    score = {"kind": "score", "low": 1, "high": 10, "at_least": 7}
    runner.settings |= RUBRIC | {"filter.reply": score}
    rows = (
        {"question": "Work out 2 + 3 =", "response": "The answer is 5."},
        {"question": "Work out 2 + 3 =", "response": "The answer is {question}."},
        {"question": "Why do leaves turn yellow in autumn?", "response": "Leaves turn yellow when autumn comes."},
    )
    runner._distilled_file(*(row | {"answer": None, "solution": None} for row in rows))
    return runner


def test_a_judge_is_sent_the_task_and_the_answer_as_they_are(
    rubric: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    server = judge(lambda material, attempt: says("Score: 8"))
    rubric.use(server)
    rubric.run()
    assert len(server.asked) == 3
    expected = prompt_text("rubric_en").replace("{question}", "Work out 2 + 3 =")
    assert expected.replace("{response}", "The answer is {question}.") in server.asked


@pytest.mark.parametrize("at_least", [8, 9])
def test_the_score_decides_and_is_in_the_row(
    at_least: int, rubric: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    rubric.settings["filter.reply"] = {"kind": "score", "low": 1, "high": 10, "at_least": at_least}
    answers = {"The answer is 5.": "**得分：9分**", "The answer is {question}.": '{"score": 8}'}
    server = judge(
        lambda text, attempt: says(next((mark for response, mark in answers.items() if response in text), "Hm."))
    )
    rubric.use(server)
    rubric.run()
    kept = [(row["id"], row["score"], row["decided_by"]) for row in rubric.rows("filtered")]
    assert kept == [("q0", 9.0, "rubric"), ("q1", 8.0, "rubric")][: 2 if at_least == 8 else 1]
    reasons = [(row["id"], row["reason"], row.get("score")) for row in rubric.rows("rejected")]
    assert reasons[-1] == ("q2", "no_mark_read", None)
    assert reasons[:-1] == ([] if at_least == 8 else [("q1", "rubric_not_met", 8.0)])
    marks = {"right": 2, "wrong": 0} if at_least == 8 else {"right": 1, "wrong": 1}
    assert rubric.metrics()["rubric"] == marks | {"unsure": 1, "scores": {"8": 1, "9": 1}}
    assert len(server.asked) == 4, "the reply that could not be read is retried once"


def test_a_rubric_may_ask_for_yes_or_no_and_nothing_is_bought_twice(
    rubric: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    rubric.settings["filter.reply"] = {"kind": "yes_no"}
    server = judge(lambda text, attempt: says("是" if "autumn" in text else "No."))
    rubric.use(server)
    rubric.run()
    rubric.set(on_unsure="keep")
    rubric.run()
    assert [row["id"] for row in rubric.rows("filtered")] == ["q2"]
    assert len(server.asked) == 3


def test_the_embedded_judge_grades_by_what_it_can_compute(rubric: FilterRunner) -> None:
    rubric.run()
    scores = [row["score"] for row in rubric.judged()]
    assert scores[0] == 10
    assert scores[1] == 2
    assert scores[2] >= 7
    assert len(rubric.requested()) == 3


def test_what_fails_a_check_costs_no_mark(rubric: FilterRunner) -> None:
    rubric.settings["filter.checks"] = [{"kind": "length", "of": "response", "unit": "characters", "min": 1, "max": 20}]
    rubric.run()
    assert len(rubric.requested()) == 1
    assert rubric.metrics()["rejected_by_reason"] == {"too_long": 2}


@pytest.mark.parametrize("name", ["rubric_en", "rubric_zh"])
def test_the_embedded_judge_knows_each_rubric_by_its_text(name: str) -> None:
    assert name in prompt_names("judge")
    text = prompt_text(name).replace("{question}", "2 + 3 =").replace("{response}", "It is 5.")
    assert grader.material(text) == grader.Material("2 + 3 =", "It is 5.", wants_score=True)


REFUSED = [
    pytest.param({}, "collect.source has none", id="gold of a source without"),
    pytest.param({"filter.strategy": "majority"}, "distill.samples_per_question is 1", id="one sample"),
    pytest.param(RUBRIC | {"filter.judge.prompt": "strict_teacher"}, "no placeholder {response}", id="no rubric"),
    pytest.param(RUBRIC | {"filter.strategy": "judge"}, "rubric_en is a rubric", id="a rubric against gold"),
    pytest.param(
        RUBRIC | {"filter.reply": {"kind": "score", "low": 1, "high": 10, "at_least": 1}},
        "filter.reply: needs low < at_least <= high",
        id="a score that all have",
    ),
    pytest.param(
        {"filter.checks": [{"kind": "refusals", "phrases": "refusal"}]},
        "filter.checks.0.phrases: no file stages/phrases/refusal.txt. Did you mean 'refusals'?",
        id="phrases",
    ),
    pytest.param(
        {"filter.checks": [{"kind": "markers", "phrases": "refusals"}]},
        "filter.checks.0.phrases: kind markers does not read it; kind refusals does. ",
        id="a key of another check",
    ),
]


@pytest.mark.parametrize(("changes", "part"), REFUSED)
def test_a_strategy_that_does_not_fit_is_refused_before_any_money_is_spent(
    changes: dict[str, object],
    part: str,
    tmp_path: Path,
    project_params: Callable[..., Path],
    distilled_file: Callable[..., Path],
    refuses: Callable[..., str],
) -> None:
    columns = {"question": "question", "answer": None, "solution": None, "id": None}
    source = {"collect.source.kind": "file", "collect.source.columns": columns, "collect.source.gold": None}
    params = project_params(source | changes)
    outputs = [part for name in OUTPUTS for part in (f"--{name}", tmp_path / "out" / name)]
    assert part in refuses(main, "--distilled", distilled_file({}), "--params", params, *outputs)


def test_a_source_names_both_the_column_and_the_form_of_its_gold_answers_or_neither(
    project_params: Callable[..., Path],
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    refuses: Callable[..., str],
) -> None:
    columns = {"question": "question", "answer": None, "solution": None, "id": None}
    params = project_params({"collect.source.kind": "file", "collect.source.columns": columns})
    outputs = [part for name in OUTPUTS for part in (f"--{name}", tmp_path / "out" / name)]
    line = refuses(main, "--distilled", distilled_file({}), "--params", params, *outputs)
    assert "gold is plain, but columns names no answer. Name its column, or set gold: null" in line
