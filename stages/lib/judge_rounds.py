"""Ask a judge in two rounds, through the same client and the same store as the teacher.

    rounds = JudgeRounds(Respondent("filter", "filter.judge", judge, "judge"), run, read_mark, "marks", advice)
    rounds.ask(texts, store)         # texts: a function that returns the prompts, one for each judgement
    rounds.judgement(text, store)    # what read_mark found in the reply; None: unsure

A reply that cannot be read is retried once (sample 1). The judgement is None where the second reply cannot be read
either, and where the judge refused, cut off or left its reply empty. A reply that was not received fails the stage,
because a time-out must not decide. The replies that were received are in the store.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from stages.lib.params import Run
from stages.lib.received import refused_for_its_content, require_received
from stages.lib.replies.reading import BodyError, read_body
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.teacher.asking import AskResult, Requests, Respondent, ask_missing, chat_request, price_of
from stages.lib.teacher.failures import CallFailed
from stages.lib.teacher.pacing import LATEST
from stages.lib.teacher.progress import RunCounts
from stages.lib.teacher.spending import body_cost

UNUSABLE = ("cut_off", "refused", "not_finished")  # an answer without reasoning may still hold a judgement

T = TypeVar("T")
Texts = Callable[[], Iterable[str]]


class JudgeRounds(Generic[T]):
    """One judge for a run; ``counts`` holds the totals of its rounds.

    ``read`` finds the judgement in the text of a reply. ``what`` is its name in messages, ``without`` says how to run
    the stage without the judge.
    """

    def __init__(
        self, respondent: Respondent, run: Run, read: Callable[[str], T | None], what: str, without: str
    ) -> None:
        self._respondent = respondent
        self._run = run
        self._read = read
        self._what = what
        self._without = without
        self._identity = respondent.identity(run)
        self._price = price_of(respondent, run)
        self.counts = RunCounts(total=0)
        self.full_cost = 0.0
        self.latencies: deque[float] = deque(maxlen=LATEST)  # seconds of the latest new replies

    def ask(self, texts: Texts, store: AnswerStore) -> None:
        """Ask in two rounds: every text that has no reply yet, then those whose reply could not be read."""
        first = self._round(lambda: (self._request(text, 0) for text in texts()), store)
        second = self._round(lambda: self._second_round(texts, store), store)
        self.counts.from_store = second.from_store - first.bought

    def judgement(self, text: str, store: AnswerStore) -> T | None:
        """The judgement on a text that was asked about; None where no reply to it can be read."""
        bodies = self.replies(text, store)
        self.full_cost += sum(body_cost(body, self._price) for body in bodies) if self._price else 0.0
        return next((found for found in map(self._judgement, bodies) if found is not None), None)

    def replies(self, text: str, store: AnswerStore) -> list[bytes]:
        """The bodies received for a text: none, one, or two where the first could not be read."""
        return [body for body in (self._body(text, sample, store) for sample in (0, 1)) if body]

    def run_facts(self) -> dict[str, Any]:
        """What this run bought and what the store saved; complete when every judgement was read."""
        return self.counts.facts(self.full_cost, self._run.currency)

    def _second_round(self, texts: Texts, store: AnswerStore) -> Iterator[dict[str, Any]]:
        """Includes the answered requests of the first round, because their cost counts towards the budget."""
        for text in texts():
            body = self._body(text, 0, store)
            if body:
                yield self._request(text, 0)
                if self._judgement(body) is None:
                    yield self._request(text, 1)

    def _request(self, text: str, sample: int) -> dict[str, Any]:
        return chat_request(self._identity, self._respondent.model, text, sample)

    def _body(self, text: str, sample: int, store: AnswerStore) -> bytes | None:
        key = request_key(self._request(text, sample))
        return store.body(key) if key in store else None

    def _judgement(self, body: bytes) -> T | None:
        try:
            answer = read_body(body)
        except BodyError:
            return None
        return None if answer.failure in UNUSABLE else self._read(answer.response)

    def _round(self, requests: Requests, store: AnswerStore) -> RunCounts:
        stage, result = self._respondent.stage, AskResult()
        try:
            ask_missing(self._respondent, requests, self._run, store, result)
        finally:  # a run that was stopped states its cost, too
            self.counts.bought += result.counts.bought
            self.counts.cost += result.counts.cost
            self.latencies.extend(result.latencies)
        some_received = result.counts.bought + result.counts.from_store > 0

        def is_permanent(failed: CallFailed) -> bool:
            # where all rows were refused without a known reason, the cause is not the rows
            return refused_for_its_content(failed) or (some_received and failed.reason == "refused")

        what = f"{self._what} of the judge"
        require_received(stage, what, result, self._run.offline, self._without, is_permanent)
        return result.counts
