"""The verdict by rule: the final answer of a response against the gold one."""

from dataclasses import dataclass
from typing import Literal

from stages.lib.answers.numbers import numbers_in, value
from stages.lib.answers.reading import read_answer


@dataclass(frozen=True)
class Verdict:
    """``verdict`` on the ``prediction`` (as found; None where none was), and the ``rule`` that found it."""

    verdict: Literal["right", "wrong", "unsure"]
    prediction: str | None
    rule: str


def rule_verdict(question: str, response: str, answer: str) -> Verdict:
    """Judge a response by exact value against the gold ``answer``; unsure where either cannot be read."""
    reading = read_answer(response)
    golds = numbers_in(answer)
    gold = value(golds[-1]) if golds else None
    if reading.value is None or gold is None:
        return Verdict("unsure", reading.text, reading.rule)
    return Verdict("right" if reading.value == gold else "wrong", reading.text, reading.rule)
