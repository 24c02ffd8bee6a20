"""Ask a judge: the article's marking prompt, through the same client and the same store as the teacher.

    judge = Judging(params.filter.judge, params.run)
    judge.ask(rows, store)                   # rows: a function that returns the rows to mark
    judge.mark(row, store)                   # "right" | "wrong" | "unsure"

The mark is unsure where no reply can be read (judge_rounds.py).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

from stages.lib.judge.marking import read_mark
from stages.lib.judge_rounds import JudgeRounds
from stages.lib.params import Judge, Run, slotted_prompt_text
from stages.lib.rows.distilled import Distilled
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.asking import Respondent

SEPARATOR = "\n" * 5  # the article's: the response, five newlines, the gold solution
WITHOUT = "filter.strategy to rule and remove filter.judge"

Mark = Literal["right", "wrong", "unsure"]
Rows = Callable[[], Iterable[Distilled]]


class Judging:
    """One judge for a run."""

    def __init__(self, params: Judge, run: Run) -> None:
        respondent = Respondent("filter", "filter.judge", params, run.key_variable("judge"))
        self._rounds: JudgeRounds[Literal["right", "wrong"]] = JudgeRounds(respondent, run, read_mark, "marks", WITHOUT)
        self._prompt = slotted_prompt_text("filter.judge.prompt", params.prompt, "response")

    def ask(self, rows: Rows, store: AnswerStore) -> None:
        """Ask for the marks that the store lacks."""
        self._rounds.ask(lambda: map(self._text, rows()), store)

    def mark(self, row: Distilled, store: AnswerStore) -> Mark:
        """The mark of a row that was asked about."""
        return self._rounds.judgement(self._text(row), store) or "unsure"

    def run_facts(self) -> dict[str, Any]:
        """What this run bought and what the store saved; complete when every row has its mark."""
        return self._rounds.run_facts()

    def _text(self, row: Distilled) -> str:
        texts = row.response + SEPARATOR + (row.solution or row.answer or "")
        return self._prompt.replace("{question}", texts)
