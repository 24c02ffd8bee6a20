"""Who decides about an answer: a list of deciders, of which the first that decides counts.

    deciders = Deciders(params.filter, params.train.student, params.run.engine)
    deciders.ask_judge(rows, params.run, store)       # only where deciders.judge is not None
    deciders.decided(rows)                            # the answers to each question → with their verdicts

First the checks (checking.py), then the strategy: one against gold answers (gold.py), the majority of the samples
(majority.py) or a rubric (rubric.py). A decider gets those answers to a question that no earlier one decided. All that
needs no judge is computed by all workers of ``run.engine`` (workers.py); then the judge's marks are applied.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, groupby, tee

from stages.lib.deciders.checking import Checking
from stages.lib.deciders.decision import Decider, Decision, JudgedDecider
from stages.lib.deciders.gold import Gold
from stages.lib.deciders.majority import ByMajority
from stages.lib.deciders.rubric import Rubric
from stages.lib.params import Engine, Filter, MajorityFilter, RubricFilter, Run, Student
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Filtered
from stages.lib.store.answer_store import AnswerStore
from stages.lib.workers import map_rows


class Deciders:
    """The deciders of a strategy, in their order; ``judge`` is the one that asks a judge, if there is one."""

    def __init__(self, params: Filter, student: Student, engine: Engine | None = None) -> None:
        self._without_judge = WithoutJudge(params, student)
        self._engine = engine
        strategy = _strategy(params)
        self.judge = strategy if isinstance(strategy, JudgedDecider) and strategy.has_judge else None

    def ask_judge(self, rows: Iterable[Distilled], run: Run, store: AnswerStore) -> None:
        """Have the judge mark every row that reaches it and that it needs; the replies go to the store."""
        if self.judge:
            needed = bytearray(self._needed(rows, self.judge))  # one byte per row: rows are reread
            self.judge.ask(lambda: compress(rows, needed), run, store)

    def decided(self, rows: Iterable[Distilled]) -> Iterator[list[Filtered]]:
        """The answers to each question, each with the decision about it. Those to one question are adjacent."""
        for samples, decisions in self._decisions(rows):
            yield [self._final(row, decision).applied(row) for row, decision in zip(samples, decisions, strict=True)]

    def _final(self, row: Distilled, decision: Decision) -> Decision:
        return self.judge.judged(row, decision) if self.judge and decision.verdict != "unfit" else decision

    def _needed(self, rows: Iterable[Distilled], judge: JudgedDecider) -> Iterator[bool]:
        for samples, decisions in self._decisions(rows):
            for row, decision in zip(samples, decisions, strict=True):
                yield decision.verdict != "unfit" and judge.asks(row, decision)

    def _decisions(self, rows: Iterable[Distilled]) -> Iterator[tuple[list[Distilled], list[Decision]]]:
        groups, again = tee(list(group) for _, group in groupby(rows, key=lambda row: row.id))
        return zip(groups, map_rows(self._without_judge, again, self._engine), strict=True)


class WithoutJudge:
    """All deciders on the answers to one question, before any mark of a judge. A worker prepares them once."""

    def __init__(self, params: Filter, student: Student) -> None:
        self._of = (params, student)
        checking: list[Decider] = [Checking(params.checks, student)] if params.checks else []
        self._deciders = [*checking, _strategy(params)]

    def __reduce__(self) -> tuple[type["WithoutJudge"], tuple[Filter, Student]]:
        return WithoutJudge, self._of

    def __call__(self, samples: Sequence[Distilled]) -> list[Decision]:
        """A decision about each answer."""
        found: list[Decision | None] = [None] * len(samples)
        for decider in self._deciders:
            left = [place for place, decision in enumerate(found) if decision is None]
            decisions = decider.decide([samples[each] for each in left], len(samples))
            for place, decision in zip(left, decisions, strict=True):
                found[place] = decision
        return [decision for decision in found if decision]  # a strategy decides about all that is left


def _strategy(params: Filter) -> Decider:
    if isinstance(params, MajorityFilter):
        return ByMajority(params.min_share)
    return Rubric(params) if isinstance(params, RubricFilter) else Gold(params)
