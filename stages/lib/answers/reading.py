"""Finding the final answer in a response: the rules, from the surest to the weakest.

    read_answer("51 + 22 = 73. The answer is 73.")  → Reading(text="73", value=Fraction(73), rule="phrase")

A rule that finds two different values says so (``value`` None) instead of choosing: unsure is better than wrong.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from stages.lib.answers.numbers import AMOUNT, normalise, numbers_in, value

SOLUTION = re.compile(
    r"(?:<\|begin_of_solution\|>|<answer>)(.*?)(?:<\|end_of_solution\|>|</answer>|\Z)", re.DOTALL
)  # the article's markers, and those of the embedded profile
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
HASHES = re.compile(rf"####[\s*]*({AMOUNT})(?![\d,]*[.):：、][^\S\n]*[^\s*])")  # but no heading: "#### 2. Add"
SUM = r"(?:[\d ,.+\-−–*/×x÷$]+=)*\s*"  # "the answer is 20 + 3 = 23"
PHRASE = re.compile(
    rf"(?:answer\s*(?:is|:|=)|result\s*(?:is|:)|答案(?:是|为|：|:))[\s*:：$]*+{SUM}({AMOUNT})",
    re.IGNORECASE,
)
BOLD = re.compile(r"\*\*([^*]+)\*\*")
EQUALS = re.compile(rf"[=≈][\s*]*({AMOUNT})")


@dataclass(frozen=True)
class Reading:
    """A final answer as written, its exact value (None: unread or ambiguous), and the rule that found it."""

    text: str | None
    value: Fraction | None
    rule: str


def read_answer(response: str) -> Reading:
    """The final answer of a response; where a solution is marked, only what stands in it is read."""
    marked = SOLUTION.findall(response)
    text = normalise(marked[-1] if marked else response)
    boxes = BOXED.findall(text)
    if boxes:
        return _agreed([number for box in boxes for number in numbers_in(box)[:1]], boxes[-1], "boxed")
    for rule, candidates in (
        ("hashes", HASHES.findall(text)[-1:]),
        ("phrase", PHRASE.findall(text)),
        ("bold", BOLD.findall(text)[-1:]),
        ("equation", EQUALS.findall(text)[-1:]),
        ("last_number", numbers_in(text)[-1:]),
    ):
        numbers = [number for candidate in candidates for number in numbers_in(candidate)[:1]]
        if numbers:
            return _agreed(numbers, numbers[-1], rule)
    return Reading(None, None, "none")


def _agreed(numbers: list[str], text: str, rule: str) -> Reading:
    values = {value(number) for number in numbers}
    return Reading(text, values.pop() if len(values) == 1 else None, rule)
