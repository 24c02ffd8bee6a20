"""``filter``: one section for each strategy, with gold answers or without. Only those with a judge have its section."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.lib.params.base import Name, Section, Seed, Share
from stages.lib.params.checks import Check
from stages.lib.params.teacher import EmbeddedTeacher, ServedTeacher


class EmbeddedJudge(EmbeddedTeacher):
    """The embedded model as a judge; ``slip_share`` is its share of wrong marks."""

    prompt: Name


class ServedJudge(ServedTeacher):
    """A served model as a judge."""

    prompt: Name


Judge = Annotated[EmbeddedJudge | ServedJudge, Field(discriminator="kind")]


class YesNoReply(Section):
    """The judge's reply ends in yes (kept) or no."""

    kind: Literal["yes_no"]


class ScoreReply(Section):
    """The judge's reply ends in a score of ``low`` to ``high``; answers of ``at_least`` so many points are kept."""

    kind: Literal["score"]
    low: int
    high: int
    at_least: float

    @model_validator(mode="after")
    def _in_order(self) -> "ScoreReply":
        if not self.low < self.at_least <= self.high:
            raise ValueError("needs low < at_least <= high, or the score decides nothing. Change one of them")
        return self


Reply = Annotated[YesNoReply | ScoreReply, Field(discriminator="kind")]


class _Strategy(Section):
    """The checks before it, what happens to answers that could not be judged, and which right answers are kept."""

    checks: list[Check]
    on_unsure: Literal["reject", "keep"]
    select: Literal["first_correct", "shortest_correct", "all_correct"]
    control_seed: Seed


class RuleFilter(_Strategy):
    """Only the rule."""

    strategy: Literal["rule"]


class JudgedFilter(_Strategy):
    """Only the judge, or both for every answer."""

    strategy: Literal["judge", "both"]
    judge: Judge


class AuditedFilter(_Strategy):
    """Only the rule decides. A judge also marks a share, for the table of rule against judge."""

    strategy: Literal["rule_audited"]
    audit_share: Annotated[float, Field(gt=0, le=1)]
    audit_seed: Seed
    judge: Judge


class RuleThenJudgeFilter(_Strategy):
    """The rule, the judge for answers that it cannot read, and the judge for a share of the rule's verdicts too."""

    strategy: Literal["rule_then_judge"]
    audit_share: Share
    audit_seed: Seed
    judge: Judge


class MajorityFilter(_Strategy):
    """Without gold: the value that most samples of a question state, if at least ``min_share`` of them do."""

    strategy: Literal["majority"]
    min_share: Annotated[float, Field(gt=0, le=1)]


class RubricFilter(_Strategy):
    """Without gold: a judge marks every answer by a rubric, and ``reply`` says how its mark is read."""

    strategy: Literal["judge_rubric"]
    reply: Reply
    judge: Judge


GoldFilter = RuleFilter | AuditedFilter | JudgedFilter | RuleThenJudgeFilter
Filter = Annotated[GoldFilter | MajorityFilter | RubricFilter, Field(discriminator="strategy")]


def judge_of(params: Filter) -> EmbeddedJudge | ServedJudge | None:
    """The judge of the strategy; None for the rule alone and for the majority."""
    return None if isinstance(params, RuleFilter | MajorityFilter) else params.judge


def audit_of(params: Filter) -> tuple[float, int]:
    """The share of the rule's verdicts that the judge also marks, and the seed that samples them."""
    if isinstance(params, (AuditedFilter, RuleThenJudgeFilter)):
        return params.audit_share, params.audit_seed
    return 0.0, 0
