"""Who decides about an answer: a list of deciders, of which the first that decides counts.

    deciders = Deciders(params.filter, params.train.student)
    deciders.ask_judge(rows, params.run, store)       # only where deciders.judge is not None
    deciders.decided(samples)                         # the answers to one question → with their verdicts

First the checks (checking.py), then the strategy: one against gold answers (gold.py), the majority of the samples
(majority.py) or a rubric (rubric.py). A decider gets those answers to a question that no earlier one decided.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, groupby

from stages.lib.deciders.checking import Checking
from stages.lib.deciders.decision import Decider, Decision, JudgedDecider
from stages.lib.deciders.gold import Gold
from stages.lib.deciders.majority import ByMajority
from stages.lib.deciders.rubric import Rubric
from stages.lib.params import Filter, MajorityFilter, RubricFilter, Run, Student
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Filtered
from stages.lib.store.answer_store import AnswerStore


class Deciders:
    """The deciders of a strategy, in their order; ``judge`` is the one that asks a judge, if there is one."""

    def __init__(self, params: Filter, student: Student) -> None:
        self._before: list[Decider] = [Checking(params.checks, student)] if params.checks else []
        strategy = _strategy(params)
        self._all = [*self._before, strategy]
        self.judge = strategy if isinstance(strategy, JudgedDecider) and strategy.has_judge else None

    def ask_judge(self, rows: Iterable[Distilled], run: Run, store: AnswerStore) -> None:
        """Have the judge mark every row that reaches it and that it needs; the replies go to the store."""
        if self.judge:
            needed = bytearray(self._needed(rows))  # one byte per row: rows are reread
            self.judge.ask(lambda: compress(rows, needed), run, store)

    def decided(self, samples: Sequence[Distilled]) -> list[Filtered]:
        """The answers to one question, each with the decision about it."""
        decisions = _decisions(samples, self._all)
        return [decision.applied(row) for row, decision in zip(samples, decisions, strict=True) if decision]

    def _needed(self, rows: Iterable[Distilled]) -> Iterator[bool]:
        for _, group in groupby(rows, key=lambda row: row.id):
            samples = list(group)
            for row, decision in zip(samples, _decisions(samples, self._before), strict=True):
                yield decision is None and self.judge is not None and self.judge.asks(row)


def _strategy(params: Filter) -> Decider:
    if isinstance(params, MajorityFilter):
        return ByMajority(params.min_share)
    return Rubric(params) if isinstance(params, RubricFilter) else Gold(params)


def _decisions(samples: Sequence[Distilled], deciders: Iterable[Decider]) -> list[Decision | None]:
    found: list[Decision | None] = [None] * len(samples)
    for decider in deciders:
        left = [place for place, decision in enumerate(found) if decision is None]
        for place, decision in zip(left, decider.decide([samples[each] for each in left], len(samples)), strict=True):
            found[place] = decision
    return found
