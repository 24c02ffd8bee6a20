"""Ask a judge for marks, through the same client and the same store as the teacher.

    judge = Judging(params.filter.judge, AgainstGold("strict_teacher"), params.run)     # or ByRubric (marks.py)
    judge.ask(rows, store)                   # rows: a function that returns the rows to mark
    judge.mark(row, store)                   # Mark("right") | Mark("wrong") | Mark("unsure")

The mark is unsure where no reply can be read. A mark that was not received fails the stage (judge_rounds.py).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stages.lib.judge.marks import UNSURE, Mark, Marking
from stages.lib.judge_rounds import JudgeRounds
from stages.lib.params import Judge, Run
from stages.lib.rows.distilled import Distilled
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.asking import Respondent

WITHOUT = "filter.strategy to one without a judge (rule, or majority without gold answers) and remove filter.judge"

Rows = Callable[[], Iterable[Distilled]]


class Judging:
    """One judge for a run."""

    def __init__(self, params: Judge, marking: Marking, run: Run) -> None:
        respondent = Respondent("filter", "filter.judge", params, "judge")
        self._rounds: JudgeRounds[Mark] = JudgeRounds(respondent, run, marking.read, "marks", WITHOUT)
        self._marking = marking

    @property
    def latencies(self) -> Sequence[float]:
        """The seconds that the latest new replies took."""
        return self._rounds.latencies

    def ask(self, rows: Rows, store: AnswerStore) -> None:
        """Ask for the marks that the store lacks."""
        self._rounds.ask(lambda: map(self._marking.text, rows()), store)

    def mark(self, row: Distilled, store: AnswerStore) -> Mark:
        """The mark of a row that was asked about."""
        return self._rounds.judgement(self._marking.text(row), store) or UNSURE

    def replies(self, row: Distilled, store: AnswerStore) -> list[bytes]:
        """The bodies received for a row: none, one, or two where the first could not be read."""
        return self._rounds.replies(self._marking.text(row), store)

    def run_facts(self) -> dict[str, Any]:
        """What this run bought and what the store saved; complete when every row has its mark."""
        return self._rounds.run_facts()
