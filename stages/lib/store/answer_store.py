"""The store of received answers: append-only and not a DVC output, so that no answer is paid for twice.

One JSON object per line (answer_file.py); the key is a hash of everything that shaped the answer:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

The record of an answer of one of several servers (run.endpoints) names it too, as ``served_by``, before the body.

A record is on the disk (fsync) before its answer counts as received. Several processes may share one store, of one
host or of several. Next to it are their locks, and the received bodies that hold no answer:

    answers.lock            held while a group of records is written, or an incomplete last line is removed
    answers.claims          one byte per key, locked by the process that is asking for it (claims.py)
    answers.unread.jsonl    bodies without an answer (unread.py)
    answers.hosts/          the processes that use the store (hosts.py); files of hosts whose locks do not reach others
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from stages.lib.command import LocksError, main_worktree, project_root
from stages.lib.store.answer_file import OF_A_HOST, AnswerFile, StoreError, hosts_folder, request_key
from stages.lib.store.claims import Claims
from stages.lib.store.hosts import LEASES, Hosts
from stages.lib.store.journal import Journal
from stages.lib.store.leases import Leases
from stages.lib.store.presence import Mode
from stages.lib.store.reserving import Reserving
from stages.lib.store.unread import keep_unread, unread_path

__all__ = ["AnswerStore", "StoreError", "default_path", "open_store", "request_key"]

log = logging.getLogger("distillery.store")

STORE = Path("data/store/answers.jsonl")
GROUP_S = 0.02  # answers that come within it share one lock, one write and one fsync


def default_path() -> Path:
    """``data/store/answers.jsonl``, the same for every workspace of ``dvc exp run`` and every git worktree."""
    own, shared = (root / STORE for root in (project_root(), main_worktree(project_root())))
    if own.is_file() and not (shared.is_file() and own.samefile(shared)):
        log.info("store: all worktrees use %s; 'make store-import FILE=%s' adds this worktree's answers", shared, own)
    return shared


@contextmanager
def open_store(path: Path) -> Iterator["AnswerStore"]:
    """Open the store, which other processes may use at the same time. A process may open it only once."""
    if path.exists() and not path.is_file():  # reading a device such as /dev/full would never end
        raise StoreError(f"{path}: not a file. Name a file for the store with --store.")
    path.parent.mkdir(parents=True, exist_ok=True)
    store = AnswerStore(path)
    try:
        yield store
    finally:
        store.close()


class AnswerStore(AnswerFile):
    """Received bodies by key, with methods to add new ones."""

    def __init__(self, path: Path) -> None:
        self._common = self._journal = Journal(path)  # what is read by all; what this process writes to
        self._claims: Claims | Leases = Claims(path.with_suffix(".claims"))
        self._claiming = threading.RLock()  # a mode is entered in the thread of the heartbeat
        self._held: set[bytes] = set()
        self._writing = threading.RLock()  # one group of records at a time
        self._waiting: list[dict[str, Any]] = []
        self._group: asyncio.Task[list[OSError | None]] | None = None  # writes the waiting records
        self._path = path
        self._own: set[bytes] = set()  # the keys of records that this process writes now
        self._arrived: list[bytes] = []
        self._is_open = False  # what is there at the beginning has not arrived since
        self._hosts = Hosts(path, self._enter)
        self._reserving: Reserving | None = None  # opened at the first turn
        try:
            self._hosts.join()
            with self._journal.locked():
                self._journal.repair()
            super().__init__(path, self._common.descriptor, os.O_RDWR | os.O_APPEND, self.mode != "alone")
            self._is_open = True
        except BaseException:
            self._close_files()
            raise

    @property
    def mode(self) -> Mode:
        """How the processes that use the store share it now (hosts.py)."""
        return self._hosts.presence.mode

    @property
    def hosts(self) -> int:
        """How many hosts use the store now."""
        return self._hosts.count

    @property
    def reserving(self) -> Reserving:
        """What the processes that use the store have reserved of a budget."""
        self._reserving = self._reserving or Reserving(self._hosts)
        return self._reserving

    def take_turn(self) -> bool:
        """Whether this process may reserve now; ``reserving.end_turn`` ends it."""
        with self._claiming:
            return self.reserving.take_turn(self._claims)

    def arrived(self) -> list[str]:
        """The keys of records of other processes that ``refresh`` has found since the last call."""
        with self._reading:
            arrived, self._arrived = self._arrived, []
        return [key.hex() for key in arrived]

    async def put(self, key: str, request: dict[str, Any], body: bytes, server: str | None = None) -> None:
        """Append one answer and return when it is on the disk. Answers that come within GROUP_S share one fsync.

        ``server``: which of several servers of the request's endpoint gave it.

        Raises StoreError where it cannot be written (a full disk). The answer is written even if the caller is
        cancelled, at the latest when the store is closed: until then, keep its claim. A process that ends without
        closing the store (kill -9, a second Ctrl-C) loses what came within GROUP_S, or while a group was being written.
        """
        served_by = {"served_by": server} if server else {}
        record = {"key": key, "request": request, **served_by, "body": body.decode("utf-8", errors="replace")}
        with self._reading:
            place = len(self._waiting)
            self._waiting.append(record)
            self._own.add(bytes.fromhex(key))
            if self._group is None or self._group.done():
                self._group = asyncio.create_task(self._write_soon())
            group = self._group
        try:
            error = (await asyncio.shield(group))[place]
        except OSError as of_all:
            error = of_all
        if error:
            raise self._not_written(error) from error

    def keep_unread(self, key: str, request: dict[str, Any], reason: str, body: bytes) -> None:
        """Keep a received body without an answer in a file next to the store; its key stays unanswered."""
        keep_unread(unread_path(self._journal.path), key, request, reason, body)

    def claim(self, key: str, is_elsewhere: Callable[[str], bool] | None = None) -> bool:
        """Whether this process may ask for a key now. True: until ``release``, no other caller may.

        False has three reasons: the answer is in the store (``key in store``), the key is claimed, by another process
        or by this one, or it ``is_elsewhere``: in what puts its answer into the store before it lets go of it. In the
        second and third case, try again later. A claim ends with its process.
        """
        digest = bytes.fromhex(key)
        self._hosts.check_heartbeat()
        if self.mode == "leases":
            self.refresh()  # cheaper than a lease of what another host has answered
            if key in self:
                return False
        with self._claiming:
            if not (self._hosts.settled and self._claims.take(digest)):
                return False
            self._held.add(digest)
        if not (is_elsewhere and is_elsewhere(key)):
            self.refresh()  # who had the key before may have stored the answer and let go of it just now
            if key not in self:
                return True
        self.release(key)
        return False

    def release(self, key: str) -> None:
        """Release a claim: after ``put`` has returned, or when there will be no answer."""
        digest = bytes.fromhex(key)
        with self._claiming:
            self._held.discard(digest)
            self._claims.drop(digest)

    def close(self) -> None:
        """Write the waiting records (of an interrupted run) and release all claims."""
        try:
            error = next(filter(None, self._write_group()), None)
            if error:
                raise self._not_written(error) from error
        finally:
            self._close_files()
            self.close_parts()

    def read_aliases(self, names: dict[str, str]) -> None:
        """As for a file that is only read; nothing has arrived by that."""
        self._is_open, before = False, self._is_open
        super().read_aliases(names)
        self._is_open = before

    def _added(self, key: bytes) -> None:
        if key in self._own:
            self._own.remove(key)
        elif self._is_open:
            self._arrived.append(key)

    def _close_files(self) -> None:
        self._claims.close()
        if self._reserving:
            self._reserving.close()
        self._hosts.close()
        for journal in {self._journal, self._common}:
            journal.close()

    def _enter(self, mode: Mode) -> None:
        """Share the store in this way from now on (hosts.py)."""
        self.reads_afresh = True
        if mode == "leases":
            with self._claiming:
                self._claims = self._leases()
            with self._writing:
                self._journal = self._own_journal()

    def _leases(self) -> Leases:
        """Leases of the keys that this process has claimed by locks, which it keeps as well until it ends."""
        presence = self._hosts.presence
        leases = Leases(hosts_folder(self._path) / LEASES, presence.path, self._hosts.is_alive)
        for digest in self._held if presence.is_there() else ():
            leases.take(digest)
        return leases

    def _own_journal(self) -> Journal:
        """The file of this host, which no other host writes to."""
        return Journal(hosts_folder(self._path) / f"{self._hosts.presence.host}{OF_A_HOST}")

    async def _write_soon(self) -> list[OSError | None]:
        """Wait for what shares the next group, and write it in a thread."""
        await asyncio.sleep(GROUP_S)
        return await asyncio.to_thread(self._write_group)

    def _write_group(self) -> list[OSError | None]:
        """Write the waiting records with one fsync; return for each the error, or None."""
        if self.mode != "leases" and not self._hosts.presence.is_there():
            self._hosts.look()  # another host took this process for ended, and may write to the common file
        with self._writing:  # not around the look: a mode is entered within one, and takes this lock then
            with self._reading:
                records, self._waiting, self._group = self._waiting, [], None
            if not records:
                return []
            if self._journal is not self._common:
                records = [_dated(record) for record in records]
            lines = [orjson.dumps(record) + b"\n" for record in records]
            try:
                return self._append_group(lines)
            except (LocksError, StoreError) as error:
                raise StoreError(f"{error} {self._journal.rescue(lines)}") from error
            except OSError as error:
                reason = f"{self._journal.path}: {error.strerror}."
                raise StoreError(f"{reason} {self._journal.rescue(lines)}") from error

    def _append_group(self, lines: list[bytes]) -> list[OSError | None]:
        """Append lines; for each the error, or None. After an error that is raised, they may be in the file or not."""
        with self._journal.locked():
            with self._reading:
                if self._journal.is_replaced():
                    raise StoreError(f"{self._journal.path}: the file was replaced while it was in use.")
                self._journal.repair()
                errors = self._journal.append(lines)
            self._journal.sync()  # before the index, which may fail (a full disk under its database)
            self.refresh()
        return errors

    def _not_written(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._journal.path}: {error.strerror}. Stored answers are kept. Free disk space, then run the stage "
            "again."
        )


def _dated(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the time, before its body: of two hosts' answers to one request, the earlier one counts."""
    return {
        **{name: value for name, value in record.items() if name != "body"},
        "at": time.time(),
        "body": record["body"],
    }
