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
from stages.lib.answers.expressions import Worker
from stages.lib.answers.lexicon import FOLDER, Lexicon, lexicon
from stages.lib.answers.statements import Response
from stages.lib.answers.values import Text, fold
from tests.answers import lessons_en, lessons_zh
from tests.answers.forms import FORMS
from tests.answers.tutors import TUTORS
from tests.public_data import WHOLE

CASES = [json.loads(line) for line in (Path(__file__).parent / "answers" / "cases.jsonl").read_bytes().splitlines()]
TABLE = [pytest.param(row, id=f"{kind}-{index}") for kind, rows in FORMS.items() for index, row in enumerate(rows)]
LESSONS = [
    pytest.param(*lesson, id=f"{language}-{index}")
    for language, lessons in (("zh", lessons_zh.LESSONS), ("en", lessons_en.LESSONS))
    for index, lesson in enumerate(lessons)
]
TUTOR = [pytest.param(*row, id=str(index)) for index, row in enumerate(TUTORS)]
ABSENT = "98765"  # in none of the lessons
NUMBER = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?")
# a wrong answer may be left to the judge; what is open may be called wrong, and never right
ALLOWED = {"right": {"right"}, "wrong": {"wrong", "unsure"}, "unsure": {"unsure", "wrong"}}


def verdict_of(question: str, response: str, answer: str) -> str:
    return rule_verdict(question, response, answer).verdict


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_case_has_one_of_the_verdicts_that_a_careful_teacher_would_give(case: dict[str, str]) -> None:
    verdict = rule_verdict(case["question"], case["response"], case["answer"])
    assert verdict.verdict in case["expected"], verdict


@pytest.mark.parametrize("row", TABLE)
def test_a_form_is_judged_as_a_person_would(row: tuple[str, ...]) -> None:
    response, answer, expected, *question = row
    verdict = rule_verdict(question[0] if question else "How many?", response, answer)
    assert verdict.verdict in ALLOWED[expected], f"{response[-200:]!r} against {answer}: {verdict}"


def test_most_wrong_forms_are_called_wrong() -> None:
    wrong = [row for rows in FORMS.values() for row in rows if row[2] == "wrong"]
    called = [verdict_of(row[3] if len(row) > 3 else "How many?", row[0], row[1]) for row in wrong]
    assert called.count("wrong") >= 0.75 * len(wrong)


def test_the_table_has_several_rows_of_each_form() -> None:
    assert sum(map(len, FORMS.values())) >= 200
    assert min(map(len, FORMS.values())) >= 7


@pytest.mark.parametrize(("question", "answer", "expected", "response"), LESSONS)
def test_a_whole_lesson_is_judged_by_its_answer(question: str, answer: str, expected: str, response: str) -> None:
    verdict = rule_verdict(question, response, answer)
    assert verdict.verdict in ALLOWED[expected], f"{response[-300:]}\nagainst {answer}: {verdict}"


@pytest.mark.parametrize(("question", "answer", "response"), TUTOR)
def test_a_tutor_s_answer_is_right_by_its_answer_and_by_no_other_of_its_numbers(
    question: str, answer: str, response: str
) -> None:
    assert verdict_of(question, response, answer) == "right"
    for number in {found.replace(",", "") for found in NUMBER.findall(response)}:
        if Fraction(number) != Fraction(answer):
            assert verdict_of(question, response, number) != "right", number


def test_an_answer_is_wrong_by_a_number_that_it_does_not_have() -> None:
    rows = [(row.values[0], row.values[3]) for row in LESSONS if row.values[2] == "right"]
    rows += [(question, response) for question, _, response in TUTORS]
    verdicts = [verdict_of(str(question), str(response), ABSENT) for question, response in rows]
    assert verdicts.count("right") == 0
    assert verdicts.count("wrong") >= 0.9 * len(verdicts)


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        (r"#### 1. The answer is 2, **3**, = 4, \boxed{5}", "boxed"),
        ("**3** = 4, the answer is 2\n#### 1", "hashes"),
        ("The answer is 3\nA: 2", "answer_line"),
        ("**Final Answer:** 7. The answer is 2, **5**.", "final"),
        ("**3** = 4, the answer is 2, 5", "label"),
        ("Therefore, she sold 4 clips.", "conclusion"),
        ("She sold **3**.", "bold"),
        ("2 + 2 = 4, 5", "equation"),
        ("4, 5", "mention"),
        ("no idea", "none"),
    ],
)
def test_the_strongest_statement_counts(response: str, rule: str) -> None:
    assert rule_verdict("Which?", response, "5").rule == rule


@pytest.mark.parametrize(
    ("response", "prediction", "exact"),
    [
        ("The answer is $1,080.", "$1,080", Fraction(1080)),
        ("It is −5", "-5", Fraction(-5)),
        ("The answer is 2½.", "2½", Fraction(5, 2)),
        ("答案是七十二个。", "七十二", Fraction(72)),
        ("No idea", None, None),
        (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}", None),
    ],
)
def test_the_prediction_is_the_number_as_found_with_its_value(
    response: str, prediction: str | None, exact: Fraction | None
) -> None:
    verdict = rule_verdict("How many?", response, "5")
    assert (verdict.prediction, verdict.value) == (prediction, exact)


@pytest.mark.parametrize(("question", "answer", "response"), TUTOR)
def test_the_verdict_says_where_in_the_response_it_rests(question: str, answer: str, response: str) -> None:
    verdict = rule_verdict(question, "x" * 30_000 + "\n" + response, answer)
    place = ("x" * 30_000 + "\n" + response)[verdict.start : verdict.end]
    assert place and fold(place).strip() == verdict.prediction


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("51 + 22 - 80 - 14", ["51", "22", "80", "14"]),
        ("-51 + -22", ["-51", "-22"]),
        ("1,080 and 12.5 and 3/4", ["1080", "12.5", "0.75"]),
        ("2 hours 40 minutes", ["160"]),
        ("1. Two eggs\n2. Three", []),
        ("9 <<4+5=9>>", ["9"]),
        ("no number", []),
    ],
)
def test_every_number_of_a_text_is_found(text: str, numbers: list[str]) -> None:
    values = [
        value
        for value in Text(fold(text), lexicon("en", True)).values(0, len(text))
        if text[value.start].isdigit() or text[value.start] == "-"
    ]
    assert [float(value.value) for value in values] == [float(number) for number in numbers]


@pytest.mark.parametrize(
    ("number", "exact"),
    [
        ("0.1", Fraction(1, 10)),
        ("-1,080", Fraction(-1080)),
        ("1/3", Fraction(1, 3)),
        ("−2.50", Fraction(-5, 2)),
        ("１２", Fraction(12)),
        ("3{,}332", Fraction(3332)),
        ("1,14,200", Fraction(114_200)),
        ("1.5e3", Fraction(1500)),
        (r"2\frac12", Fraction(5, 2)),
        ("一万二", Fraction(12000)),
        ("3万2750", Fraction(32750)),
        ("十", Fraction(10)),
        ("三千零五", Fraction(3005)),
        ("百分之四十", Fraction(40)),
        ("二又二分之一", Fraction(5, 2)),
        ("two and three quarters", Fraction(11, 4)),
        ("seventy-two", Fraction(72)),
        ("1/0", None),
        ("fives", None),
        ("一起", None),
    ],
)
def test_a_value_is_exact(number: str, exact: Fraction | None) -> None:
    values = Text(fold(number), lexicon("en", False)).values(0, len(number))
    assert [value.value for value in values] == ([] if exact is None else [exact])


class TestParts:
    """What follows the answer is no part of the solution, and nothing else is left out."""

    @staticmethod
    def body(response: str, question: str = "How many?") -> list[str]:
        parts = Response(response, question)
        return [parts.text[span.start : span.end].strip() for span in parts.body]

    def test_a_practice_question_is_no_part_of_the_solution(self) -> None:
        assert self.body("所以一共 72 个！\n小挑战：如果卖 20 个呢？") == ["所以一共 72 个!"]

    def test_a_question_on_the_way_is_left_where_it_is(self) -> None:
        assert len(self.body("考考你：48 的一半是多少？对，24！\n所以一共 48 + 24 = 72 个。")) == 3

    def test_a_check_is_left_out_and_what_comes_after_it_stays(self) -> None:
        assert self.body("48 + 24 = 72\n\nCheck: 72 - 24 = 48\n\nSo it is 72.") == ["48 + 24 = 72", "so it is 72."]


def test_a_language_is_added_by_a_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "it.toml").write_text('words = true\nanswer = ["risposta"]\nis = ["è"]\n', encoding="utf-8")
    monkeypatch.setattr("stages.lib.answers.lexicon.FOLDER", tmp_path)
    assert Lexicon("it", False).label.search("la risposta è 18.")
    assert not Lexicon("en", False).label.search("la risposta è 18.")


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

    @pytest.mark.parametrize(
        "hostile",
        [
            pytest.param("9^{9^{9^9}}", marks=pytest.mark.heavy),
            pytest.param("(" * 3000 + "5" + ")" * 3000, marks=pytest.mark.heavy),
            pytest.param("\\frac{" * 2000, marks=pytest.mark.heavy),
            "\x00",
        ],
    )
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
