"""The store of received answers: append-only, outside the DVC outs, so that no answer is paid for twice.

One JSON object a line; the key is a hash of all that shaped the answer:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

A record is on the disk (fsync) before its answer counts as received. One process writes at a time: another waits.
A last line without its end (the writer was killed) is cut off when the next writer opens the store.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from stages.lib.command import DistilleryError, project_root

log = logging.getLogger("distillery.store")

RECORD_BEGINS = b'{"key":"'


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
    """The store, locked for writing until the block ends."""
    if path.exists() and not path.is_file():  # a device such as /dev/full would be read without end
        raise StoreError(f"{path}: the store is a file of its own, this is none. Name another with --store.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as lock:
        _lock(lock.fileno(), path)
        with path.open("ab+") as file:
            _cut_torn_tail(file, path)
        # writing has no buffer: what does not fit on the disk is known at once
        with path.open("ab", buffering=0) as writer, path.open("rb") as reader:
            yield AnswerStore(reader, writer, path)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("store: another run writes to %s; waiting for it, its answers will serve here too", path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _cut_torn_tail(file: BinaryIO, path: Path) -> None:
    """Cut a last line that was not written to its end. Only ever called under the writer's lock."""
    size = file.seek(0, os.SEEK_END)
    position = size
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < size:
        file.seek(position)
        if _is_record(file.read()):  # whole but for its line end
            file.write(b"\n")
            return
        file.seek(position)
        if not RECORD_BEGINS.startswith(file.read(len(RECORD_BEGINS))):
            raise StoreError(f"{path}: its last line is none of the store's. Name the store's own file with --store.")
        log.info("store: cut %d bytes of an unfinished record off %s", size - position, path)
        file.truncate(position)


def _is_record(line: bytes) -> bool:
    try:
        return "body" in orjson.loads(line)
    except (orjson.JSONDecodeError, TypeError):
        return False


class AnswerStore:
    """Received bodies by key. Bodies stay on the disk; memory holds a key and an offset each."""

    def __init__(self, reader: BinaryIO, writer: FileIO, path: Path) -> None:
        self._reader = reader
        self._writer = writer
        self._path = path
        self._offsets: dict[bytes, int] = {}
        self._syncing: asyncio.Future[None] | None = None
        self._index()

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def body(self, key: str) -> bytes:
        """The raw body received for a key; KeyError where there is none."""
        self._reader.seek(self._offsets[bytes.fromhex(key)])
        record = orjson.loads(self._reader.readline())
        return str(record["body"]).encode()

    async def put(self, key: str, request: dict[str, Any], body: bytes) -> None:
        """Append one answer and return when it is on the disk; answers that come together share one fsync.

        Raises StoreError where it cannot be written (a full disk).
        """
        record = {"key": key, "request": request, "body": body.decode("utf-8", errors="replace")}
        self._offsets[bytes.fromhex(key)] = self._append(orjson.dumps(record) + b"\n")
        if self._syncing is None:
            self._syncing = asyncio.ensure_future(self._sync())
        await asyncio.shield(self._syncing)

    async def _sync(self) -> None:
        await asyncio.sleep(0)  # let the answers that are ready now join this group
        self._syncing = None
        try:
            await asyncio.to_thread(os.fsync, self._writer.fileno())
        except OSError as error:
            raise self._not_written(error) from error

    def _append(self, line: bytes) -> int:
        """Write a whole line or, where that fails, none of it; return the offset where it begins."""
        offset = self._writer.seek(0, os.SEEK_END)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._writer.write(rest) :]
        except OSError as error:
            self._writer.truncate(offset)  # else the next answer would be written on to half of this one
            raise self._not_written(error) from error
        return offset

    def _not_written(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path}: {error.strerror}. What was stored before is kept: make room, then run the stage again."
        )

    def _index(self) -> None:
        self._reader.seek(0)
        offset = 0
        for number, line in enumerate(self._reader, start=1):
            try:
                record = orjson.loads(line)
                self._offsets[bytes.fromhex(record["key"])] = offset
                record["body"]
            except (orjson.JSONDecodeError, KeyError, ValueError, TypeError) as error:
                raise StoreError(
                    f"{self._path}:{number}: not a record of the store. Move that line to another file: "
                    "what stands on the others is kept."
                ) from error
            offset += len(line)
