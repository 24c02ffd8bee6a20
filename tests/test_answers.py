r"""Reading a final answer and judging it by rule: a table of forms, to which every misreading adds a row.

A row is (response, gold answer, verdict). "unsure" is the right verdict where a person could not tell either.
"""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

from stages.lib.answers import rule_verdict
from stages.lib.answers.numbers import numbers_in, value

BOXED = [
    (r"So \boxed{72}.", "72", "right"),
    (r"\boxed{72}", "73", "wrong"),
    (r"\boxed {72}", "72", "right"),
    (r"\(\boxed{72}\) clips, in 2 months", "72", "right"),
    (r"$$\boxed{72}$$ is twice 36", "72", "right"),
    (r"\boxed{1,080}", "1080", "right"),
    (r"\boxed{1{,}080}", "1080", "right"),
    (r"\boxed{1\,080}", "1080", "right"),
    (r"\boxed{1,\!080}", "1080", "right"),
    (r"\boxed{\$18}", "18", "right"),
    (r"\boxed{18\text{ dollars}}", "18", "right"),
    (r"\boxed{\text{18 dollars}}", "18", "right"),
    (r"\boxed{x = 5}", "5", "right"),
    (r"\boxed{-5}", "-5", "right"),
    (r"\boxed{−5}", "-5", "right"),
    (r"\boxed{-5}", "5", "wrong"),
    (r"\boxed{3.50}", "3.5", "right"),
    (r"\boxed{\frac{1}{2}}", "0.5", "right"),
    (r"\boxed{\dfrac{1}{2}}", "1/2", "right"),
    (r"\boxed{\tfrac{3}{6}}", "1/2", "right"),
    (r"\boxed{\frac12}", "1/2", "right"),
    (r"\boxed{-\frac{1}{2}}", "-0.5", "right"),
    (r"\boxed{10\%}", "10", "right"),
    (r"The answer is 9, no: \boxed{5}", "5", "right"),
    (r"First \boxed{5}, and so \boxed{5.0}", "5", "right"),
    (r"\boxed{5} or \boxed{6}", "5", "unsure"),
    (r"\boxed{5} or \boxed{6}", "6", "unsure"),
    (r"\boxed{\text{no answer}}", "5", "unsure"),
    (r"\boxed{}", "5", "unsure"),
]
HASHES = [
    ("3 + 4 = 7\n#### 7", "7", "right"),
    ("#### 7", "8", "wrong"),
    ("####7", "7", "right"),
    ("#### $1,080", "1080", "right"),
    ("#### -3", "-3", "right"),
    ("#### -$3", "-3", "right"),
    ("#### **7**", "7", "right"),
    ("#### 7 apples in 2 bags", "7", "right"),
    ("#### Step 2: add\n3 + 4 = 7", "7", "right"),
    ("#### 2. Add\nThe answer is 7.", "7", "right"),
    ("#### 12) Add\nThe answer is 7.", "7", "right"),
    ("#### none", "5", "unsure"),
]
PHRASES = [
    ("The answer is 73.", "73", "right"),
    ("The answer is 73.", "74", "wrong"),
    ("The answer is: 73", "73", "right"),
    ("The final answer is **73**.", "73", "right"),
    ("the ANSWER IS 73", "73", "right"),
    ("Answer: 73", "73", "right"),
    ("**Answer:** 73", "73", "right"),
    ("**Final Answer:** $1,080.00", "1080", "right"),
    ("The result is 14.", "14", "right"),
    ("The answer is:\n\n$$72$$", "72", "right"),
    ("The answer is 73. There are 7 days in a week.", "73", "right"),
    ("The answer is $73 for 7 days.", "73", "right"),
    (r"The answer is \$72 for 7 days.", "72", "right"),
    ("The answer is €5 for 7 days.", "5", "right"),
    ("The answer is £5 for 7 days.", "5", "right"),
    ("The answer is ¥5 for 7 days.", "5", "right"),
    ("The answer is -5. It fell by 3.", "-5", "right"),
    ("The answer is − 5. It fell by 3.", "-5", "right"),
    ("The answer is –5. It fell by 3.", "-5", "right"),
    ("The answer is -$5 after 7 days.", "-5", "right"),
    ("The answer is $-5$ after 7 days.", "-5", "right"),
    ("The answer is 1/2 of 7.", "0.5", "right"),
    (r"The answer is $\frac{1}{2}$ of 7.", "0.5", "right"),
    ("The answer is 73%.", "73", "right"),
    ("The answer is 20 + 3 = 23.", "23", "right"),
    ("The answer is 20 + 3 = 23.", "20", "wrong"),
    ("The answer is $20 - $3 = $17 for 2 days.", "17", "right"),
    ("The answer is 4 + 5 + 6 = 9 + 6 = 15.", "15", "right"),
    ("The answer is x = 5, with 2 left.", "5", "right"),
    ("The answer is 5 (= 2 + 3).", "5", "right"),
    ("The answer is 5. Again: the answer is 5.0", "5", "right"),
    ("The answer is 5. No, the answer is 6.", "5", "unsure"),
    ("The answer is 5. No, the answer is 6.", "6", "unsure"),
    ("The answer is 1/0.", "5", "unsure"),
]
CHINESE = [
    ("答案是12。", "12", "right"),
    ("答案是12。", "13", "wrong"),
    ("答案是：12", "12", "right"),
    ("答案：12", "12", "right"),
    ("答案:12", "12", "right"),
    ("答案为12", "12", "right"),
    ("所以答案是 **12** 个苹果，每人 3 个", "12", "right"),
    ("答案是１２", "12", "right"),
    ("答案是１，０８０元", "1080", "right"),
    ("答案是￥12，每人3元", "12", "right"),
    ("最终答案是-3，降了5度", "-3", "right"),
    ("答案是负3，降了5度", "-3", "right"),
    ("答案是负3，降了5度", "3", "wrong"),
    ("答案是：3×4=12", "12", "right"),
    ("因此，答案是 12。下面做一道题：小明有 7 个苹果", "12", "right"),
    ("答案是12。答案是13。", "12", "unsure"),
    ("所以一共是12个。", "12", "right"),
    ("不知道", "12", "unsure"),
]
BOLD = [
    ("So she has **72** clips after 2 months", "72", "right"),
    ("**Step 1** takes 2 eggs\n**72** clips", "72", "right"),
    ("Total: **$1,080** in 2 days", "1080", "right"),
    ("**Total: 72 clips** in 2 days", "72", "right"),
    ("**71** clips", "72", "wrong"),
]
EQUATIONS = [
    ("51 + 22 = 73", "73", "right"),
    ("51+22=73", "73", "right"),
    ("51 + 22 - 80 - 14 = -21", "-21", "right"),
    ("51 + 22 - 80 - 14 = − 21", "-21", "right"),
    ("51 + 22 = 73 clips in 2 months", "73", "right"),
    ("51 + 22 = **73** clips in 2 months", "73", "right"),
    ("2 + 3 = 5\n5 + 4 = 9", "9", "right"),
    ("2 + 3 = 5\n5 + 4 = 9", "5", "wrong"),
    ("total = $1,080.50 for 2 days", "1080.5", "right"),
    ("owed = -$5 for 7 days", "-5", "right"),
    ("2/4 = 1/2", "0.5", "right"),
    ("10 / 3 ≈ 3.33", "3.33", "right"),
]
LAST_NUMBERS = [
    ("72", "72", "right"),
    ("-72", "-72", "right"),
    ("She sold 72 clips.", "72", "right"),
    ("She sold 72 clips.", "7", "wrong"),
    ("It takes 73 - 80 days", "80", "right"),
    ("It takes 73 - 80 days", "-80", "wrong"),
    ("It takes 73-80 days", "80", "right"),
    ("It takes 73–80 days", "80", "right"),
    ("$73 - $80", "80", "right"),
    ("It is (73) - 80", "80", "right"),
    ("From 73 it fell to -80", "-80", "right"),
    ("So there are:\n- 5 apples", "5", "right"),
    ("So it is:\n-5", "-5", "right"),
    ("$1,080", "1080", "right"),
    ("1,000,000", "1000000", "right"),
    ("1,08", "108", "wrong"),
    ("12.50", "12.5", "right"),
    ("(-5)", "-5", "right"),
    ("−4°C", "-4", "right"),
    ("72.", "72", "right"),
]
NOTHING = [
    ("", "5", "unsure"),
    ("   \n", "5", "unsure"),
    ("I do not know.", "5", "unsure"),
    ("1" * 5000, "5", "unsure"),
]
MARKED = [
    (
        "<|begin_of_thought|>\\boxed{9}<|end_of_thought|>\n<|begin_of_solution|>\nIt is 5.<|end_of_solution|>",
        "5",
        "right",
    ),
    ("The answer is 9.<|begin_of_solution|>It is 5.<|end_of_solution|> The answer is 7.", "5", "right"),
    ("The answer is 9.<|begin_of_solution|>It is 5, cut off", "5", "right"),
    ("<think>\n\nThe answer is 9.</think>\n\n<answer>\n\nIt is 5.</answer>", "5", "right"),
    ("The answer is 5.<|begin_of_solution|><|end_of_solution|>", "5", "unsure"),
]
GOLDS = [
    ("72", "seventy-two", "unsure"),
    ("1080", "1,080", "right"),
    ("0.50", "1/2", "right"),
    ("72", "72.0", "right"),
    ("5", "$5", "right"),
    ("0", "-0", "right"),
    ("0.333", "1/3", "wrong"),
    ("0.1", "0.10000000000000001", "wrong"),
    ("12345678901234567891", "12345678901234567890", "wrong"),
]
TABLE = [
    pytest.param(*row, id=f"{name}-{index}")
    for name, rows in {
        "boxed": BOXED,
        "hashes": HASHES,
        "phrase": PHRASES,
        "chinese": CHINESE,
        "bold": BOLD,
        "equation": EQUATIONS,
        "last_number": LAST_NUMBERS,
        "nothing": NOTHING,
        "marked": MARKED,
        "gold": GOLDS,
    }.items()
    for index, row in enumerate(rows)
]


@pytest.mark.parametrize(("response", "answer", "expected"), TABLE)
def test_a_response_is_judged_as_a_person_would(response: str, answer: str, expected: str) -> None:
    verdict = rule_verdict("How many?", response, answer)
    assert verdict.verdict == expected, f"{response!r} against {answer}: {verdict}"


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        (r"#### 1. The answer is 2, **3**, = 4, \boxed{5}", "boxed"),
        ("**3** = 4, the answer is 2\n#### 1", "hashes"),
        ("**3** = 4, the answer is 2, 5", "phrase"),
        ("= 4, **3**, 5", "bold"),
        ("= 4, 5", "equation"),
        ("4, 5", "last_number"),
        ("five", "none"),
    ],
)
def test_the_surest_rule_decides(response: str, rule: str) -> None:
    assert rule_verdict("How many?", response, "5").rule == rule


@pytest.mark.parametrize(
    ("response", "prediction"),
    [("The answer is $1,080.", "1,080"), ("It is −5", "-5"), ("No idea", None), ("The answer is 5, 6", "5")],
)
def test_the_prediction_is_the_number_as_found(response: str, prediction: str | None) -> None:
    assert rule_verdict("How many?", response, "5").prediction == prediction


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("51 + 22 - 80 - 14", ["51", "22", "80", "14"]),
        ("-51 + -22", ["-51", "-22"]),
        ("1,080 and 12.5 and 3/4", ["1,080", "12.5", "3/4"]),
        ("no number", []),
    ],
)
def test_every_number_of_a_text_is_found(text: str, numbers: list[str]) -> None:
    assert numbers_in(text) == numbers


@pytest.mark.parametrize(
    ("number", "exact"),
    [
        ("0.1", Fraction(1, 10)),
        ("-1,080", Fraction(-1080)),
        ("1/3", Fraction(1, 3)),
        ("−2.50", Fraction(-5, 2)),
        ("１２", Fraction(12)),
        ("1/0", None),
        ("five", None),
    ],
)
def test_a_value_is_exact(number: str, exact: Fraction | None) -> None:
    assert value(number) == exact


@pytest.mark.parametrize(
    "response",
    [
        "=" + " " * 20_000,
        "= " * 20_000,
        "The answer is" + " " * 20_000,
        "The answer is " + "1 + " * 20_000,
        "The answer is " * 5_000,
        "\\boxed{" * 20_000,
        "**" * 20_000,
        "- " * 20_000,
        "1," * 20_000,
        "#### " * 20_000,
        "\n" * 20_000,
        "<|begin_of_solution|>" * 2_000,
        "9^{9^{9^9}}" * 2_000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_a_response_that_repeats_itself_to_the_limit_is_judged_at_once(response: str) -> None:
    started = time.process_time()
    rule_verdict("How many?", response, "5")
    assert time.process_time() - started < 2


def test_the_verdicts_agree_with_the_labels_of_published_answers(development_data: Path) -> None:
    """GSM8K's authors marked 5,276 answers of four models, a few of them by a cut-off last line ("A: 5" for 5600)."""
    lines = (development_data / "gsm8k_model_solutions" / "example_model_solutions.jsonl").read_bytes().splitlines()
    agreed, judged = 0, 0
    for row in map(json.loads, lines):
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            verdict = rule_verdict(row["question"], row[model]["solution"], gold).verdict
            agreed += (verdict == "right") == row[model]["is_correct"]
            judged += 1
    assert judged == 5276
    assert agreed / judged > 0.995
