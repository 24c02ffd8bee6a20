"""``filter``: one section for each strategy. Only strategies with a judge have a judge section."""

from typing import Annotated, Literal

from pydantic import Field

from stages.lib.params.base import Name, Section, Seed, Share
from stages.lib.params.teacher import EmbeddedTeacher, ServedTeacher


class EmbeddedJudge(EmbeddedTeacher):
    """The embedded model as a judge; ``slip_share`` is its share of wrong marks."""

    prompt: Name


class ServedJudge(ServedTeacher):
    """A served model as a judge."""

    prompt: Name


Judge = Annotated[EmbeddedJudge | ServedJudge, Field(discriminator="kind")]


class _Strategy(Section):
    """What happens to answers that could not be judged, and which right answers are kept."""

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


Filter = Annotated[RuleFilter | AuditedFilter | JudgedFilter | RuleThenJudgeFilter, Field(discriminator="strategy")]


def judge_of(params: Filter) -> EmbeddedJudge | ServedJudge | None:
    """The judge of the strategy; None for only the rule."""
    return None if isinstance(params, RuleFilter) else params.judge


def audit_of(params: Filter) -> tuple[float, int]:
    """The share of the rule's verdicts that the judge also marks, and the seed that samples them."""
    if isinstance(params, (AuditedFilter, RuleThenJudgeFilter)):
        return params.audit_share, params.audit_seed
    return 0.0, 0
