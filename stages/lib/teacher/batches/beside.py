"""Receive open batches beside single calls: a run without batches may need what an earlier one has submitted.

    beside = Beside(stage, section, run, store, batches, lacks, count)
    async with beside.receiving():     # takes over what no living process works on, and looks at it until the end
        beside.check(key)              # raises the error for which a key's batch cannot be received
        beside.describe()              # ", 10 in batches"

In:   the open batches that have missing answers, or count for the budget of the section
Out:  their answers in the store. What a batch did not answer is free, so that the run asks for it by a call
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from stages.lib.command import DistilleryError
from stages.lib.params import Run
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.batches.journal import Batch, Content, Item, OpenBatches, in_hex, prefix

if TYPE_CHECKING:
    from stages.lib.teacher.batches.receiving import Outcome
    from stages.lib.teacher.batches.worker import BatchWorker, Visit

log = logging.getLogger("distillery.asking")

JOURNAL_POLL_S = 1.0  # between two looks at the journal
POLL_S = 6.0  # between two looks at a batch, and up to ten times as much while it does not change


class Beside:
    """The open batches of one run of single calls; ``lacks`` says whether the answer to a key was missing.

    ``count`` is called with the key of each answer that came from a batch.
    """

    def __init__(
        self,
        stage: str,
        section: str,
        run: Run,
        store: AnswerStore,
        batches: OpenBatches,
        lacks: Callable[[str], bool],
        count: Callable[[str], None],
    ) -> None:
        self._stage = stage
        self._section = section
        self._run = run
        self._store = store
        self._batches = batches
        self._lacks = lacks
        self._count = count
        self._worker: BatchWorker | None = None
        self._ending = asyncio.Event()
        self._needed: dict[str, int] = {}  # how many missing answers each batch has, by its token
        self._errors: dict[str, tuple[Content, DistilleryError]] = {}  # by the token of the batch

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Receive as long as the block lasts."""
        self._task = asyncio.create_task(self._receive())
        try:
            yield
        finally:
            self._ending.set()  # what is being received is received, so that its batch is closed
            await asyncio.wait([self._task], timeout=self._run.grace_s)
            self._task.cancel()
            await asyncio.wait([self._task])
            if self._worker:
                await self._worker.close()
            if not self._task.cancelled():
                self._task.result()

    def check(self, key: str | None = None) -> None:
        """Raise the error for which the batch of a key, or any batch, cannot be received."""
        if self._task.done():
            self._task.result()
        for content, error in self._errors.values():
            if key is None or prefix(key) in content.prefixes:
                raise error

    def describe(self) -> str:
        """``, 10 in batches``: the requests of this run in open batches; nothing where there are none."""
        waiting = sum(self._needed.get(batch.token, 0) for batch in self._batches.batches()) if self._needed else 0
        return f", {waiting} in batches" if waiting else ""

    async def _receive(self) -> None:
        while not self._ending.is_set():
            for batch in self._batches.batches():
                await self._take_over(batch)
            if self._worker:
                async for visit in self._worker.visits(self._settle):
                    self._consider(visit)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), JOURNAL_POLL_S)

    async def _take_over(self, batch: Batch) -> None:
        """Take over a batch that no living process works on, if it has to do with this run."""
        if batch.token not in self._needed:
            keys = map(in_hex, self._batches.content(batch).prefixes)
            self._needed[batch.token] = needed = sum(map(self._lacks, keys))
            if needed:
                log.info(
                    "%s: %d of the missing answers are in %s, at the server, and are received when it has ended. "
                    "'make batches CANCEL=%s' ends it; the run then asks for the rest",
                    self._stage,
                    needed,
                    batch.name,
                    batch.name,
                )
        concerns = self._needed[batch.token] or batch.section == self._section
        if concerns and batch.token not in self._errors:
            if self._worker is None:
                self._worker = await asyncio.to_thread(self._new_worker)  # its import takes a second
            if self._worker.take_over(batch):
                self._consider(await self._worker.visit(batch.token, self._settle))

    def _new_worker(self) -> "BatchWorker":
        from stages.lib.teacher.batches.worker import BatchWorker

        return BatchWorker(self._store, self._batches, self._run, POLL_S)

    def _settle(self, item: Item, outcome: "Outcome") -> None:
        """Count an answer; what has failed is asked for by a call."""
        if item.key in self._store:
            self._count(self._store.renamed_key(item.request) or item.key)

    def _consider(self, visit: "Visit") -> None:
        batch = visit.batch
        if visit.error and self._worker:
            log.warning("%s: %s: %s", self._stage, batch.name, visit.error)
            self._errors[batch.token] = self._batches.content(batch), visit.error
            self._worker.leave(batch)
        elif visit.remote and visit.received:
            log.info("%s: %s %s: %s", self._stage, batch.name, visit.remote.status, visit.received.text())
