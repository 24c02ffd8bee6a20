"""The store of received answers: append-only, outside the DVC outs, so that no answer is paid for twice.

One JSON object a line; the key is a hash of all that shaped the answer:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

A record is on the disk (fsync) before its answer counts as received. Several processes share one store; the locks lie
beside it:

    answers.jsonl     a line that has its end is never changed again, so it is read without a lock
    answers.lock      held while a group of records is written; under it alone, a torn last line is cut off
    answers.claims    one byte a key, locked by the process that is asking for it (claims.py)

Where a key stands twice, the first answer counts: the rows that were made from it stay reproducible.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import threading
from binascii import unhexlify
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from stages.lib.command import DistilleryError, project_root
from stages.lib.teacher.claims import Claims
from stages.lib.teacher.index import Index

log = logging.getLogger("distillery.store")

RECORD_BEGINS = b'{"key":"'
KEY_ENDS = b'","request":'
HEAD = len(RECORD_BEGINS) + 64 + len(KEY_ENDS)
BLOCK = 65536  # bytes in one step backwards, in search of the last line's end
LINE = 8192  # bytes that a record is first read with: most are shorter
SILENT_S = 1.0  # how long another process is waited for before a line says so


class StoreError(DistilleryError):
    """The store cannot be read or written."""


def default_path() -> Path:
    """``data/store/answers.jsonl`` of the project, the same for every workspace of ``dvc exp run``."""
    return project_root() / "data" / "store" / "answers.jsonl"


def request_key(request: dict[str, Any]) -> str:
    """A hash of the request (endpoint, model, messages, sampling values, sample number); order does not matter."""
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


@contextmanager
def open_store(path: Path) -> Iterator["AnswerStore"]:
    """The store, which other processes may use at the same time; a process opens it once."""
    if path.exists() and not path.is_file():  # a device such as /dev/full would be read without end
        raise StoreError(f"{path}: the store is a file of its own, this is none. Name another with --store.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # writing has no buffer: what does not fit on the disk is known at once
    with path.open("ab+", buffering=0) as file, path.with_suffix(".lock").open("a") as lock:
        store = AnswerStore(path, file.fileno(), lock.fileno())
        try:
            yield store
        finally:
            store.close()


def whole_lines(descriptor: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their offsets, up to the last one that has its end now; ``start`` begins a line."""
    end = _whole_end(descriptor)
    with open(descriptor, "rb", buffering=4 * BLOCK, closefd=False) as reader:
        reader.seek(start)
        while start < end:
            line = reader.readline()
            yield start, line
            start += len(line)


def key_of(line: bytes) -> bytes:
    """The key of a record; ValueError where the line is none. The store's own layout is not parsed for it."""
    key = _head_key(line) if line.endswith(b'"}\n') else None
    return key or parse(line)[0]


def parse(line: bytes) -> tuple[bytes, str]:
    """Key and body of a record; ValueError where the line is none."""
    try:
        record = orjson.loads(line)
        key, body = bytes.fromhex(record["key"]), record["body"]
    except (KeyError, TypeError) as error:
        raise ValueError("not a record") from error
    if not isinstance(body, str):
        raise ValueError("not a record")
    return key, body


def _head_key(line: bytes) -> bytes | None:
    if line.startswith(RECORD_BEGINS) and line[HEAD - len(KEY_ENDS) : HEAD] == KEY_ENDS:
        return unhexlify(line[len(RECORD_BEGINS) : HEAD - len(KEY_ENDS)])
    return None


def _whole_end(descriptor: int) -> int:
    """The offset behind the last line end. What stands before it is never changed again."""
    position = os.fstat(descriptor).st_size
    while position > 0:
        start = max(0, position - BLOCK)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


class AnswerStore:
    """Received bodies by key. Bodies stay on the disk; memory holds 16 bytes for each (index.py)."""

    def __init__(self, path: Path, descriptor: int, lock: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = lock
        self._index = Index()
        self._indexed = 0  # the offset up to which the records are in the index
        self._reading = threading.RLock()  # the index and what waits are used by the event loop and a writing thread
        self._writing = threading.Lock()  # one group of records at a time
        self._waiting: list[bytes] = []
        self._group: asyncio.Task[list[OSError | None]] | None = None  # will write what waits
        with self._locked():
            self._repair()
        self.refresh()
        self._claims = Claims(path.with_suffix(".claims"))

    def __contains__(self, key: str) -> bool:
        """Whether an answer is indexed; ``refresh`` indexes those of other processes."""
        digest = bytes.fromhex(key)
        return any(self._key_at(offset) == digest for offset in self._offsets(digest))

    def __len__(self) -> int:
        with self._reading:
            repeated = sum(self._key_at(older) == self._key_at(newer) for older, newer in self._index.neighbours())
            return len(self._index) - repeated

    def body(self, key: str) -> bytes:
        """The raw body received for a key; KeyError where there is none, StoreError where its line is broken."""
        digest = bytes.fromhex(key)
        for offset in self._offsets(digest):
            try:
                found, body = parse(self._line_at(offset))
            except ValueError as error:
                raise self._broken(offset) from error
            if found == digest:
                return body.encode()
        raise KeyError(key)

    async def put(self, key: str, request: dict[str, Any], body: bytes) -> None:
        """Append one answer and return when it is on the disk; answers that come together share one fsync.

        Raises StoreError where it cannot be written (a full disk). What was put is written, at the latest when the
        store is closed, also where the one who waits for it is cancelled.
        """
        record = {"key": key, "request": request, "body": body.decode("utf-8", errors="replace")}
        with self._reading:
            place = len(self._waiting)
            self._waiting.append(orjson.dumps(record) + b"\n")
            if self._group is None or self._group.done():
                self._group = asyncio.create_task(asyncio.to_thread(self._write_group))
            group = self._group
        try:
            error = (await asyncio.shield(group))[place]
        except OSError as of_all:
            error = of_all
        if error:
            raise self._not_written(error) from error

    def claim(self, key: str) -> bool:
        """Whether this process may ask for a key now. True: until ``release``, nobody else may.

        False has two reasons: the answer is in the store (``key in store``), perhaps since a moment; or the key is
        claimed, by another process or by this one: claim it again later. A claim ends with its process.
        """
        digest = bytes.fromhex(key)
        if key in self or not self._claims.take(digest):
            return False
        self.refresh()  # who claimed it before may have put its answer and released it just now
        if key in self:
            self._claims.drop(digest)
            return False
        return True

    def release(self, key: str) -> None:
        """Give a claim back: after ``put`` has returned, or when there will be no answer."""
        self._claims.drop(bytes.fromhex(key))

    def refresh(self) -> int:
        """Index what was appended since, by whomever; return how many records."""
        with self._reading:
            if os.fstat(self._descriptor).st_size == self._indexed:
                return 0
            before = len(self._index)
            for offset, line in whole_lines(self._descriptor, self._indexed):
                try:
                    self._index.add(key_of(line), offset)
                except ValueError as error:
                    raise self._broken(offset) from error
                self._indexed = offset + len(line)
            return len(self._index) - before

    def close(self) -> None:
        """Write what still waits (a run that was interrupted) and give all claims back."""
        try:
            error = next(filter(None, self._write_group()), None)
            if error:
                raise self._not_written(error) from error
        finally:
            self._claims.close()

    def _write_group(self) -> list[OSError | None]:
        """Write what waits, with one fsync; for each record, why it could not be written."""
        with self._writing:
            with self._reading:
                lines, self._waiting, self._group = self._waiting, [], None
            if not lines:
                return []
            with self._locked():
                with self._reading:
                    self._check_place()
                    self._repair()
                    errors = [self._append(line) for line in lines]
                    self.refresh()
                os.fsync(self._descriptor)
            return errors

    def _append(self, line: bytes) -> OSError | None:
        """Write a whole line or, where that fails, none of it: the next one would be written on to half of it."""
        end = os.fstat(self._descriptor).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            return error
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The writer's lock: no other process appends or repairs."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notice = threading.Timer(SILENT_S, self._say_that_it_waits)
            notice.start()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            finally:
                notice.cancel()
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _repair(self) -> None:
        """Cut off a last line that was not written to its end (its writer was killed). Only under the writer's lock."""
        size, end = os.fstat(self._descriptor).st_size, _whole_end(self._descriptor)
        if size == end:
            return
        tail = os.pread(self._descriptor, size - end, end)
        try:
            parse(tail)
        except ValueError:
            if not RECORD_BEGINS.startswith(tail[: len(RECORD_BEGINS)]):
                raise StoreError(
                    f"{self._path}: its last line is none of the store's. Name the store's own file with --store."
                ) from None
            log.info("store: cut %d bytes of an unfinished record off %s", len(tail), self._path)
            os.ftruncate(self._descriptor, end)
        else:
            os.write(self._descriptor, b"\n")  # the record is whole but for its line end

    def _check_place(self) -> None:
        """An editor that saves puts another file in this one's place: what is written to this one would be lost."""
        if not self._path.exists() or not os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
            raise StoreError(f"{self._path}: another file took its place while it was in use. Run the stage again.")

    def _offsets(self, digest: bytes) -> list[int]:
        with self._reading:
            return self._index.offsets(digest)

    def _key_at(self, offset: int) -> bytes:
        try:
            return _head_key(os.pread(self._descriptor, HEAD, offset)) or key_of(self._line_at(offset))
        except ValueError as error:
            raise self._broken(offset) from error

    def _line_at(self, offset: int) -> bytes:
        size = LINE
        block = os.pread(self._descriptor, size, offset)
        while b"\n" not in block and len(block) == size:
            size *= 4
            block = os.pread(self._descriptor, size, offset)
        return block[: block.find(b"\n") + 1]

    def _say_that_it_waits(self) -> None:
        log.info("store: another run writes to %s; waiting for it", self._path)

    def _broken(self, offset: int) -> StoreError:
        number = 1 + sum(start < offset for start, _ in whole_lines(self._descriptor))
        return StoreError(
            f"{self._path}:{number}: not a record of the store. Move that line to another file: "
            "what stands on the others is kept."
        )

    def _not_written(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path}: {error.strerror}. What was stored before is kept: make room, then run the stage again."
        )
