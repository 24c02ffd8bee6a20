"""Bring the result of an ended batch into the store, line by line.

A line is one of these:

    an answer              stored under the key of its request, as an answer to a single call is
    an error               a failure of that request: classified as the error of a single call
    not to be read         half a line, an answer to nobody: kept beside the store (unread.py), for it may be paid for
    missing                a request of an expired, cancelled or failed batch, or one that the server forgot

So every request of the batch ends as an answer or as a ``CallFailed``. A batch that was received in part, before the
process was killed, is received again: what is stored is skipped.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import orjson
from openai.types import Batch as RemoteBatch

from stages.lib.replies.reading import SERVER_ERROR, Answer, BodyError, read_body
from stages.lib.replies.server_message import message_of
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.batches.api import BatchApi
from stages.lib.teacher.batches.journal import Batch, Item, Journal
from stages.lib.teacher.batches.lines import OK, Line, result_lines
from stages.lib.teacher.failures import CallFailed, Diagnosis, RetryableFailure, TeacherError

log = logging.getLogger("distillery.asking")

TOGETHER = 256  # answers that are written with one fsync
NO_LINE = {"completed": "no_line", "expired": "batch_expired", "cancelled": "batch_cancelled", "failed": "batch_failed"}
LATER = ("batch_expired", "batch_cancelled", "request_timeout")  # codes of requests that were not executed
UNKNOWN = "unknown_custom_id"

Outcome = Answer | CallFailed
Settle = Callable[[Item, Outcome], None]


@dataclass
class Received:
    """The counts of one batch, and the error that ends the run, where a line has one."""

    answers: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)  # lines that are no outcome of a request
    error: TeacherError | None = None

    def text(self) -> str:
        """``950 answers, 50 batch_expired``."""
        counts = [f"{self.answers} answers", *(f"{count} {reason}" for reason, count in sorted(self.failed.items()))]
        odd = [f"{count} {reason}" for reason, count in sorted(self.odd.items())]
        return ", ".join(counts) + (f"; lines left aside: {', '.join(odd)}" if odd else "")


class Receiver:
    """Receives the batches of one endpoint."""

    def __init__(self, api: BatchApi, diagnosis: Diagnosis, journal: Journal, store: AnswerStore) -> None:
        self._api = api
        self._diagnosis = diagnosis
        self._journal = journal
        self._store = store
        self._said: set[str] = set()

    async def receive(self, batch: Batch, remote: RemoteBatch, settle: Settle) -> Received:
        """Store a batch's answers and ``settle`` each of its requests; the batch stays open."""
        items = {item.key: item for item in self._journal.items(batch)}
        open_keys = {key for key in items if key not in self._store}
        received = Received()
        for kind, file_id in (("output", remote.output_file_id), ("errors", remote.error_file_id)):
            if file_id:
                path = await self._api.download(file_id, self._journal.scratch_path(batch, kind), batch)
                lines = result_lines(path)
                while some := list(islice(lines, TOGETHER)):
                    each = (self._line(line, items, open_keys, received, settle) for line in some)
                    await asyncio.gather(*each)
        for key in sorted(open_keys):
            reason = NO_LINE.get(remote.status, "no_line")
            self._fail(items[key], RetryableFailure(reason, None), received, settle)
        return received

    async def _line(
        self, line: Line | bytes, items: dict[str, Item], open_keys: set[str], received: Received, settle: Settle
    ) -> None:
        if isinstance(line, bytes):
            received.odd["unreadable"] += 1
            self._store.keep_unread("", {}, "not_json", self._without_key(line))
        elif line.key not in items:
            received.odd[UNKNOWN] += 1
            self._store.keep_unread(line.key, {}, UNKNOWN, self._without_key(line.body))
        elif line.key not in open_keys:
            received.odd["already stored"] += 1
        elif line.status == OK:
            open_keys.remove(line.key)
            await self._answer(line, items[line.key], received, settle)
        else:
            open_keys.remove(line.key)
            self._error(line, items[line.key], received, settle)

    async def _answer(self, line: Line, item: Item, received: Received, settle: Settle) -> None:
        try:
            answer = read_body(line.body)
        except BodyError as error:
            if str(error) != SERVER_ERROR or b'"choices"' in line.body:  # an error alone costs nothing
                self._store.keep_unread(item.key, item.request, str(error), self._without_key(line.body))
            self._failure(self._diagnosis.of_body(error, line.body), item, received, settle)
            return
        await self._store.put(item.key, item.request, line.body)
        received.answers += 1
        settle(item, answer)

    def _error(self, line: Line, item: Item, received: Received, settle: Settle) -> None:
        if line.status is None and line.code in LATER:
            failure: CallFailed | TeacherError = RetryableFailure(line.code, None)
        elif line.status is None:
            failure = self._diagnosis.of_status(message_of(line.body).status or 400, line.body, {})
        else:
            failure = self._diagnosis.of_status(line.status, line.body, {})
        self._failure(failure, item, received, settle)

    def _failure(self, failure: CallFailed | TeacherError, item: Item, received: Received, settle: Settle) -> None:
        if isinstance(failure, TeacherError):  # no credit, a wrong key: the run ends when all lines are stored
            received.error = received.error or failure
            failure = RetryableFailure("not_executed", None)
        self._fail(item, failure, received, settle)

    def _fail(self, item: Item, failure: CallFailed, received: Received, settle: Settle) -> None:
        received.failed[failure.reason] += 1
        failure.attempts = item.attempt
        if failure.message and failure.reason not in self._said:
            self._said.add(failure.reason)
            log.warning("batch: %s: %s", failure.reason, failure.message)
        settle(item, failure)

    def _without_key(self, body: bytes) -> bytes:
        text = self._diagnosis.without_key(body.decode("utf-8", errors="surrogateescape"))
        return text.encode("utf-8", errors="surrogateescape")


def refusal(remote: RemoteBatch) -> bytes:
    """Why a batch failed as a whole, as an error body: the first error of its validation."""
    errors = (remote.errors and remote.errors.data) or []
    first = errors[0] if errors else None
    line = f"line {first.line}: " if first and first.line else ""
    message = f"{line}{(first and first.message) or 'no reason was given'}"
    return orjson.dumps({"error": {"message": message, "code": (first and first.code) or ""}})
