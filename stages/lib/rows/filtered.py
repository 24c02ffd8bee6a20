"""The rows that ``filter`` writes: answers with a verdict, kept or rejected.

a distilled row's fields, and {"prediction": "72", "verdict": "right", "decided_by": "rule:boxed", …}
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import is_none

Verdict = Literal["right", "wrong", "unsure"]


class Majority(BaseModel):
    """The value that most samples of a question state (None: no majority), its share of the samples, and how many
    samples state each value, the largest number first."""

    model_config = ConfigDict(strict=True, frozen=True)

    value: str | None
    share: float
    clusters: list[int]


class Filtered(Distilled):
    """A distilled row that was judged: the ``prediction`` read from it, the ``verdict`` and what decided.

    ``unfit``: a check failed. ``rule_verdict`` and ``judge_verdict`` are what each said, whoever decided; None
    where it was not asked: the rule needs a gold answer. A field that only one strategy fills is absent from others.
    """

    prediction: str | None
    verdict: Literal["right", "wrong", "unsure", "unfit"]
    decided_by: str
    rule_verdict: Verdict | None
    judge_verdict: Verdict | None
    majority: Majority | None = Field(default=None, exclude_if=is_none)
    score: float | None = Field(default=None, exclude_if=is_none)  # of the judge, where its rubric has one
    detail: str | None = Field(default=None, exclude_if=is_none)  # what a check found


class Rejected(Filtered):
    """A judged row that was dropped, and why (docs/filter.md has an example of each reason).

    Nobody could judge it where the rule read no answer (``no_answer_read``), the judge gave no mark that can be read
    (``no_mark_read``) or there is no gold answer (``no_gold``); ``not_selected``: fit to be kept, but another answer to
    its question is. ``reviewed_wrong``: a person said so; ``reviewed_unsure``: a person could not say.
    """

    reason: Literal[
        "wrong_answer",
        "no_answer_read",
        "no_mark_read",
        "disagreement",
        "not_selected",
        "reviewed_wrong",
        "reviewed_unsure",
        "no_gold",
        "no_majority",
        "not_the_majority",
        "rubric_not_met",
        "too_short",
        "too_long",
        "other_language",
        "marker_in_text",
        "loop",
        "refusal",
        "repeats_question",
    ]


class Disagreement(Filtered):
    """A judged row for people to read.

    ``rule_against_judge``: one says right and the other wrong; ``gold_suspect``: both are sure that the answer is not
    the gold one, which may be the gold one's fault.
    """

    kind: Literal["rule_against_judge", "gold_suspect"]
