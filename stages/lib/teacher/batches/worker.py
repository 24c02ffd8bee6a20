"""What a process does with open batches: take one over, look at it, receive it when it has ended.

    worker = BatchWorker(store, batches, run, poll_s)
    if worker.take_over(batch):                            # no living process works on it
        visit = await worker.visit(batch.token, settle)    # settle(item, outcome) for each request if it has ended
    await worker.close()                                   # what has not ended is left to the next process

A run that asks in batches does so (running.py), one that asks by single calls (beside.py), and ``make batches``.
"""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from openai.types import Batch as RemoteBatch

from stages.lib.command import DistilleryError
from stages.lib.params import Run
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.backends.openai_compatible import endpoint_at
from stages.lib.teacher.batches.api import ENDED, BatchApi
from stages.lib.teacher.batches.journal import Batch, OpenBatches
from stages.lib.teacher.batches.receiving import Received, Receiver, Settle
from stages.lib.teacher.failures import Diagnosis

log = logging.getLogger("distillery.asking")

SLOWER = 1.5  # how much longer each wait is while a batch does not change
LONGEST_POLLS = 10  # the longest wait, in shortest ones


@dataclass(frozen=True)
class Visit:
    """What a look at a batch found: its state at the server, what was received where it has ended, or an error.

    All are None where it was never submitted, so that nobody need wait for it.
    """

    batch: Batch
    remote: RemoteBatch | None = None
    received: Received | None = None
    error: DistilleryError | None = None


class BatchWorker:
    """The batches that this process works on, in ``held`` by their tokens, and ``states`` as the servers had them last.

    ``poll_s`` is the shortest wait between two looks. ``stored`` is how many of a run's answers the store had.
    """

    def __init__(self, store: AnswerStore, batches: OpenBatches, run: Run, poll_s: float, stored: int = 0) -> None:
        self.held: dict[str, Batch] = {}
        self.states: dict[str, RemoteBatch] = {}
        self._wait_s = poll_s
        self._next_look = monotonic() + poll_s
        self._store = store
        self.journal = batches.journal
        self._run = run
        self._poll_s = poll_s
        self._stored = stored
        self._servers: dict[tuple[str, ...], tuple[BatchApi, Receiver]] = {}

    async def close(self) -> None:
        """Leave the batches to the next process."""
        for batch in list(self.held.values()):
            self.leave(batch)
        for api, _ in self._servers.values():
            await api.close()

    def take_over(self, batch: Batch) -> bool:
        """Claim a batch; False where another process works on it, or has closed it."""
        if not self._store.claim(batch.claim_key):
            return False
        now = self.journal.entry(batch.token)  # its process may have got further since the journal was listed
        if now is None:
            self._store.release(batch.claim_key)
            return False
        self.held[batch.token] = now
        return True

    def hold(self, batch: Batch) -> None:
        """Work on a new batch, which is claimed."""
        self.held[batch.token] = batch
        self._wait_s = self._poll_s

    def leave(self, batch: Batch) -> None:
        """Leave a batch to another process."""
        self.held.pop(batch.token, None)
        self.states.pop(batch.token, None)
        self._store.release(batch.claim_key)

    def api(self, batch: Batch) -> BatchApi:
        """The batch API that a batch was submitted to."""
        return self._server(batch)[0]

    async def visit(self, token: str, settle: Settle) -> Visit:
        """Look at a batch that this process works on; where it has ended, its answers are stored and it is closed.

        One that was being submitted is looked for, and closed if it is not there.
        """
        batch = self.held[token]
        try:
            api, receiver = self._server(batch)
            if batch.batch_id is None:
                found = await api.find(batch) if batch.file_id else None
                if found is None:
                    log.info("%s: %s was never submitted; its requests are free", batch.stage, batch.name)
                    self.forget(batch)
                    return Visit(batch)
                batch = self.save(batch, batch_id=found)
            remote = await api.look(batch)
            if remote.status not in ENDED:
                self.states[token] = remote
                return Visit(batch, remote)
            received = await receiver.receive(batch, remote, settle)
        except DistilleryError as error:
            return Visit(batch, error=error)
        self.forget(batch)
        return Visit(batch, remote, received)

    async def visits(self, settle: Settle) -> AsyncIterator[Visit]:
        """Visit all that are held when it is time to; the waits get longer while nothing changes."""
        if self.due_in_s > 0:
            return
        changed = False
        for token in list(self.held):
            before = _progress(self.states.get(token))
            visit = await self.visit(token, settle)
            changed |= before != _progress(visit.remote)
            yield visit
        self._wait_s = self._poll_s if changed else min(SLOWER * self._wait_s, LONGEST_POLLS * self._poll_s)
        self._next_look = monotonic() + self._wait_s

    @property
    def due_in_s(self) -> float:
        """How long until it is time for the next look."""
        return max(0.0, self._next_look - monotonic())

    def save(self, batch: Batch, **changes: str) -> Batch:
        """Write down a step of a batch."""
        batch = batch.model_copy(update=changes)
        self.journal.save(batch)
        self.held[batch.token] = batch
        return batch

    def forget(self, batch: Batch) -> None:
        """Close a batch: its answers are in the store, or it was never submitted."""
        self.journal.close(batch)
        self.leave(batch)

    def _server(self, batch: Batch) -> tuple[BatchApi, Receiver]:
        name = (batch.endpoint, batch.key_variable, batch.section, batch.model)
        if name not in self._servers:
            endpoint = endpoint_at(batch.endpoint, batch.key_variable)
            diagnosis = Diagnosis(endpoint, batch.section, batch.model, self._run, self._stored)
            api = BatchApi(endpoint, self._run, diagnosis)
            self._servers[name] = api, Receiver(api, diagnosis, self._run, self.journal, self._store)
        return self._servers[name]


def _progress(remote: RemoteBatch | None) -> tuple[Any, Any] | None:
    """What changes while a batch goes on."""
    return (remote.status, remote.request_counts) if remote else None
