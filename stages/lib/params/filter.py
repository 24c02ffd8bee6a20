"""``filter``: a section for each strategy. Only those that ask a judge have one."""

from typing import Annotated, Literal

from pydantic import Field

from stages.lib.params.base import Name, Section, Seed, Share
from stages.lib.params.teacher import EmbeddedTeacher, ServedTeacher


class EmbeddedJudge(EmbeddedTeacher):
    """The embedded model as a judge; ``slip_share`` is that of its marks that are wrong."""

    prompt: Name


class ServedJudge(ServedTeacher):
    """A model behind an address as a judge."""

    prompt: Name


Judge = Annotated[EmbeddedJudge | ServedJudge, Field(discriminator="kind")]


class _Chosen(Section):
    """What becomes of answers that nobody could judge, and which right ones are kept."""

    on_unsure: Literal["reject", "keep"]
    select: Literal["first_correct", "shortest_correct", "all_correct"]
    control_seed: Seed


class RuleFilter(_Chosen):
    """The rule alone."""

    strategy: Literal["rule"]


class JudgedFilter(_Chosen):
    """The judge alone, or every answer marked by both."""

    strategy: Literal["judge", "both"]
    judge: Judge


class AuditedFilter(_Chosen):
    """The rule alone, of which a judge marks a share too, for the table of rule against judge; the verdict stays."""

    strategy: Literal["rule_audited"]
    audit_share: Annotated[float, Field(gt=0, le=1)]
    audit_seed: Seed
    judge: Judge


class RuleThenJudgeFilter(_Chosen):
    """The rule, and the judge where the rule cannot read an answer; and a share of the rule's own verdicts (or 0)."""

    strategy: Literal["rule_then_judge"]
    audit_share: Share
    audit_seed: Seed
    judge: Judge


Filter = Annotated[RuleFilter | AuditedFilter | JudgedFilter | RuleThenJudgeFilter, Field(discriminator="strategy")]


def judge_of(params: Filter) -> EmbeddedJudge | ServedJudge | None:
    """The judge that the strategy asks; None for the rule alone."""
    return None if isinstance(params, RuleFilter) else params.judge


def audit_of(params: Filter) -> tuple[float, int]:
    """Of the rule's own verdicts, the share that the judge marks too, and the seed that draws them."""
    if isinstance(params, (AuditedFilter, RuleThenJudgeFilter)):
        return params.audit_share, params.audit_seed
    return 0.0, 0
