"""The strategies with gold answers: the rule, a judge, or both (docs/filter.md draws them).

A row without a gold answer is unsure, and no judge is asked about it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from stages.lib.deciders.decision import Decision, JudgedDecider, Said, by_rule
from stages.lib.judge.marks import AgainstGold
from stages.lib.params import GoldFilter, audit_of, judge_of
from stages.lib.rows.distilled import Distilled


class Gold(JudgedDecider):
    """Asks the rule and the judge, and selects which of the two counts."""

    def __init__(self, params: GoldFilter) -> None:
        judge = judge_of(params)
        super().__init__(judge, lambda: AgainstGold(judge.prompt if judge else ""))
        self._strategy = params.strategy
        self._share, self._seed = audit_of(params)

    def asks(self, row: Distilled, decision: Decision) -> bool:
        """Whether the strategy or the audit needs a mark of the row."""
        if decision.rule_verdict is None:
            return False
        if self._strategy in ("judge", "both"):
            return True
        if self._strategy == "rule_then_judge" and decision.rule_verdict == "unsure":
            return True
        return decision.rule_verdict != "unsure" and _uniform(f"{self._seed}:{row.key}") < self._share

    def decide(self, rows: Sequence[Distilled], of: int) -> list[Decision]:
        """The rule's verdict on each row by itself."""
        return [_by_rule(row) for row in rows]

    def judged(self, row: Distilled, decision: Decision) -> Decision:
        """The rule's verdict or the judge's, by the strategy."""
        found = self.mark(row, decision)
        if found is None or decision.rule_verdict is None:
            return decision
        verdict, decided_by = self._final(decision.rule_verdict, decision.decided_by, found.verdict)
        return replace(decision, verdict=verdict, decided_by=decided_by, judge_verdict=found.verdict)

    def _final(self, rule: Said, by_rule: str, mark: Said) -> tuple[Said, str]:
        if self._strategy in ("rule", "rule_audited"):
            return rule, by_rule
        if self._strategy == "judge" or rule == "unsure":
            return mark, "judge"
        if self._strategy == "both" and mark not in (rule, "unsure"):
            return "unsure", "disagreement"
        return rule, by_rule


def _by_rule(row: Distilled) -> Decision:
    rule = by_rule(row)
    if rule is None:
        return Decision("unsure", "no_gold")
    return Decision(rule.verdict, f"rule:{rule.rule}", rule.prediction, rule.verdict)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
