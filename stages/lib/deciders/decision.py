"""A decision about an answer, and what makes it: a decider, with a judge or without."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stages.lib.answers import Verdict, rule_verdict
from stages.lib.judge.marks import Mark, Marking
from stages.lib.params import Judge, Run
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Filtered, Majority
from stages.lib.store.answer_store import AnswerStore
from stages.lib.texts.languages import question_language

if TYPE_CHECKING:
    from stages.lib.judge.judging import Judging

Said = Literal["right", "wrong", "unsure"]


@dataclass(frozen=True)
class Decision:
    """The fields that a decision adds to a row (rows/filtered.py)."""

    verdict: Literal["right", "wrong", "unsure", "unfit"]
    decided_by: str
    prediction: str | None = None
    rule_verdict: Said | None = None
    judge_verdict: Said | None = None
    majority: Majority | None = None
    score: float | None = None
    detail: str | None = None

    def applied(self, row: Distilled) -> Filtered:
        """The row with the decision."""
        facts = asdict(self) | {"majority": self.majority}
        return Filtered(**row.model_dump(), **facts)


class Decider(Protocol):
    """Decides about the answers to one question."""

    def decide(self, rows: Sequence[Distilled], of: int) -> Sequence[Decision | None]:
        """A decision for each row, or None to leave it to the next decider. ``of``: all answers to the question."""


class JudgedDecider:
    """A decider that may ask a judge: ``decide`` decides as if it was not asked, ``judged`` adds its mark."""

    def __init__(self, judge: Judge | None, marking: Callable[[], Marking]) -> None:
        self._params, self._marking = judge, marking
        self._marks: Callable[[Distilled], Mark] | None = None
        self.judging: Judging | None = None  # once it has asked
        self.run_facts: Callable[[], dict[str, Any]] | None = None

    @property
    def has_judge(self) -> bool:
        """Whether the strategy has a judge."""
        return self._params is not None

    def asks(self, row: Distilled, decision: Decision) -> bool:
        """Whether the judge is asked about a row."""
        raise NotImplementedError

    def judged(self, row: Distilled, decision: Decision) -> Decision:
        """The decision with the judge's mark, if the row has one."""
        raise NotImplementedError

    def ask(self, rows: Callable[[], Iterable[Distilled]], run: Run, store: AnswerStore) -> None:
        """Ask about these rows; the replies go to the store."""
        from stages.lib.judge.judging import Judging

        assert self._params
        judging = Judging(self._params, self._marking(), run)
        self._marks, self.run_facts = lambda row: judging.mark(row, store), judging.run_facts
        self.judging = judging
        judging.ask(rows, store)

    def mark(self, row: Distilled, decision: Decision) -> Mark | None:
        """The judge's mark; None where it was not asked."""
        return self._marks(row) if self._marks and self.asks(row, decision) else None


def by_rule(row: Distilled) -> Verdict | None:
    """The rule's verdict; None without a gold answer."""
    if row.answer is None:
        return None
    return rule_verdict(row.question, row.response, row.answer, question_language(row.question))
