"""The strategy ``judge_rubric``: a judge marks every answer by a rubric, without a gold answer."""

from collections.abc import Sequence
from dataclasses import replace

from stages.lib.deciders.decision import Decision, JudgedDecider, by_rule
from stages.lib.judge.marks import UNSURE, ByRubric
from stages.lib.params import RubricFilter
from stages.lib.rows.distilled import Distilled


class Rubric(JudgedDecider):
    """Asks the judge about every answer; a gold answer, where there is one, only shows how often the two differ."""

    def __init__(self, params: RubricFilter) -> None:
        super().__init__(params.judge, lambda: ByRubric(params.judge.prompt, params.reply))

    def asks(self, row: Distilled, decision: Decision) -> bool:
        """Every row."""
        return True

    def decide(self, rows: Sequence[Distilled], of: int) -> list[Decision]:
        """Each row as one that the judge did not mark, with the rule's verdict beside it."""
        return [_unmarked(row) for row in rows]

    def judged(self, row: Distilled, decision: Decision) -> Decision:
        """The judge's mark, whatever the rule says."""
        mark = self.mark(row, decision) or UNSURE
        return replace(decision, verdict=mark.verdict, judge_verdict=mark.verdict, score=mark.score)


def _unmarked(row: Distilled) -> Decision:
    rule = by_rule(row)
    prediction, said = (rule.prediction, rule.verdict) if rule else (None, None)
    return Decision(UNSURE.verdict, "rubric", prediction, said, UNSURE.verdict, score=UNSURE.score)
