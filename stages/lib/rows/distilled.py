"""The rows that ``distill`` writes: a teacher's answers, and questions without one.

a question's fields, and {"sample": 0, "reasoning": "…", "response": "…", "finish_reason": "stop", …}
"""

from typing import Any

from pydantic import Field

from stages.lib.rows.question import Question, is_none


class Sampled(Question):
    """A question with the number of the answer that is meant, from 0."""

    sample: int

    @property
    def key(self) -> str:
        """The question's id and the sample's number."""
        return f"{self.id}#{self.sample}"


class Distilled(Sampled):
    """One answer of the teacher: ``reasoning`` is its chain of thought, ``response`` all that it wrote after it.

    ``served_by`` is the address of the server that gave it, where the teacher has several.
    """

    reasoning: str
    response: str
    finish_reason: str
    model: str
    usage: dict[str, Any]
    served_by: str | None = Field(default=None, exclude_if=is_none)


class Failure(Sampled):
    """A question without a usable answer: why, the last HTTP status (None where none came), the calls made.

    ``error`` is the server's own words; empty where it said nothing, or gave an answer that is of no use.
    """

    reason: str
    status: int | None
    attempts: int
    error: str = ""
