"""Read a file of received answers: its keys, and the body of each. The store is such a file (answer_store.py).

One JSON object per line; where the store wrote it, in this order:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

A complete line never changes, so it is read without a lock while other processes append. Where a key occurs twice, the
first answer counts, so that the rows made from it stay reproducible.
"""

import os
import threading
from binascii import unhexlify
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from stages.lib.command import DistilleryError
from stages.lib.store.index import Index

RECORD_BEGINS = b'{"key":"'
KEY_ENDS = b'","request":'
DRAW = b'"draw":'  # a field of a later draw's request (draws.py); inside a text its quotes are escaped
HEAD = len(RECORD_BEGINS) + 64 + len(KEY_ENDS)
BLOCK = 65536  # bytes per step backwards, in the search for the last line end
LINE = 8192  # bytes of the first read of a record: most are shorter


class StoreError(DistilleryError):
    """The store cannot be read or written."""


@contextmanager
def open_answers(path: Path) -> Iterator["AnswerFile"]:
    """Open a file of answers read-only: this repairs nothing and waits for no lock."""
    with path.open("rb", buffering=0) as file:
        yield AnswerFile(path, file.fileno())


def whole_lines(descriptor: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The complete lines of a file with their offsets; ``start`` is the offset of a line."""
    end = whole_end(descriptor)
    with open(descriptor, "rb", buffering=4 * BLOCK, closefd=False) as reader:
        reader.seek(start)
        while start < end:
            line = reader.readline()
            yield start, line
            start += len(line)


def whole_end(descriptor: int) -> int:
    """The offset after the last line end. The bytes before it never change."""
    position = os.fstat(descriptor).st_size
    while position > 0:
        start = max(0, position - BLOCK)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def parse(line: bytes) -> tuple[bytes, str]:
    """Key and body of a record; ValueError where the line is not a record."""
    try:
        record = orjson.loads(line)
        key, body = bytes.fromhex(record["key"]), record["body"]
    except (KeyError, TypeError) as error:
        raise ValueError("not a record") from error
    if not isinstance(body, str):
        raise ValueError("not a record")
    return key, body


def _key_of(line: bytes) -> bytes:
    """The key of a record; ValueError where the line is not a record. The store's own layout is not parsed."""
    key = _head_key(line) if line.endswith(b'"}\n') else None
    return key or parse(line)[0]


def _head_key(line: bytes) -> bytes | None:
    if line.startswith(RECORD_BEGINS) and line[HEAD - len(KEY_ENDS) : HEAD] == KEY_ENDS:
        return unhexlify(line[len(RECORD_BEGINS) : HEAD - len(KEY_ENDS)])
    return None


class AnswerFile:
    """Received bodies by key. The bodies stay on the disk; memory holds 16 bytes for each (index.py)."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._index = Index()
        self.holds_draws = False  # may be true without a draw: a request may hold such a field elsewhere
        self._indexed = 0  # the offset up to which the records are in the index
        self._reading = threading.RLock()  # the event loop reads the index while a thread writes
        self.refresh()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

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

    def refresh(self) -> int:
        """Index the records appended since the last call, by any process; return their number."""
        with self._reading:
            if os.fstat(self._descriptor).st_size == self._indexed:
                return 0
            before = len(self._index)
            for offset, line in whole_lines(self._descriptor, self._indexed):
                try:
                    self._index.add(_key_of(line), offset)
                except ValueError as error:
                    raise self._broken(offset) from error
                self.holds_draws = self.holds_draws or DRAW in line
                self._indexed = offset + len(line)
            return len(self._index) - before

    def _offsets(self, digest: bytes) -> list[int]:
        with self._reading:
            return self._index.offsets(digest)

    def _key_at(self, offset: int) -> bytes:
        try:
            return _head_key(os.pread(self._descriptor, HEAD, offset)) or _key_of(self._line_at(offset))
        except ValueError as error:
            raise self._broken(offset) from error

    def _line_at(self, offset: int) -> bytes:
        size = LINE
        block = os.pread(self._descriptor, size, offset)
        while b"\n" not in block and len(block) == size:
            size *= 4
            block = os.pread(self._descriptor, size, offset)
        return block[: block.find(b"\n") + 1]

    def _broken(self, offset: int) -> StoreError:
        with self._reading:  # all readers of lines share one file position
            number = 1 + sum(start < offset for start, _ in whole_lines(self._descriptor))
        return StoreError(
            f"{self._path}:{number}: not a record of the store. Move that line to another file. The others are kept."
        )
