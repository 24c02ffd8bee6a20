"""A run that asks in batches: fill files, submit them, wait, receive, and submit again what was not answered.

    uvloop.run(Batching(job, store, spending, counts, failed).run(requests))

Nothing is submitted twice, whenever the process is killed: a batch is in the journal before it is sent, and a run
begins with the open batches that it finds there. The budget reserves the most that each request may cost before its
batch is submitted. Ctrl-C leaves the batches at the server; the next run receives them.
"""

import asyncio
import hashlib
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from openai.types import Batch as RemoteBatch

from stages.lib.command import Interrupted, stopping_loop_on_signals
from stages.lib.params import Batch as Settings
from stages.lib.params import Run
from stages.lib.replies.errors import Scope, classify_error
from stages.lib.replies.reading import Answer
from stages.lib.replies.server_message import message_of
from stages.lib.replies.usage import tokens
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.store.reserving import Reserved
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.batches.api import ENDED, BatchApi, NotSubmitted
from stages.lib.teacher.batches.journal import Batch, Item, Journal, prefix
from stages.lib.teacher.batches.lines import request_line
from stages.lib.teacher.batches.progress import BatchProgress
from stages.lib.teacher.batches.receiving import Outcome, Receiver, refusal
from stages.lib.teacher.client import BYTES_A_TOKEN
from stages.lib.teacher.failures import KEPT, CallFailed, Diagnosis, RetryableFailure, TeacherError
from stages.lib.teacher.progress import RunCounts
from stages.lib.teacher.sharing import SharedBudget
from stages.lib.teacher.spending import NO_USAGE, Spending, prompt_bytes

log = logging.getLogger("distillery.asking")

MEGABYTE = 1_000_000
WRITING = hashlib.sha256(b"the journal of batches").hexdigest()  # claimed by the process that writes to it
WRITING_POLL_S = 0.05
OTHER_PROCESS_POLL_S = 5.0  # the longest wait before a look at what another process has received
SLOWER = 1.5  # how much longer each wait is while a batch does not change
LONGEST_POLLS = 10  # the longest wait, in shortest ones
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
        self, job: BatchJob, store: AnswerStore, spending: Spending, counts: RunCounts, failed: dict[str, CallFailed]
    ) -> None:
        self._job = job
        self._store = store
        self._spending = spending
        self._counts = counts
        self._failed = failed
        self._budget = SharedBudget(store, spending, job.section, lambda key: prefix(key) in self._missing)
        self._journal = Journal(store.path)
        self._diagnosis = Diagnosis(job.endpoint, job.section, job.model, job.run, counts.from_store)
        self._max_requests = job.settings.max_requests
        self._wait_s = job.settings.poll_s
        self._missing: set[int] = set()  # the prefixes of the keys that the run needs
        self._again: deque[Item] = deque()  # to be submitted before new ones
        self._elsewhere: list[Item] = []  # another process is asking for them
        self._open: dict[str, Batch] = {}  # those that this process works on, by token
        self._unsettled: dict[str, set[str]] = {}  # their keys without an outcome
        self._foreign: dict[str, set[int]] = {}  # the keys of those that another process works on
        self._ignored: set[str] = set()  # the tokens of those that this run does not need
        self._states: dict[str, RemoteBatch] = {}
        self._error: TeacherError | None = None

    async def run(self, requests: Requests) -> None:
        """Ask until no answer is missing, or an error ends the run."""
        job = self._job
        if not self._spending.can_estimate:
            raise TeacherError(
                f"{job.stage}: run.budget cannot be kept, because the cost of a batch is not known before it ends. Set "
                f"{job.section}.max_tokens, or receive some answers first, as with 'make preview'."
            )
        self._api = BatchApi(job.endpoint, job.run, self._diagnosis)
        self._receiver = Receiver(self._api, self._diagnosis, self._journal, self._store)
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
            for batch in self._open.values():
                self._store.release(batch.claim_key)
            await self._api.close()
        counts = self._counts
        counts.from_store = counts.total - counts.bought - counts.failed  # another process may have helped

    async def _work(self, requests: Requests) -> None:
        keys = (request_key(request) for request in requests())
        self._missing = {prefix(key) for key in keys if key not in self._store}
        self._items = self._needed(requests)
        await self._adopt()
        while True:
            await self._submit_what_fits()
            if not (self._open or self._again or self._elsewhere):
                return
            await self._pause()
            await self._look()
            if self._error:
                raise self._error
            await self._take_over()

    def _needed(self, requests: Requests) -> Iterator[Item]:
        """Each request that is missing, once."""
        seen: set[int] = set()
        for request in requests():
            key = request_key(request)
            if prefix(key) not in seen and key not in self._store:
                seen.add(prefix(key))
                yield Item(key, request)

    # ---- batches that are open already ----

    async def _adopt(self) -> None:
        """Take over the open batches that no living process works on; learn which requests the others have."""
        open_ = {
            batch.token: batch for batch in self._journal.batches() if batch.endpoint == self._job.endpoint.base_url
        }
        self._foreign = {token: keys for token, keys in self._foreign.items() if token in open_}
        for token, batch in open_.items():
            if token in self._open or token in self._ignored:
                continue
            if not self._store.claim(batch.claim_key):
                self._foreign.setdefault(token, self._journal.prefixes(batch, self._store))
            elif (found := self._journal.entry(token)) is None:  # closed just now
                self._store.release(batch.claim_key)
            else:
                self._foreign.pop(token, None)
                await self._resume(found)

    async def _resume(self, batch: Batch) -> None:
        """Go on with a batch of an earlier run; one that this run does not need is only received, if it has ended."""
        items = [item for item in self._journal.items(batch) if item.key not in self._store]
        needed = any(prefix(item.key) in self._missing for item in items)
        if not needed and batch.batch_id:
            remote = await self._api.look(batch)
            needed = remote.status in ENDED
        if not needed:
            log.info(
                "%s: %s, with %s that this run does not need, goes on at the server; 'make batches' shows it",
                self._job.stage,
                batch.name,
                batch.size,
            )
            self._ignored.add(batch.token)
            return self._store.release(batch.claim_key)
        for item in items:
            self._spending.begin(item.key, item.request)
        self._open[batch.token] = batch
        self._unsettled[batch.token] = {item.key for item in items}
        batch = await self._bring(batch)
        log.info("%s: going on with %s, %s", self._job.stage, batch.name, batch.size)

    async def _take_over(self) -> None:
        """Drop what other processes have received; submit what they will not."""
        if not (self._elsewhere or self._foreign):
            return
        self._store.refresh()
        await self._adopt()
        waiting, self._elsewhere = self._elsewhere, []
        for item in waiting:
            if item.key in self._store or item.key in self._failed:
                continue
            free = not self._is_foreign(item.key) and self._is_free(item.key)
            (self._again if free else self._elsewhere).append(item)

    def _is_foreign(self, key: str) -> bool:
        return any(prefix(key) in keys for keys in self._foreign.values())

    def _is_ours(self, key: str) -> bool:
        return any(key in keys for keys in self._unsettled.values())

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
        settings = self._job.settings
        items: list[Item] = []
        size, queued = 0, sum(batch.prompt_tokens for batch in self._open.values())
        while len(items) < self._max_requests and (item := self._next()):
            length, waiting = len(request_line(item.key, item.request)), _prompt_tokens(item.request)
            fits = not items or size + length <= settings.max_mb * MEGABYTE
            alone = not items and not self._open
            fits = fits and (settings.enqueued_tokens is None or queued + waiting <= settings.enqueued_tokens or alone)
            if not fits or not self._spending.has_room(item.request, elsewhere):
                self._again.appendleft(item)
                if alone and not elsewhere.calls:  # only the budget has no room
                    raise self._over_budget(item)
                break
            self._spending.begin(item.key, item.request)
            items.append(item)
            size, queued = size + length, queued + waiting
        return items

    def _next(self) -> Item | None:
        """A request that is in no batch."""
        if self._again:
            return self._again.popleft()
        for item in self._items:
            if self._is_ours(item.key):
                continue
            if not self._is_foreign(item.key):
                return item
            self._elsewhere.append(item)
        return None

    def _over_budget(self, item: Item) -> TeacherError:
        counts, currency = self._counts, self._job.run.currency
        text = self._spending.budget_message(item.request, currency, counts.total, counts.done)
        return TeacherError(f"{self._job.stage}: {text}")

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
        if written:
            written = await self._bring(written)
            log.info("%s: submitted %s with %s", job.stage, written.name, written.size)

    def _written(self, batch: Batch, items: list[Item]) -> Batch | None:
        """Write a batch into the journal, without what other processes ask for; None where nothing is left.

        A process that asks by single calls claims a request and then reads the journal, this one writes the journal and
        then looks at the claims: at least one of them sees the other.
        """
        known = {*self._open, *self._foreign, *self._ignored}
        late = [each for each in self._journal.batches() if each.token not in known]
        held = {key for each in late for key in self._journal.prefixes(each, self._store)}
        kept = self._without(items, lambda item: prefix(item.key) in held)
        while kept:
            batch = batch.model_copy(update={"requests": len(kept)})
            self._store.claim(batch.claim_key)
            self._journal.add(batch, kept)
            free = self._without(kept, lambda item: not self._is_free(item.key))
            if len(free) == len(kept):
                self._open[batch.token] = batch
                self._unsettled[batch.token] = {item.key for item in kept}
                return batch
            kept = free
        self._journal.close(batch)
        self._store.release(batch.claim_key)
        return None

    def _without(self, items: list[Item], is_elsewhere: Callable[[Item], bool]) -> list[Item]:
        """Set aside what another process asks for."""
        kept: list[Item] = []
        for item in items:
            if is_elsewhere(item):
                self._spending.end(item.key, None)
                self._elsewhere.append(item)
            else:
                kept.append(item)
        return kept

    async def _bring(self, batch: Batch) -> Batch:
        """Upload and submit what is not there yet; each step is written down."""
        may_be_there = batch.file_id is not None
        try:
            if batch.file_id is None:
                path = self._journal.scratch_path(batch, "upload")
                with path.open("wb") as file:
                    file.writelines(request_line(item.key, item.request) for item in self._journal.items(batch))
                file_id = await self._api.upload(path, f"distillery-{batch.stage}-{batch.token}")
                path.unlink()
                batch = self._saved(batch, file_id=file_id)
            if batch.batch_id is None:
                batch_id = await self._api.submit(batch, self._job.settings, find_first=may_be_there)
                batch = self._saved(batch, batch_id=batch_id)
        except NotSubmitted:
            self._close(batch)
            raise
        return batch

    def _saved(self, batch: Batch, **changes: str) -> Batch:
        batch = batch.model_copy(update=changes)
        self._journal.save(batch)
        self._open[batch.token] = batch
        return batch

    # ---- waiting and receiving ----

    async def _pause(self) -> None:
        wait_s = min(self._wait_s, OTHER_PROCESS_POLL_S) if self._elsewhere else self._wait_s
        self._progress.waiting(list(self._states.values()), len(self._open), wait_s)
        await asyncio.sleep(wait_s)

    async def _look(self) -> None:
        """Look at every batch and receive those that have ended; wait longer where nothing changes."""
        changed = False
        for batch in list(self._open.values()):
            remote = await self._api.look(batch)
            before = self._states.get(batch.token)
            changed |= before is None or (before.status, before.request_counts) != (
                remote.status,
                remote.request_counts,
            )
            self._states[batch.token] = remote
            if remote.status in ENDED:
                await self._receive(batch, remote)
        shortest_s = self._job.settings.poll_s
        self._wait_s = shortest_s if changed else min(SLOWER * self._wait_s, LONGEST_POLLS * shortest_s)

    async def _receive(self, batch: Batch, remote: RemoteBatch) -> None:
        received = await self._receiver.receive(batch, remote, lambda item, outcome: self._settle(batch, item, outcome))
        log.info("%s: %s %s: %s", self._job.stage, batch.name, remote.status, received.text())
        self._close(batch)
        self._budget.state()
        if remote.status == "failed":
            await self._refused(batch, remote)
        elif remote.status == "cancelled":
            self._error = self._error or TeacherError(
                f"{self._job.stage}: {batch.name} was cancelled; {received.answers} of its {batch.requests} answers "
                f"were received and are kept. Run the stage again to submit the others."
            )
        self._error = self._error or received.error

    def _settle(self, batch: Batch, item: Item, outcome: Outcome) -> None:
        """Count the outcome of a request; plan it for the next batch where that may help."""
        self._unsettled[batch.token].discard(item.key)
        self._spending.end(item.key, outcome if isinstance(outcome, Answer) else None)
        if prefix(item.key) not in self._missing:
            return
        if isinstance(outcome, Answer):
            self._counts.bought += 1
            self._counts.tokens += tokens(outcome.usage).completion
            self._counts.cost += self._spending.cost(outcome)
            if self._spending.lacks_usage(outcome):
                self._error = self._error or TeacherError(f"{self._job.stage}: {NO_USAGE}")
        elif isinstance(outcome, RetryableFailure) and item.attempt < self._job.run.max_attempts:
            self._again.append(replace(item, attempt=item.attempt + 1))
        else:
            self._failed[item.key] = outcome
            self._counts.failed += 1

    async def _refused(self, batch: Batch, remote: RemoteBatch) -> None:
        """A batch that the server did not accept: smaller ones where its queue is full, else the end of the run."""
        message = message_of(refusal(remote))
        found = classify_error(400, message)
        queue_full = QUEUE_FULL in message.codes
        if (queue_full or found.scope is Scope.TRANSIENT) and self._again:
            self._max_requests = max(1, batch.requests // 2) if queue_full and not self._open else self._max_requests
            return await asyncio.sleep(self._job.settings.poll_s)
        advice = "Run the stage again when that is fixed"
        if queue_full:
            advice = f"Set enqueued_tokens in run.batch below the limit of the account for {batch.model}"
        text = self._diagnosis.without_key(message.text).rstrip(".。")
        self._error = TeacherError(
            f"{self._job.stage}: {batch.name}: the server refuses the batch of {batch.size}: {text}. {advice}; {KEPT}"
        )

    def _close(self, batch: Batch) -> None:
        """Forget a batch: all its requests have an outcome, or it was never submitted."""
        self._journal.close(batch)
        del self._open[batch.token]
        self._states.pop(batch.token, None)
        for key in self._unsettled.pop(batch.token):  # another process stored it meanwhile
            self._spending.end(key, None)
        self._store.release(batch.claim_key)

    # ---- the end ----

    def _left(self) -> str:
        """What is left, and what a person can do about it."""
        batches = list(self._open.values())
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
