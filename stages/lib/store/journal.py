"""A file of records that one process at a time appends to, under the kernel's lock of a file next to it.

    answers.jsonl, answers.lock

The lock is held while a group of records is written, or an incomplete last line is removed.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.lib.command import LocksError
from stages.lib.store.answer_file import RECORD_BEGINS, StoreError, parse, whole_end

log = logging.getLogger("distillery.store")

NOTICE_AFTER_S = 1.0  # wait for another process before a line says so


class Journal:
    """The open file and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab+", buffering=0)  # no write buffer: a full disk is reported immediately
        self._lock = path.with_suffix(".lock").open("a")

    @property
    def descriptor(self) -> int:
        """The file, open for reading and appending."""
        return self._file.fileno()

    def is_replaced(self) -> bool:
        """Whether its path names another file by now, as after an editor has saved it: new records would be lost."""
        return not self.path.exists() or not os.path.samestat(self.path.stat(), os.fstat(self.descriptor))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the writer's lock: no other process appends or repairs."""
        try:
            self._take()
        except OSError as error:
            raise LocksError(self.path, error) from error
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def repair(self) -> None:
        """Remove an incomplete last line, whose writer was killed. Call this only under the lock."""
        size, end = os.fstat(self.descriptor).st_size, whole_end(self.descriptor)
        if size == end:
            return
        tail = os.pread(self.descriptor, size - end, end)
        try:
            parse(tail)
        except ValueError:
            if not RECORD_BEGINS.startswith(tail[: len(RECORD_BEGINS)]):
                raise StoreError(
                    f"{self.path}: the last line is not a record of the store. Name the store's file with --store."
                ) from None
            log.info("store: removed %d bytes of an incomplete record from %s", len(tail), self.path)
            os.ftruncate(self.descriptor, end)
        else:
            os.write(self.descriptor, b"\n")  # only the line end is missing

    def append(self, lines: Sequence[bytes]) -> list[OSError | None]:
        """Write lines; for each the error, or None. Call this only under the lock, and ``sync`` after it."""
        return [self._append(line) for line in lines]

    def sync(self) -> None:
        """Return when the file is on the disk."""
        os.fsync(self.descriptor)

    def rescue(self, lines: Sequence[bytes]) -> str:
        """Write the records to a file next to it; return a text that says how to import them."""
        rescued = self.path.with_name(f"{self.path.stem}.rescued.{os.getpid()}.jsonl")
        with rescued.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        return (
            f"Answers received since then are in {rescued}. Add them with 'make store-import FILE={rescued}', then run "
            "the stage again."
        )

    def close(self) -> None:
        """Close the file and its lock."""
        self._file.close()
        self._lock.close()

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = "store: another run writes to %s; waiting for it"
            notice = threading.Timer(NOTICE_AFTER_S, log.info, [words, self.path])
            notice.start()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            finally:
                notice.cancel()

    def _append(self, line: bytes) -> OSError | None:
        """Write a whole line or, where that fails, nothing: the next line must not follow a part of this one."""
        end = os.fstat(self.descriptor).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            os.ftruncate(self.descriptor, end)
            return error
        return None
