"""Bring the result of an ended batch into the store, line by line.

A line is one of these:

    an answer              stored under the key of its request, as an answer to a single call is
    an error               a failure of that request: classified as the error of a single call
    not to be read         half a line, an answer to nobody: kept beside the store (unread.py), for it may be paid for
    missing                a request of an expired, cancelled or failed batch, or one that the server forgot

So every request of the batch ends as an answer or as a ``CallFailed``; an answer counts before an error of the same
request. A batch that was received in part, before the process was killed, is received again: what is stored is skipped.
A file with fewer lines than the server counts is not whole yet, and is downloaded again. Where a completed batch stays
short of lines, what is there is stored, and the batch stays open: what is missing is paid for.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import orjson
from openai.types import Batch as RemoteBatch

from stages.lib.params import Run
from stages.lib.replies.reading import SERVER_ERROR, Answer, BodyError, read_body
from stages.lib.replies.server_message import message_of
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.batches.api import LONGEST_BACKOFF_S, BatchApi
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


@dataclass
class _Intake:
    """A batch that is being received: its requests, the keys of those without an answer, and the failures of lines."""

    items: dict[str, Item]
    open_keys: set[str]
    settle: Settle
    failures: dict[str, CallFailed | TeacherError] = field(default_factory=dict)
    received: Received = field(default_factory=Received)


class Receiver:
    """Receives the batches of one endpoint."""

    def __init__(self, api: BatchApi, diagnosis: Diagnosis, run: Run, journal: Journal, store: AnswerStore) -> None:
        self._api = api
        self._diagnosis = diagnosis
        self._run = run
        self._journal = journal
        self._store = store
        self._said: set[str] = set()

    async def receive(self, batch: Batch, remote: RemoteBatch, settle: Settle) -> Received:
        """Store a batch's answers and ``settle`` each of its requests; the batch stays open.

        Raises TeacherError where a completed batch has fewer lines than the server counts, when these are stored.
        """
        items = {item.key: item for item in self._journal.items(batch)}
        intake = _Intake(items, {key for key in items if key not in self._store}, settle)
        paths, lacking = await self._download(batch, remote, items)
        for path in paths:
            lines = result_lines(path)
            while some := list(islice(lines, TOGETHER)):
                await asyncio.gather(*(self._line(line, intake) for line in some))
        if lacking and remote.status == "completed":
            for path in paths:
                path.unlink(missing_ok=True)
            raise TeacherError(
                f"{batch.name}: completed, but its files lack {lacking} of {_results(remote)} results. Received "
                "answers are stored. Run the stage again later. If the rest never comes: "
                f"'make batches FORGET={batch.name}' has it bought again."
            )
        for key in sorted(intake.open_keys):
            reason = NO_LINE.get(remote.status, "no_line")
            self._fail(items[key], intake.failures.get(key) or RetryableFailure(reason, None), intake)
        return intake.received

    async def _download(self, batch: Batch, remote: RemoteBatch, items: dict[str, Item]) -> tuple[list[Path], int]:
        """The files of a batch that has ended, and how many lines they lack after all attempts.

        They are downloaded again until as many requests have a result as the server counts. After the last attempt a
        line that cannot be read, or is nobody's, counts as a result too: it won't get better.
        """
        wait_s = self._run.backoff_s
        for attempt in range(1, self._run.max_attempts + 1):
            files = {"output": remote.output_file_id, "errors": remote.error_file_id}
            named = [(file_id, self._journal.scratch_path(batch, kind)) for kind, file_id in files.items() if file_id]
            paths = [await self._api.download(file_id, path, batch) for file_id, path in named]
            lines = {line.key if isinstance(line, Line) else line for path in paths for line in result_lines(path)}
            found = len(lines & items.keys())
            if found >= (stated := _results(remote)):
                break
            if attempt == self._run.max_attempts:
                log.warning("batch: %s: the server counts %d results, its files have %d", batch.name, stated, found)
                return paths, max(0, stated - len(lines))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_BACKOFF_S)
            remote = await self._api.look(batch)
        return paths, 0

    async def _line(self, line: Line | bytes, intake: _Intake) -> None:
        odd = intake.received.odd
        if isinstance(line, bytes):
            odd["unreadable"] += 1
            self._store.keep_unread("", {}, "not_json", self._without_key(line))
        elif line.key not in intake.items:
            odd[UNKNOWN] += 1
            self._store.keep_unread(line.key, {}, UNKNOWN, self._without_key(line.body))
        elif line.key not in intake.open_keys:
            odd["already stored"] += 1
        elif line.status == OK:
            await self._answer(line, intake)
        else:
            intake.failures[line.key] = self._error(line)

    async def _answer(self, line: Line, intake: _Intake) -> None:
        item = intake.items[line.key]
        try:
            answer = read_body(line.body)
        except BodyError as error:
            if str(error) != SERVER_ERROR or b'"choices"' in line.body:  # an error alone costs nothing
                self._store.keep_unread(item.key, item.request, str(error), self._without_key(line.body))
            intake.failures[item.key] = self._diagnosis.of_body(error, line.body)
            return
        intake.open_keys.remove(item.key)
        await self._store.put(item.key, item.request, line.body)
        intake.received.answers += 1
        intake.settle(item, answer)

    def _error(self, line: Line) -> CallFailed | TeacherError:
        if line.status is None and line.code in LATER:
            return RetryableFailure(line.code, None)
        return self._diagnosis.of_status(line.status or message_of(line.body).status or 400, line.body, {})

    def _fail(self, item: Item, failure: CallFailed | TeacherError, intake: _Intake) -> None:
        if isinstance(failure, TeacherError):  # no credit, a wrong key: the run ends when all lines are stored
            intake.received.error = intake.received.error or failure
            failure = RetryableFailure("not_executed", None)
        intake.received.failed[failure.reason] += 1
        failure.attempts = item.attempt
        if failure.message and failure.reason not in self._said:
            self._said.add(failure.reason)
            log.warning("batch: %s: %s", failure.reason, failure.message)
        intake.settle(item, failure)

    def _without_key(self, body: bytes) -> bytes:
        text = self._diagnosis.without_key(body.decode("utf-8", errors="surrogateescape"))
        return text.encode("utf-8", errors="surrogateescape")


def refusal(remote: RemoteBatch) -> bytes:
    """Why a batch failed as a whole, as an error body: the first error of its validation."""
    errors = getattr(remote.errors, "data", None) or []
    first = errors[0] if errors else None
    line = f"line {first.line}: " if first and first.line else ""
    stated = first.message if first else remote.errors  # some servers have a text there
    message = f"{line}{stated or 'no reason was given'}"
    return orjson.dumps({"error": {"message": message, "code": (first and first.code) or ""}})


def _results(remote: RemoteBatch) -> int:
    """How many results the server counts."""
    counts = remote.request_counts
    return min(counts.total or 0, (counts.completed or 0) + (counts.failed or 0)) if counts else 0
