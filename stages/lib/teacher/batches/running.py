"""A run that asks in batches: fill files, submit them, wait, receive, and submit again what was not answered.

    uvloop.run(Batching(job, store, batches, spending, counts, failed).run(requests))

Nothing is submitted twice, whenever the process is killed: a batch is in the journal before it is sent, and a run takes
over the open batches that it finds there (worker.py). The budget reserves the most that each request may cost before
its batch is submitted. Ctrl-C leaves the batches at the server; the next run receives them.
"""

import asyncio
import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from openai.types import Batch as RemoteBatch

from stages.lib.command import DistilleryError, Interrupted, stopping_loop_on_signals
from stages.lib.params import Batch as Settings
from stages.lib.params import Run
from stages.lib.replies.errors import Scope, classify_error
from stages.lib.replies.reading import Answer
from stages.lib.replies.server_message import message_of
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.store.reserving import Reserved
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.batches.api import NotSubmitted
from stages.lib.teacher.batches.journal import Batch, Item, OpenBatches, prefix
from stages.lib.teacher.batches.lines import request_line
from stages.lib.teacher.batches.progress import BatchProgress
from stages.lib.teacher.batches.receiving import Outcome, refusal
from stages.lib.teacher.batches.worker import BatchWorker, Visit
from stages.lib.teacher.client import BYTES_A_TOKEN
from stages.lib.teacher.failures import KEPT, CallFailed, Diagnosis, RetryableFailure, TeacherError
from stages.lib.teacher.pricing import money
from stages.lib.teacher.progress import RunCounts
from stages.lib.teacher.sharing import SharedBudget
from stages.lib.teacher.spending import NO_USAGE, Spending, prompt_bytes

log = logging.getLogger("distillery.asking")

MEGABYTE = 1_000_000
WRITING = hashlib.sha256(b"the journal of batches").hexdigest()  # claimed by the process that writes to it
WRITING_POLL_S = 0.05
OTHER_PROCESS_POLL_S = 5.0  # the longest wait before a look at what another process has received
QUEUE_FULL = "token_limit_exceeded"  # the code where more tokens wait at the server than it allows

Requests = Callable[[], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class BatchJob:
    """What a stage asks, and where."""

    stage: str
    section: str
    model: str
    endpoint: Endpoint
    run: Run
    settings: Settings


class Batching:
    """One run. ``counts`` and ``failed`` (by key) are correct at any time, however the run ends."""

    def __init__(
        self,
        job: BatchJob,
        store: AnswerStore,
        batches: OpenBatches,
        spending: Spending,
        counts: RunCounts,
        failed: dict[str, CallFailed],
    ) -> None:
        self._job = job
        self._store = store
        self._batches = batches
        self._spending = spending
        self._counts = counts
        self._failed = failed
        self._budget = SharedBudget(store, batches, spending, job.section, lambda key: prefix(key) in self._missing)
        self._worker = BatchWorker(store, batches, job.run, job.settings.poll_s, counts.from_store)
        self._diagnosis = Diagnosis(job.endpoint, job.section, job.model, job.run, counts.from_store)
        self._max_requests = job.settings.max_requests
        self._missing: set[int] = set()  # the prefixes of the keys that the run needs
        self._seen: set[int] = set()  # of those that were taken from the requests, or have failed in a batch
        self._again: dict[str, Item] = {}  # to be submitted before new ones
        self._elsewhere: dict[str, Item] = {}  # in a batch of an earlier or another run, or asked for by another one
        self._needed_batches: set[str] = set()  # the tokens of batches that have requests of this run
        self._left_out: set[str] = set()  # those of batches that the run does not need and cannot look at
        self._error: DistilleryError | None = None

    async def run(self, requests: Requests) -> None:
        """Ask until no answer is missing, or an error ends the run."""
        job = self._job
        if not self._spending.can_estimate:
            raise TeacherError(
                f"{job.stage}: run.budget cannot be kept, because the cost of a batch is not known before it ends. Set "
                f"{job.section}.max_tokens, or receive some answers first, as with 'make preview'."
            )
        self._progress = BatchProgress(job.stage, self._counts, job.run.currency if self._spending.price else None)
        clock = asyncio.create_task(self._progress.tick())
        task = asyncio.create_task(self._work(requests))
        try:
            with stopping_loop_on_signals(task.cancel):
                await task
        except asyncio.CancelledError:
            raise Interrupted(f"{job.stage}: stopped; {self._left()}") from None
        finally:
            clock.cancel()
            self._progress.close()
            await self._worker.close()
        counts = self._counts
        counts.from_store = counts.total - counts.bought - counts.failed  # another process may have helped

    async def _work(self, requests: Requests) -> None:
        keys = (request_key(request) for request in requests())
        self._missing = {prefix(key) for key in keys if key not in self._store}
        self._items = self._needed(requests)
        while True:
            await self._take_over()
            self._free_what_is_nowhere()
            await self._submit_what_fits()
            if not (self._again or self._elsewhere or self._needed_batches & self._worker.held.keys()):
                return
            await self._pause()
            async for visit in self._worker.visits(self._settle):
                await self._consider(visit)
            if self._error:
                raise self._error

    def _needed(self, requests: Requests) -> Iterator[Item]:
        """Each request that is missing and was in no batch of this run, once."""
        for request in requests():
            key = request_key(request)
            if prefix(key) not in self._seen and key not in self._store:
                self._seen.add(prefix(key))
                yield Item(key, request)

    # ---- batches that are open already ----

    async def _take_over(self) -> None:
        """Take over the open batches that no living process works on, if they have to do with this run."""
        for batch in self._batches.batches():
            needed = not self._batches.content(batch).prefixes.isdisjoint(self._missing)
            concerns = needed or (batch.section == self._job.section and batch.token not in self._left_out)
            if batch.token in self._worker.held or not concerns or not self._worker.take_over(batch):
                continue
            if needed:
                self._needed_batches.add(batch.token)
            visit = await self._worker.visit(batch.token, self._settle)
            await self._consider(visit)
            if visit.remote and not visit.received:
                self._say_open(visit.batch, needed)
        if self._error:
            raise self._error

    def _say_open(self, batch: Batch, needed: bool) -> None:
        if needed:
            return log.info("%s: going on with %s, %s", self._job.stage, batch.name, batch.size)
        text = "%s: %s, with %s that this run does not need, goes on at the server; 'make batches' shows it"
        return log.info(text, self._job.stage, batch.name, batch.size)

    def _free_what_is_nowhere(self) -> None:
        """Drop what has been answered elsewhere; plan what will not be."""
        if not self._elsewhere:
            return
        self._store.refresh()
        waiting, self._elsewhere = self._elsewhere, {}
        in_batches = self._batches.keys()
        for key, item in waiting.items():
            if key in self._store or key in self._failed or key in self._again:
                continue
            free = prefix(key) not in in_batches and self._is_free(key)
            (self._again if free else self._elsewhere)[key] = item

    def _is_free(self, key: str) -> bool:
        """Whether no process asks for a request by a single call now, and none has its answer."""
        if not self._store.claim(key):
            return False
        self._store.release(key)
        return True

    # ---- new batches ----

    async def _submit_what_fits(self) -> None:
        while True:
            async with self._budget.turn(asyncio.sleep) as elsewhere:
                items = self._next_lot(elsewhere)
                self._budget.state()
            if not items:
                return
            await self._submit(items)

    def _next_lot(self, elsewhere: Reserved) -> list[Item]:
        """The requests of the next batch: as many as its file, the server's queue and the budget have room for."""
        settings, held = self._job.settings, self._worker.held.values()
        in_batches = self._batches.keys()
        items: list[Item] = []
        size, queued = 0, sum(batch.prompt_tokens for batch in held)
        while len(items) < self._max_requests and (item := self._next(in_batches)):
            length, waiting = len(request_line(item.key, item.request)), _prompt_tokens(item.request)
            fits = not items or size + length <= settings.max_mb * MEGABYTE
            alone = not items and not held
            fits = fits and (settings.enqueued_tokens is None or queued + waiting <= settings.enqueued_tokens or alone)
            if not fits or not self._spending.has_room(item.request, elsewhere):
                self._again = {item.key: item, **self._again}
                if alone and not self._may_end(elsewhere):  # only the budget has no room
                    raise self._over_budget(item, elsewhere)
                break
            self._spending.begin(item.key, item.request)
            items.append(item)
            size, queued = size + length, queued + waiting
        return items

    def _next(self, in_batches: set[int]) -> Item | None:
        """A request that is in no batch."""
        for key in self._again:
            return self._again.pop(key)
        for item in self._items:
            if prefix(item.key) not in in_batches:
                return item
            self._elsewhere[item.key] = item
        return None

    def _may_end(self, elsewhere: Reserved) -> bool:
        """Whether something that is reserved elsewhere may be received: not what this run cannot look at."""
        left_out = [batch for batch in self._batches.batches() if batch.token in self._left_out]
        return elsewhere.calls > sum(self._batches.content(batch).pending for batch in left_out)

    def _over_budget(self, item: Item, elsewhere: Reserved) -> TeacherError:
        counts, currency = self._counts, self._job.run.currency
        text = self._spending.budget_message(item.request, currency, counts.total, counts.done)
        open_ = f" Open batches may cost {money(elsewhere.cost, currency)} of it: see 'make batches'."
        return TeacherError(f"{self._job.stage}: {text}{open_ if elsewhere.calls else ''}")

    async def _submit(self, items: list[Item]) -> None:
        """Submit a batch of these requests; it is in the journal before anything is sent."""
        job = self._job
        batch = Batch(
            token=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}",
            stage=job.stage,
            section=job.section,
            endpoint=job.endpoint.base_url,
            key_variable=job.endpoint.key_variable,
            model=job.model,
            created=int(time.time()),
            requests=len(items),
            prompt_tokens=sum(_prompt_tokens(item.request) for item in items),
        )
        while not self._store.claim(WRITING):
            await asyncio.sleep(WRITING_POLL_S)
        try:
            written = self._written(batch, items)
        finally:
            self._store.release(WRITING)
        for item in items:  # from now on the journal says what it may cost
            self._spending.end(item.key, None)
        self._budget.state()
        if written:
            written = await self._bring(written)
            log.info("%s: submitted %s with %s", job.stage, written.name, written.size)

    def _written(self, batch: Batch, items: list[Item]) -> Batch | None:
        """Write a batch into the journal, without what other processes ask for; None where nothing is left.

        A process that asks by single calls claims a request and then reads the journal, this one writes the journal and
        then looks at the claims: at least one of them sees the other.
        """
        in_batches = self._batches.keys()
        kept = self._without(items, lambda item: prefix(item.key) in in_batches)
        while kept:
            batch = batch.model_copy(update={"requests": len(kept)})
            self._store.claim(batch.claim_key)
            self._batches.journal.add(batch, kept)
            free = self._without(kept, lambda item: not self._is_free(item.key))
            if len(free) == len(kept):
                self._worker.hold(batch)
                self._needed_batches.add(batch.token)
                return batch
            kept = free
        self._worker.forget(batch)
        return None

    def _without(self, items: list[Item], is_elsewhere: Callable[[Item], bool]) -> list[Item]:
        """Set aside what another process asks for."""
        kept = [item for item in items if not is_elsewhere(item)]
        ours = {item.key for item in kept}
        self._elsewhere |= {item.key: item for item in items if item.key not in ours}
        return kept

    async def _bring(self, batch: Batch) -> Batch:
        """Upload and submit a batch; each step is written down."""
        api, journal = self._worker.api(batch), self._batches.journal
        try:
            path = journal.scratch_path(batch, "upload")
            with path.open("wb") as file:
                file.writelines(request_line(item.key, item.request) for item in journal.items(batch))
            file_id = await api.upload(path, f"distillery-{batch.stage}-{batch.token}")
            path.unlink()
            batch = self._worker.save(batch, file_id=file_id)
            return self._worker.save(batch, batch_id=await api.submit(batch, self._job.settings))
        except NotSubmitted:
            self._worker.forget(batch)
            raise

    # ---- waiting and receiving ----

    async def _pause(self) -> None:
        held = self._worker.held
        wait_s = self._worker.due_in_s if held else self._job.settings.poll_s
        self._progress.waiting(list(self._worker.states.values()), len(held), wait_s)
        await asyncio.sleep(min(wait_s, OTHER_PROCESS_POLL_S) if self._elsewhere or not held else wait_s)

    async def _consider(self, visit: Visit) -> None:
        """Draw the consequences of a look at a batch."""
        batch, remote, received = visit.batch, visit.remote, visit.received
        needed = batch.token in self._needed_batches
        if visit.error and needed:
            raise visit.error
        if visit.error:
            log.warning("%s: %s, which this run does not need: %s", self._job.stage, batch.name, visit.error)
            self._left_out.add(batch.token)
            self._worker.leave(batch)
        if not (remote and received):
            return
        log.info("%s: %s %s: %s", self._job.stage, batch.name, remote.status, received.text())
        if batch.section != self._job.section or not needed:
            return  # what the server or a person did with it is no matter of this run
        if remote.status == "failed":
            await self._refused(batch, remote)
        elif remote.status == "cancelled":
            self._error = self._error or TeacherError(
                f"{self._job.stage}: {batch.name} was cancelled; {received.answers} of its {batch.requests} answers "
                f"were received and are kept. Run the stage again to submit the others."
            )
        self._error = self._error or received.error

    def _settle(self, item: Item, outcome: Outcome) -> None:
        """Count the outcome of a request; plan it for the next batch where that may help."""
        key = self._store.renamed_key(item.request) or item.key  # the run's own, where the endpoint got another name
        if prefix(key) not in self._missing:
            return
        if isinstance(outcome, Answer):
            self._spending.add(outcome)
            self._counts.bought += 1
            self._counts.tokens += outcome.tokens.completion
            self._counts.cost += self._spending.cost(outcome)
            if self._spending.lacks_usage(outcome):
                self._error = self._error or TeacherError(f"{self._job.stage}: {NO_USAGE}")
        elif isinstance(outcome, RetryableFailure) and item.attempt < self._job.run.max_attempts:
            if key == item.key:
                self._seen.add(prefix(key))
                self._again[key] = replace(item, attempt=item.attempt + 1)
        else:
            self._seen.add(prefix(key))
            self._failed[key] = outcome
            self._counts.failed += 1

    async def _refused(self, batch: Batch, remote: RemoteBatch) -> None:
        """A batch that the server did not accept: smaller ones where its queue is full, else the end of the run."""
        message = message_of(refusal(remote))
        found = classify_error(400, message)
        queue_full = QUEUE_FULL in message.codes
        if (queue_full or found.scope is Scope.TRANSIENT) and self._again:
            if queue_full and not self._worker.held:
                self._max_requests = max(1, batch.requests // 2)
            return await asyncio.sleep(self._job.settings.poll_s)
        advice = "Run the stage again when that is fixed"
        if queue_full:
            advice = f"Set enqueued_tokens in run.batch below the limit of the account for {batch.model}"
        text = self._diagnosis.without_key(message.text).rstrip(".。")
        self._error = TeacherError(
            f"{self._job.stage}: {batch.name}: the server refuses the batch of {batch.size}: {text}. {advice}; {KEPT}"
        )

    # ---- the end ----

    def _left(self) -> str:
        """What is left, and what a person can do about it."""
        batches = list(self._worker.held.values())
        if not batches:
            counts = self._counts
            return f"{counts.total - counts.done} answers are missing. Run the stage again to resume."
        names = ", ".join(batch.name for batch in batches)
        return (
            f"{sum(batch.requests for batch in batches)} requests go on at the server, in {names}. Run the stage again "
            f"to receive them; 'make batches CANCEL={batches[0].name}' cancels a batch."
        )


def _prompt_tokens(request: dict[str, Any]) -> int:
    return math.ceil(prompt_bytes(request) / BYTES_A_TOKEN)
