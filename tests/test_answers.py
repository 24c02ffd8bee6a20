r"""Reading a final answer and judging it by rule: tables of forms and of whole lessons; a misreading adds a row.

The tables are in ``tests/answers``; "unsure" is the right verdict where a person could not tell either.
"""

import json
import re
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from stages.lib.answers import rule_verdict
from stages.lib.answers.endings import OPENS_CHINESE, RESULT, body
from stages.lib.answers.expressions import Worker
from stages.lib.answers.numbers import quantities_in, quantity_at
from stages.lib.answers.spelling import normalise
from stages.lib.answers.wording import CONCLUDES, CORRECTS, FINAL, TOTAL
from tests.answers import lessons_en, lessons_zh
from tests.answers.forms import FORMS
from tests.public_data import WHOLE

TABLE = [pytest.param(row, id=f"{kind}-{index}") for kind, rows in FORMS.items() for index, row in enumerate(rows)]
LESSONS = [
    pytest.param(*lesson, id=f"{language}-{index}")
    for language, lessons in (("zh", lessons_zh.LESSONS), ("en", lessons_en.LESSONS))
    for index, lesson in enumerate(lessons)
]
ABSENT = "98765"  # in none of the lessons


@pytest.mark.parametrize("row", TABLE)
def test_a_form_is_judged_as_a_person_would(row: tuple[str, ...]) -> None:
    response, answer, expected, *question = row
    verdict = rule_verdict(question[0] if question else "How many?", response, answer)
    assert verdict.verdict == expected, f"{response[-200:]!r} against {answer}: {verdict}"


def test_the_table_has_several_rows_of_each_form() -> None:
    assert sum(map(len, FORMS.values())) >= 200
    assert min(map(len, FORMS.values())) >= 7


@pytest.mark.parametrize(("question", "answer", "expected", "response"), LESSONS)
def test_a_whole_lesson_is_judged_by_its_answer(question: str, answer: str, expected: str, response: str) -> None:
    verdict = rule_verdict(question, response, answer)
    assert verdict.verdict == expected, f"{response[-300:]}\nagainst {answer}: {verdict}"


@pytest.mark.parametrize(("question", "answer", "expected", "response"), LESSONS)
def test_a_lesson_is_never_right_by_a_number_it_does_not_have(
    question: str, answer: str, expected: str, response: str
) -> None:
    verdict = rule_verdict(question, response, ABSENT).verdict
    assert verdict == ("unsure" if verdict == "unsure" else "wrong")


def test_a_lesson_that_is_right_is_wrong_by_another_gold_answer() -> None:
    right = [lesson.values for lesson in LESSONS if lesson.values[2] == "right"]
    verdicts = [rule_verdict(str(row[0]), str(row[3]), ABSENT).verdict for row in right]
    assert verdicts.count("right") == 0
    assert verdicts.count("wrong") >= 0.9 * len(verdicts)


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        (r"#### 1. The answer is 2, **3**, = 4, \boxed{5}", "boxed"),
        ("**3** = 4, the answer is 2\n#### 1", "hashes"),
        ("The answer is 3\nA: 2", "answer_line"),
        ("**3** = 4, the answer is 2, 5", "phrase"),
        ("Therefore, she sold 4 clips, **3** too", "conclusion"),
        ("= 4, **3**, 5", "bold"),
        ("= 4, 5", "equation"),
        ("4, 5", "last_number"),
        ("five", "none"),
    ],
)
def test_the_surest_rule_decides(response: str, rule: str) -> None:
    assert rule_verdict("How many?", response, "5").rule == rule


@pytest.mark.parametrize(
    ("response", "prediction", "exact"),
    [
        ("The answer is $1,080.", "1,080", Fraction(1080)),
        ("It is −5", "-5", Fraction(-5)),
        ("The answer is 2½.", "2 1/2", Fraction(5, 2)),
        ("答案是七十二个。", "七十二", Fraction(72)),
        ("No idea", None, None),
        ("The answer is 5, 6", "5", None),
        (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}", None),
    ],
)
def test_the_prediction_is_the_number_as_found_with_its_value(
    response: str, prediction: str | None, exact: Fraction | None
) -> None:
    verdict = rule_verdict("How many?", response, "5")
    assert (verdict.prediction, verdict.value) == (prediction, exact)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("51 + 22 - 80 - 14", ["51", "22", "80", "14"]),
        ("-51 + -22", ["-51", "-22"]),
        ("1,080 and 12.5 and 3/4", ["1,080", "12.5", "3/4"]),
        ("the 3rd of 5, 第3天 4天", ["5", "4"]),
        ("2 hours 40 minutes", ["2 hours 40 minutes"]),
        ("no number", []),
    ],
)
def test_every_number_of_a_text_is_found(text: str, numbers: list[str]) -> None:
    assert [quantity.text for quantity in quantities_in(normalise(text))] == numbers


@pytest.mark.parametrize(
    ("number", "exact"),
    [
        ("0.1", Fraction(1, 10)),
        ("-1,080", Fraction(-1080)),
        ("1/3", Fraction(1, 3)),
        ("−2.50", Fraction(-5, 2)),
        ("１２", Fraction(12)),
        ("一万二", Fraction(12000)),
        ("十", Fraction(10)),
        ("三千零五", Fraction(3005)),
        ("two and three quarters", Fraction(11, 4)),
        ("1/0", None),
        ("fives", None),
        ("一起", None),
    ],
)
def test_a_value_is_exact(number: str, exact: Fraction | None) -> None:
    quantity = quantity_at(normalise(number))
    assert (quantity.value if quantity else None) == exact


class TestEndings:
    """What follows the answer is cut off, and nothing else."""

    def test_a_practice_question_is_no_part_of_the_answer(self) -> None:
        assert body("所以一共 72 个！\n小挑战：如果卖 20 个呢？") == "所以一共 72 个！\n"

    def test_a_question_on_the_way_is_left_where_it_is(self) -> None:
        lesson = "考考你：48 的一半是多少？对，24！\n所以一共 48 + 24 = 72 个。"
        assert body(lesson) == lesson

    def test_a_check_is_left_out_and_what_comes_after_it_stays(self) -> None:
        lesson = body(normalise("48 + 24 = 72\n\nCheck: 72 - 24 = 48\n\nSo it is 72."))
        assert "24 = 48" not in lesson
        assert lesson.endswith("so it is 72.")


@pytest.mark.parametrize(
    "pattern",
    [CONCLUDES, FINAL, TOTAL, CORRECTS, RESULT, OPENS_CHINESE],
    ids=["concludes", "final", "total", "corrects", "result", "opens"],
)
def test_the_letters_that_a_pattern_looks_for_first_hide_none_of_its_words(pattern: re.Pattern[str]) -> None:
    letters, words = re.findall(r"\(\?=\[([^\]]+)\]\)", pattern.pattern)[0], pattern.pattern.partition("])")[2]
    slow = re.compile(words)
    texts = [lesson[3] for lesson in lessons_zh.LESSONS + lessons_en.LESSONS]
    texts += [row[0] for rows in FORMS.values() for row in rows] + [words.replace("|", " ")]
    assert letters
    for text in map(normalise, texts):
        assert [match.span() for match in pattern.finditer(text)] == [match.span() for match in slow.finditer(text)]


HOSTILE = [
    "=" + " " * 1_000_000,
    "= " * 500_000,
    "The answer is" + " " * 1_000_000,
    "The answer is " + "1 + " * 250_000,
    "The answer is " * 70_000,
    "答案是" * 300_000,
    "答案" + "就" * 1_000_000,
    "\\boxed{" * 140_000,
    "\\boxed{" + "{" * 1_000_000,
    "**" * 500_000,
    "**1" * 330_000,
    "- " * 500_000,
    "1," * 500_000,
    "1,000" * 200_000,
    "1 " * 500_000,
    "1" * 1_000_000,
    "1/" * 500_000,
    "1:" * 500_000,
    "三" * 1_000_000,
    "百" * 1_000_000,
    "two and " * 125_000,
    "two " * 250_000,
    "一共" * 500_000,
    "1和" * 500_000,
    "#### " * 200_000,
    "\n" * 1_000_000,
    "?" * 1_000_000,
    "。" * 1_000_000,
    "<|begin_of_solution|>" * 50_000,
    "<" * 1_000_000,
    "9^{9^{9^9}}" * 90_000,
    "(" * 500_000 + ")" * 500_000,
    "\\frac{" * 160_000,
    "\\text{" * 160_000,
    "考考你" * 300_000 + "？",
    "So 1 = 2. If 3?\n" * 60_000,
    "a" * 1_000_000,
]


@pytest.mark.parametrize("response", HOSTILE, ids=lambda text: repr(text[:24]))
def test_a_megabyte_that_repeats_itself_is_judged_at_once(response: str) -> None:
    started = time.process_time()
    rule_verdict("How many?", response, "5")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["1" * 1_000_000, "9^{9^{9^9}}", "\\sqrt{" * 3000], ids=lambda t: t[:12])
def test_a_hostile_question_or_gold_answer_is_unsure_at_once(text: str) -> None:
    started = time.process_time()
    assert rule_verdict(text, "The answer is 5.", text).verdict == "unsure"
    assert time.process_time() - started < 2


class TestExpressions:
    """math-verify, in a process of its own."""

    @pytest.fixture(scope="class")
    def worker(self) -> Worker:
        return Worker()

    def test_equal_expressions_are_the_same_and_others_not(self, worker: Worker) -> None:
        assert worker.compare(r"\sqrt{12}", r"2\sqrt{3}") is True
        assert worker.compare(r"\sqrt{13}", r"2\sqrt{3}") is False

    @pytest.mark.parametrize("hostile", ["9^{9^{9^9}}", "(" * 3000 + "5" + ")" * 3000, "\\frac{" * 2000, "\x00"])
    def test_a_hostile_expression_costs_a_time_out_and_not_the_worker(self, worker: Worker, hostile: str) -> None:
        started = time.monotonic()
        assert worker.compare("5", hostile) is not True
        assert time.monotonic() - started < 60
        assert worker.compare("5", "2 + 3") is True

    def test_a_thread_gets_the_same_answer(self, worker: Worker) -> None:
        answers: list[bool | None] = []
        thread = threading.Thread(target=lambda: answers.append(worker.compare("8", "2^3")))
        thread.start()
        thread.join()
        assert answers == [True]

    def test_a_plain_number_starts_no_worker(self) -> None:
        from stages.lib.answers import expressions

        expressions.worker.close()
        rule_verdict("How many?", r"So \boxed{72}.", "72")
        assert expressions.worker._process is None


def test_the_verdicts_agree_with_the_labels_of_published_answers(development_data: Path) -> None:
    """GSM8K's authors marked 5,276 answers of four models: is each judged right where they say so, and only there?"""
    lines = (development_data / "gsm8k_model_solutions" / "example_model_solutions.jsonl").read_bytes().splitlines()
    agreed, judged = 0, 0
    for row in map(json.loads, lines):
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            verdict = rule_verdict(row["question"], row[model]["solution"], gold).verdict
            agreed += (verdict == "right") == row[model]["is_correct"]
            judged += 1
    assert agreed == judged == (5276 if WHOLE else 64)
