"""The rows that ``collect`` writes: questions, and those that it leaves out.

{"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "gsm8k/train"}
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.lib.rows import Row


class Question(Row):
    """A question with its gold answer: ``answer`` the final value, ``solution`` the worked text or None."""

    question: str = Field(min_length=1)
    answer: Annotated[str, Field(min_length=1)] | None
    solution: str | None = None
    source: str = "unknown"


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
