"""The store of received answers: append-only and not a DVC output, so that no answer is paid for twice.

One JSON object per line (answer_file.py); the key is a hash of everything that shaped the answer:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

The record of an answer of one of several servers (run.endpoints) names it too, as ``served_by``, before the body.

A record is on the disk (fsync) before its answer counts as received. Several processes may share one store. Next to it
are their locks, and the received bodies that hold no answer:

    answers.lock            held while a group of records is written, or an incomplete last line is removed
    answers.claims          one byte per key, locked by the process that is asking for it (claims.py)
    answers.unread.jsonl    bodies without an answer (unread.py)
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from stages.lib.command import LocksError, main_worktree, project_root
from stages.lib.store.answer_file import RECORD_BEGINS, AnswerFile, StoreError, parse, whole_end
from stages.lib.store.claims import Claims
from stages.lib.store.unread import keep_unread, unread_path

__all__ = ["AnswerStore", "StoreError", "default_path", "open_store", "request_key"]

log = logging.getLogger("distillery.store")

STORE = Path("data/store/answers.jsonl")
NOTICE_AFTER_S = 1.0  # wait for another process before a line says so


def default_path() -> Path:
    """``data/store/answers.jsonl``, the same for every workspace of ``dvc exp run`` and every git worktree."""
    own, shared = (root / STORE for root in (project_root(), main_worktree(project_root())))
    if own.is_file() and not (shared.is_file() and own.samefile(shared)):
        log.info("store: all worktrees use %s; 'make store-import FILE=%s' adds this worktree's answers", shared, own)
    return shared


def request_key(request: dict[str, Any]) -> str:
    """A hash of the request (endpoint, model, messages, sampling settings, sample number), independent of key order."""
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


@contextmanager
def open_store(path: Path) -> Iterator["AnswerStore"]:
    """Open the store, which other processes may use at the same time. A process may open it only once."""
    if path.exists() and not path.is_file():  # reading a device such as /dev/full would never end
        raise StoreError(f"{path}: not a file. Name a file for the store with --store.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # no write buffer: a full disk is reported immediately
    with path.open("ab+", buffering=0) as file, path.with_suffix(".lock").open("a") as lock:
        with _locked(lock.fileno(), path):
            _repair(file.fileno(), path)
        store = AnswerStore(path, file.fileno(), lock.fileno())
        try:
            yield store
        finally:
            store.close()


@contextmanager
def _locked(lock: int, path: Path) -> Iterator[None]:
    """Hold the writer's lock: no other process appends or repairs."""
    try:
        _take(lock, path)
    except OSError as error:
        raise LocksError(path, error) from error
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        notice = threading.Timer(NOTICE_AFTER_S, log.info, ["store: another run writes to %s; waiting for it", path])
        notice.start()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            notice.cancel()


def _repair(descriptor: int, path: Path) -> None:
    """Remove an incomplete last line, whose writer was killed. Call this only under the writer's lock."""
    size, end = os.fstat(descriptor).st_size, whole_end(descriptor)
    if size == end:
        return
    tail = os.pread(descriptor, size - end, end)
    try:
        parse(tail)
    except ValueError:
        if not RECORD_BEGINS.startswith(tail[: len(RECORD_BEGINS)]):
            raise StoreError(
                f"{path}: the last line is not a record of the store. Name the store's file with --store."
            ) from None
        log.info("store: removed %d bytes of an incomplete record from %s", len(tail), path)
        os.ftruncate(descriptor, end)
    else:
        os.write(descriptor, b"\n")  # only the line end is missing


class AnswerStore(AnswerFile):
    """Received bodies by key, with methods to add new ones."""

    def __init__(self, path: Path, descriptor: int, lock: int) -> None:
        super().__init__(path, descriptor)
        self._lock = lock
        self._claims = Claims(path.with_suffix(".claims"))
        self._writing = threading.Lock()  # one group of records at a time
        self._waiting: list[bytes] = []
        self._group: asyncio.Task[list[OSError | None]] | None = None  # writes the waiting records

    async def put(self, key: str, request: dict[str, Any], body: bytes, server: str | None = None) -> None:
        """Append one answer and return when it is on the disk. Simultaneous answers share one fsync.

        ``server``: which of several servers of the request's endpoint gave it.

        Raises StoreError where it cannot be written (a full disk). The answer is written even if the caller is
        cancelled, at the latest when the store is closed.
        """
        served_by = {"served_by": server} if server else {}
        record = {"key": key, "request": request, **served_by, "body": body.decode("utf-8", errors="replace")}
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

    def keep_unread(self, key: str, request: dict[str, Any], reason: str, body: bytes) -> None:
        """Keep a received body without an answer in a file next to the store; its key stays unanswered."""
        keep_unread(unread_path(self._path), key, request, reason, body)

    def claim(self, key: str) -> bool:
        """Whether this process may ask for a key now. True: until ``release``, no other caller may.

        False has two reasons: the answer is in the store (``key in store``), or the key is claimed, by another process
        or by this one. In the second case, try again later. A claim ends with its process.
        """
        digest = bytes.fromhex(key)
        if key in self or not self._claims.take(digest):
            return False
        self.refresh()  # the previous owner may have stored the answer and released the key just now
        if key in self:
            self._claims.drop(digest)
            return False
        return True

    def release(self, key: str) -> None:
        """Release a claim: after ``put`` has returned, or when there will be no answer."""
        self._claims.drop(bytes.fromhex(key))

    def close(self) -> None:
        """Write the waiting records (of an interrupted run) and release all claims."""
        try:
            error = next(filter(None, self._write_group()), None)
            if error:
                raise self._not_written(error) from error
        finally:
            self._claims.close()

    def _write_group(self) -> list[OSError | None]:
        """Write the waiting records with one fsync; return for each the error, or None."""
        with self._writing:
            with self._reading:
                lines, self._waiting, self._group = self._waiting, [], None
            if not lines:
                return []
            try:
                return self._append_group(lines)
            except LocksError as error:
                raise StoreError(f"{error} {self._rescued(lines)}") from error

    def _append_group(self, lines: list[bytes]) -> list[OSError | None]:
        with _locked(self._lock, self._path):
            with self._reading:
                self._check_not_replaced(lines)
                _repair(self._descriptor, self._path)
                errors = [self._append(line) for line in lines]
                self.refresh()
            os.fsync(self._descriptor)
        return errors

    def _check_not_replaced(self, lines: list[bytes]) -> None:
        """StoreError where the file was replaced, as by an editor that saved it: new records would be lost."""
        if not self._path.exists() or not os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
            raise StoreError(f"{self._path}: the file was replaced while it was in use. {self._rescued(lines)}")

    def _rescued(self, lines: list[bytes]) -> str:
        """Write the records to a file next to the store; return a text that says how to import them."""
        rescued = self._path.with_name(f"{self._path.stem}.rescued.{os.getpid()}.jsonl")
        with rescued.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        return (
            f"Answers received since then are in {rescued}. Add them with 'make store-import FILE={rescued}', then run "
            "the stage again."
        )

    def _append(self, line: bytes) -> OSError | None:
        """Write a whole line or, where that fails, nothing: the next line must not follow a part of this one."""
        end = os.fstat(self._descriptor).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            return error
        return None

    def _not_written(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path}: {error.strerror}. Stored answers are kept. Free disk space, then run the stage again."
        )
