"""The strategies with gold answers: the rule, a judge, or both (docs/filter.md draws them).

A row without a gold answer is unsure, and no judge is asked about it.
"""

import hashlib
from collections.abc import Sequence

from stages.lib.answers import Verdict
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

    def asks(self, row: Distilled) -> bool:
        """Whether the strategy or the audit needs a mark of the row."""
        rule = by_rule(row)
        return rule is not None and self._asks(row, rule)

    def _asks(self, row: Distilled, rule: Verdict) -> bool:
        if self._strategy in ("judge", "both"):
            return True
        if self._strategy == "rule_then_judge" and rule.verdict == "unsure":
            return True
        return rule.verdict != "unsure" and _uniform(f"{self._seed}:{row.key}") < self._share

    def decide(self, rows: Sequence[Distilled], of: int) -> list[Decision]:
        """The verdict on each row by itself."""
        return [self._decision(row) for row in rows]

    def _decision(self, row: Distilled) -> Decision:
        rule = by_rule(row)
        if rule is None:
            return Decision("unsure", "no_gold")
        found = self._marks(row) if self._marks and self._asks(row, rule) else None
        mark = found.verdict if found else None
        verdict, decided_by = self._final(rule, mark)
        return Decision(verdict, decided_by, rule.prediction, rule.verdict, mark)

    def _final(self, rule: Verdict, mark: Said | None) -> tuple[Said, str]:
        by_rule = f"rule:{rule.rule}"
        if mark is None or self._strategy in ("rule", "rule_audited"):
            return rule.verdict, by_rule
        if self._strategy == "judge" or rule.verdict == "unsure":
            return mark, "judge"
        if self._strategy == "both" and mark not in (rule.verdict, "unsure"):
            return "unsure", "disagreement"
        return rule.verdict, by_rule


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
