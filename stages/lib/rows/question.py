"""The rows that ``collect`` and ``difficulty`` write: questions, and those that ``collect`` leaves out.

{"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "gsm8k/train"}

``difficulty`` adds {"pass_rate": {"solved": 1, "unsure": 0, "samples": 4}} where it asked the untrained student.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.lib.rows import Row


class PassRate(BaseModel):
    """How many of the untrained student's answers are right, how many the rule is unsure of, and how many there are."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    solved: int
    unsure: int
    samples: int


class Question(Row):
    """A question with its gold answer: ``answer`` the final value, ``solution`` the worked text or None.

    A ``pass_rate`` of None, which was not measured, is not written.
    """

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    solution: str | None = None
    source: str = "unknown"
    pass_rate: PassRate | None = Field(default=None, exclude_if=lambda rate: rate is None)


class BenchmarkHit(BaseModel):
    """A benchmark question's text and the first ``ngram`` (words in lower case) that a training question shares."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    benchmark: str
    question: str
    ngram: str


class LeftOut(Question):
    """A question that ``collect`` left out.

    ``same_as`` is the id of the kept row that it repeats (None where it repeats none); ``benchmark_hits`` has one entry
    for each benchmark that it shares an n-gram with (none but where contaminated).
    """

    reason: Literal["duplicate", "in_heldout", "contaminated", "control_token"]
    same_as: str | None
    benchmark_hits: list[BenchmarkHit]
