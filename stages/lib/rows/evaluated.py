"""The rows that ``evaluate`` writes: a student's answers to benchmark questions.

{"id": "heldout-0", "benchmark": "heldout", "question": "…", "answer": "7", "response": "…", "correct": true, …}
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.lib.rows import Row
from stages.lib.rows.question import Turn, is_none


class Again(BaseModel):
    """Another answer to the same question: that of the second pass (``evaluate.churn``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    response: str
    prediction: str | None
    correct: bool | None


class Evaluated(Row):
    """A benchmark question with a student's answer; ``cluster`` is what a question shares with its translations.

    ``task`` is lm-eval's name of it. ``response`` is the whole text generated or, where lm-eval compared the likelihood
    of given answers, the one that was likeliest. ``verdict`` is the verifier's (None where the task has none),
    ``lm_eval`` lm-eval's own mark, ``correct`` the one of the two that counts. The rest is the audit's, None where the
    question does not arise (stages/lib/evaluation/audit.py). ``history`` and ``system``: the
    earlier turns of the question and its own system text, if any. ``again``: the answer of the second pass, where it is
    another text.

    An answer to ``preference`` is neither right nor wrong: ``answer``, ``verdict``, ``lm_eval`` and ``correct`` are
    None, and ``prediction`` is what a judge reads, the response without its reasoning and markers.
    """

    benchmark: str
    task: str
    cluster: str
    language: str | None
    question: str
    history: list[Turn] | None = Field(default=None, exclude_if=is_none)
    system: str | None = Field(default=None, exclude_if=is_none)
    answer: str | None
    prompt: str
    response: str
    prediction: str | None
    verdict: Literal["right", "wrong", "unsure"] | None
    decided_by: str
    lm_eval: bool | None
    correct: bool | None
    tokens: int | None
    cut_off: bool | None
    task_stop: bool | None
    no_end_marker: bool | None
    unread: bool | None
    other_language: bool | None
    looping: bool | None
    doc_hash: str
    prompt_hash: str
    target_hash: str
    again: Again | None = Field(default=None, exclude_if=is_none)

    @property
    def key(self) -> str:
        """The benchmark and the question's id."""
        return f"{self.benchmark}/{self.id}"
