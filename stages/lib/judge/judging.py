"""Asking a judge: the article's marking prompt, through the same client and the same store as the teacher.

    judge = Judging(params.filter.judge, params.run)
    judge.ask(rows, store)                   # rows: a function that yields the rows to be marked
    judge.mark(row, store)                   # "right" | "wrong" | "unsure"

A reply that cannot be read is asked for once more (sample 1); what cannot be read then is unsure, and so is what the
judge refused, cut off or left empty. A mark that was not received fails the stage, for a row's fate must not hang on
a time-out; the replies that came are in the store.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from stages.lib.judge.marking import read_mark
from stages.lib.params import Judge, Run, slotted_prompt_text
from stages.lib.replies.errors import Subject
from stages.lib.replies.reading import BodyError, read_body
from stages.lib.rows.distilled import Distilled
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.teacher.asking import Asked, Requests, Respondent, ask_missing, chat_request, price_of
from stages.lib.teacher.client import CallFailed, TeacherError
from stages.lib.teacher.progress import Standing
from stages.lib.teacher.spending import body_cost

BETWEEN = "\n" * 5  # the article's: the response, five newlines, the gold solution
OF_ITS_OWN = (Subject.CONTENT, Subject.LENGTH)  # refused for what is in the row, which a retry cannot change
UNUSABLE = ("cut_off", "refused", "not_finished")  # an answer without reasoning may still hold a mark

Mark = Literal["right", "wrong", "unsure"]
Rows = Callable[[], Iterable[Distilled]]


class Judging:
    """One judge for a run; ``standing`` adds up what its rounds came to."""

    def __init__(self, params: Judge, run: Run) -> None:
        self._params = params
        self._run = run
        self._respondent = Respondent("filter", "filter.judge", params, run.key_variable("judge"))
        self._identity = self._respondent.identity
        self._price = price_of(self._respondent, run)
        self._prompt = slotted_prompt_text("filter.judge.prompt", params.prompt, "material")
        self.standing = Standing(wanted=0)
        self.worth = 0.0

    def ask(self, rows: Rows, store: AnswerStore) -> None:
        """Two rounds: every row that is not marked yet, then those whose reply could not be read."""
        first = self._round(lambda: (self._request(row, 0) for row in rows()), store)
        second = self._round(lambda: self._second_round(rows, store), store)
        self.standing.from_store = second.from_store - first.bought

    def mark(self, row: Distilled, store: AnswerStore) -> Mark:
        """The mark of a row that was asked for."""
        bodies = [body for body in (self._body(row, sample, store) for sample in (0, 1)) if body]
        self.worth += sum(body_cost(body, self._price) for body in bodies) if self._price else 0.0
        return next(filter(None, map(_read, bodies)), "unsure")

    def run_facts(self) -> dict[str, Any]:
        """What was bought now and what the store saved; complete when every row has its mark."""
        return self.standing.facts(self.worth, self._run.currency)

    def _second_round(self, rows: Rows, store: AnswerStore) -> Iterator[dict[str, Any]]:
        """With the requests of the first round that were answered: their cost counts for the budget."""
        for row in rows():
            body = self._body(row, 0, store)
            if body:
                yield self._request(row, 0)
                if not _read(body):
                    yield self._request(row, 1)

    def _request(self, row: Distilled, sample: int) -> dict[str, Any]:
        material = row.response + BETWEEN + (row.solution or row.answer)
        return chat_request(self._identity, self._params, self._prompt.replace("{question}", material), sample)

    def _body(self, row: Distilled, sample: int, store: AnswerStore) -> bytes | None:
        key = request_key(self._request(row, sample))
        return store.body(key) if key in store else None

    def _round(self, requests: Requests, store: AnswerStore) -> Standing:
        asked = Asked()
        try:
            ask_missing(self._respondent, requests, self._run, store, asked)
        finally:  # what was paid is said of a run that was stopped, too
            self.standing.bought += asked.standing.bought
            self.standing.cost += asked.standing.cost
        if self._run.offline and asked.standing.failed:
            raise TeacherError(
                f"filter: run.offline is true, and {asked.standing.failed} marks of the judge are not in the store. "
                "Set it to false, or filter.strategy to rule and remove filter.judge."
            )
        some_came = asked.standing.bought + asked.standing.from_store > 0
        missing = [failed for failed in asked.failed.values() if not _is_for_good(failed, some_came)]
        if missing:
            kinds = ", ".join(f"{n} {reason}" for reason, n in Counter(each.reason for each in missing).most_common())
            words = next((f': "{each.words}"' for each in missing if each.words), "")
            raise TeacherError(
                f"filter: {len(missing)} marks of the judge were not received ({kinds}{words}). Those that were are "
                "kept: run the stage again to ask for the rest."
            )
        return asked.standing


def _is_for_good(failed: CallFailed, some_came: bool) -> bool:
    """Whether a row was refused for its own sake; where all are, without a known reason, it is not the rows."""
    return failed.reason == "refused" and (some_came or failed.subject in OF_ITS_OWN)


def _read(body: bytes) -> Literal["right", "wrong"] | None:
    try:
        answer = read_body(body)
    except BodyError:
        return None
    return None if answer.failure in UNUSABLE else read_mark(answer.response)
