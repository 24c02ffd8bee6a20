"""The strategy ``judge_rubric``: a judge marks every answer by a rubric, without a gold answer."""

from collections.abc import Sequence

from stages.lib.deciders.decision import Decision, JudgedDecider, by_rule
from stages.lib.judge.marks import UNSURE, ByRubric
from stages.lib.params import RubricFilter
from stages.lib.rows.distilled import Distilled


class Rubric(JudgedDecider):
    """Asks the judge about every answer; a gold answer, where there is one, only shows how often the two differ."""

    def __init__(self, params: RubricFilter) -> None:
        super().__init__(params.judge, lambda: ByRubric(params.judge.prompt, params.reply))

    def asks(self, row: Distilled) -> bool:
        """Every row."""
        return True

    def decide(self, rows: Sequence[Distilled], of: int) -> list[Decision]:
        """The judge's mark of each row by itself."""
        return [self._decision(row) for row in rows]

    def _decision(self, row: Distilled) -> Decision:
        rule, mark = by_rule(row), self.mark(row) or UNSURE
        prediction, said = (rule.prediction, rule.verdict) if rule else (None, None)
        return Decision(mark.verdict, "rubric", prediction, said, mark.verdict, score=mark.score)
