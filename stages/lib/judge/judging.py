"""Ask a judge for marks, through the same client and the same store as the teacher.

    judge = Judging(params.filter.judge, AgainstGold("strict_teacher"), params.run)     # or ByRubric (marks.py)
    judge.ask(rows, store)                   # rows: a function that returns the rows to mark
    judge.mark(row, store)                   # Mark("right") | Mark("wrong") | Mark("unsure")

A reply that cannot be read is retried once (sample 1). The mark is unsure where the second reply cannot be read either,
and where the judge refused, cut off or left its reply empty. A mark that was not received fails the stage, because a
time-out must not decide whether a row is kept. The replies that were received are in the store.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stages.lib.judge.marks import UNSURE, Mark, Marking
from stages.lib.params import Judge, Run
from stages.lib.replies.errors import Subject
from stages.lib.replies.reading import BodyError, read_body
from stages.lib.rows.distilled import Distilled
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.teacher.asking import AskResult, Requests, Respondent, ask_missing, chat_request, price_of
from stages.lib.teacher.client import CallFailed, TeacherError
from stages.lib.teacher.progress import RunCounts
from stages.lib.teacher.spending import body_cost

ROW_SUBJECTS = (Subject.CONTENT, Subject.LENGTH)  # refused because of the row's content, which a retry cannot change
UNUSABLE = ("cut_off", "refused", "not_finished")  # an answer without reasoning may still hold a mark

Rows = Callable[[], Iterable[Distilled]]


class Judging:
    """One judge for a run; ``counts`` holds the totals of its rounds, ``latencies`` the seconds of each new reply."""

    def __init__(self, params: Judge, marking: Marking, run: Run) -> None:
        self._params = params
        self._marking = marking
        self._run = run
        self._respondent = Respondent("filter", "filter.judge", params, run.key_variable("judge"))
        self._identity = self._respondent.identity
        self._price = price_of(self._respondent, run)
        self.counts = RunCounts(total=0)
        self.full_cost = 0.0
        self.latencies = array("d")

    def ask(self, rows: Rows, store: AnswerStore) -> None:
        """Ask in two rounds: every row that has no mark yet, then the rows whose reply could not be read."""
        first = self._round(lambda: (self._request(row, 0) for row in rows()), store)
        second = self._round(lambda: self._second_round(rows, store), store)
        self.counts.from_store = second.from_store - first.bought

    def mark(self, row: Distilled, store: AnswerStore) -> Mark:
        """The mark of a row that was asked about."""
        bodies = self.replies(row, store)
        self.full_cost += sum(body_cost(body, self._price) for body in bodies) if self._price else 0.0
        return next(filter(None, map(self._read, bodies)), UNSURE)

    def replies(self, row: Distilled, store: AnswerStore) -> list[bytes]:
        """The bodies received for a row: none, one, or two where the first could not be read."""
        return [body for body in (self._body(row, sample, store) for sample in (0, 1)) if body]

    def run_facts(self) -> dict[str, Any]:
        """What this run bought and what the store saved; complete when every row has its mark."""
        return self.counts.facts(self.full_cost, self._run.currency)

    def _second_round(self, rows: Rows, store: AnswerStore) -> Iterator[dict[str, Any]]:
        """Includes the answered requests of the first round, because their cost counts towards the budget."""
        for row in rows():
            body = self._body(row, 0, store)
            if body:
                yield self._request(row, 0)
                if not self._read(body):
                    yield self._request(row, 1)

    def _request(self, row: Distilled, sample: int) -> dict[str, Any]:
        return chat_request(self._identity, self._params, self._marking.text(row), sample)

    def _body(self, row: Distilled, sample: int, store: AnswerStore) -> bytes | None:
        key = request_key(self._request(row, sample))
        return store.body(key) if key in store else None

    def _read(self, body: bytes) -> Mark | None:
        try:
            answer = read_body(body)
        except BodyError:
            return None
        return None if answer.failure in UNUSABLE else self._marking.read(answer.response)

    def _round(self, requests: Requests, store: AnswerStore) -> RunCounts:
        result = AskResult()
        try:
            ask_missing(self._respondent, requests, self._run, store, result)
        finally:  # a run that was stopped states its cost, too
            self.counts.bought += result.counts.bought
            self.counts.cost += result.counts.cost
            self.latencies.extend(result.latencies)
        if self._run.offline and result.counts.failed:
            raise TeacherError(
                f"filter: run.offline is true, and {result.counts.failed} marks of the judge are not in the store. "
                "Set it to false, or filter.strategy to rule and remove filter.judge."
            )
        some_received = result.counts.bought + result.counts.from_store > 0
        missing = [failed for failed in result.failed.values() if not _is_permanent(failed, some_received)]
        if missing:
            kinds = ", ".join(f"{n} {reason}" for reason, n in Counter(each.reason for each in missing).most_common())
            words = next((f': "{each.message}"' for each in missing if each.message), "")
            raise TeacherError(
                f"filter: {len(missing)} marks of the judge were not received ({kinds}{words}). The received ones are "
                "kept. Run the stage again to ask for the rest."
            )
        return result.counts


def _is_permanent(failed: CallFailed, some_received: bool) -> bool:
    """Whether a retry cannot help: the row's content was refused.

    Where all rows were refused without a known reason, the cause is not the rows.
    """
    return failed.reason == "refused" and (some_received or failed.subject in ROW_SUBJECTS)
