"""Read a file of received answers: its keys, and the body of each. The store is such a file (answer_store.py).

One JSON object per line; where the store wrote it, in this order:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

Hosts whose locks do not reach each other write a file each, which is read with it:

    answers.hosts/HOST.answers.jsonl    {"key": "9f86d081…", "request": {…}, "at": 1767225600.25, "body": "{…}"}

A complete line never changes, so it is read without a lock while other processes append. Where a key occurs twice, the
first answer counts, so that the rows made from it stay reproducible: the one with the earlier ``at``, a record of the
file itself before those of hosts.
"""

import hashlib
import os
import threading
import time
from binascii import unhexlify
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from stages.lib.command import DistilleryError
from stages.lib.store.index import Index

RECORD_BEGINS = b'{"key":"'
KEY_ENDS = b'","request":'
DRAW = b'"draw":'  # a field of a later draw's request (draws.py); inside a text its quotes are escaped
HEAD = len(RECORD_BEGINS) + 64 + len(KEY_ENDS)
BLOCK = 65536  # bytes per step backwards, in the search for the last line end
LINE = 8192  # bytes of the first read of a record: most are shorter
OF_A_HOST = ".answers.jsonl"  # the end of the name of a host's file
PART_BITS = 44  # of a position, for the offset within a file; the bits above them number the file


SAME_TIME_S = 0.1  # two changes of a folder may have one time


class Received(NamedTuple):
    """A received body. ``served_by``: which of several servers gave it; ``at``: when it came to a host's own file."""

    body: bytes
    served_by: str | None = None
    at: float = 0.0


class StoreError(DistilleryError):
    """The store cannot be read or written."""


@contextmanager
def open_answers(path: Path) -> Iterator["AnswerFile"]:
    """Open a file of answers read-only: this repairs nothing and waits for no lock."""
    with path.open("rb", buffering=0) as file:
        answers = AnswerFile(path, file.fileno())
        try:
            yield answers
        finally:
            answers.close_parts()


def hosts_folder(store: Path) -> Path:
    """``answers.hosts`` next to ``answers.jsonl``: the files of the hosts that use the store."""
    return store.with_suffix(".hosts")


def files_of_hosts(store: Path) -> list[Path]:
    """The files that hosts wrote for themselves, because their locks do not reach each other."""
    return sorted(hosts_folder(store).glob(f"*{OF_A_HOST}"))


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
    if position and os.pread(descriptor, 1, position - 1) == b"\n":  # nearly always
        return position
    while position > 0:
        start = max(0, position - BLOCK)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def request_key(request: dict[str, Any]) -> str:
    """A hash of the request (endpoint, model, messages, sampling settings, sample number), independent of key order."""
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def parse(line: bytes) -> tuple[bytes, Received]:
    """Key and body of a record; ValueError where the line is not a record."""
    try:
        record = orjson.loads(line)
        key, body = bytes.fromhex(record["key"]), record["body"]
    except (KeyError, TypeError) as error:
        raise ValueError("not a record") from error
    if not isinstance(body, str):
        raise ValueError("not a record")
    return key, Received(body.encode(), record.get("served_by"), record.get("at", 0.0))


def _key_of(line: bytes) -> bytes:
    """The key of a record; ValueError where the line is not a record. The store's own layout is not parsed."""
    key = _head_key(line) if line.endswith(b'"}\n') else None
    return key or parse(line)[0]


def _head_key(line: bytes) -> bytes | None:
    if line.startswith(RECORD_BEGINS) and line[HEAD - len(KEY_ENDS) : HEAD] == KEY_ENDS:
        return unhexlify(line[len(RECORD_BEGINS) : HEAD - len(KEY_ENDS)])
    return None


@dataclass
class _Part:
    """One file of the store; ``indexed`` is the offset up to which its records are in the index."""

    path: Path
    descriptor: int
    flags: int
    indexed: int = 0

    def reopen(self) -> None:
        """Open the file again: a network filesystem shows what another host appended to a file that is opened now."""
        try:
            new = os.open(self.path, self.flags)
        except FileNotFoundError:
            return
        try:
            if os.path.samestat(os.fstat(new), os.fstat(self.descriptor)):
                os.dup2(new, self.descriptor, inheritable=False)
        finally:
            os.close(new)


class AnswerFile:
    """Received bodies by key. The bodies stay on the disk; index.py says what memory holds."""

    def __init__(self, path: Path, descriptor: int, flags: int = os.O_RDONLY, reads_afresh: bool = False) -> None:
        self._path = path
        self._hosts_folder = hosts_folder(path)
        self._parts = [_Part(path, descriptor, flags)]
        self._index = Index()
        self._aliases: dict[str, str] = {}  # names of endpoints by their former ones
        self._listed = 0  # when the hosts' folder had changed, as it was listed last
        self._list_until = 0.0
        self.reads_afresh = (
            reads_afresh  # whether other hosts append as well, so that files are opened again to be read
        )
        self.holds_draws = False  # may be true without a draw: a request may hold such a field elsewhere
        self._reading = threading.RLock()  # the event loop reads the index while a thread writes
        self.refresh()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def __contains__(self, key: str) -> bool:
        """Whether an answer is indexed; ``refresh`` indexes those of other processes."""
        digest = bytes.fromhex(key)
        return any(digest in self._keys_at(position) for position in self._positions(digest))

    def __len__(self) -> int:
        with self._reading:
            repeated = sum(self._keys_at(older) == self._keys_at(newer) for older, newer in self._index.neighbours())
            return len(self._index) - repeated

    def body(self, key: str) -> bytes:
        """The raw body received for a key; KeyError where there is none, StoreError where its line is broken."""
        return self.received(key).body

    def received(self, key: str) -> Received:
        """The first answer to a key, as ``body``."""
        digest = bytes.fromhex(key)
        first: Received | None = None
        for position in self._positions(digest):
            keys, received = self._record_at(position)
            if digest in keys and (first is None or received.at < first.at):
                first = received
        if first is None:
            raise KeyError(key)
        return first

    def refresh(self) -> int:
        """Index the records appended since the last call, by any process; return their number."""
        with self._reading:
            self._list_parts()
            return sum(self._index_part(number, part) for number, part in enumerate(self._parts))

    def read_aliases(self, names: dict[str, str]) -> None:
        """Find an answer of the endpoint ``alias`` under the key of the same request to ``names[alias]``, too."""
        with self._reading:
            if names.items() <= self._aliases.items():
                return
            self._aliases |= names
            self._index = Index()
            for part in self._parts:
                part.indexed = 0
            self.refresh()

    def renamed_key(self, request: dict[str, Any]) -> str | None:
        """The key of the same request to the name of its endpoint; None where its endpoint is no alias."""
        name = self._aliases.get(request.get("endpoint", ""))
        return request_key(request | {"endpoint": name}) if name else None

    def close_parts(self) -> None:
        """Close the files of hosts."""
        with self._reading:
            for part in self._parts[1:]:
                os.close(part.descriptor)
            del self._parts[1:]

    def _added(self, key: bytes) -> None:
        """Called for each record that ``refresh`` finds."""

    def _list_parts(self) -> None:
        """Open the hosts' files that are new."""
        try:
            changed = self._hosts_folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return
        now = time.monotonic()
        if changed != self._listed:
            self._list_until = now + SAME_TIME_S
        elif now > self._list_until:
            return
        known = {part.path for part in self._parts}
        for path in files_of_hosts(self._path):
            if path not in known:
                self._parts.append(_Part(path, os.open(path, os.O_RDONLY), os.O_RDONLY))
        self._listed = changed

    def _index_part(self, number: int, part: _Part) -> int:
        if self.reads_afresh:
            part.reopen()
        if os.fstat(part.descriptor).st_size == part.indexed:
            return 0
        found = 0
        for offset, line in whole_lines(part.descriptor, part.indexed):
            position = number << PART_BITS | offset
            try:
                keys = self._keys(line)
            except ValueError as error:
                raise self._broken(position) from error
            for key in keys:
                self._index.add(key, position)
            self._added(keys[-1])
            self.holds_draws = self.holds_draws or DRAW in line
            part.indexed = offset + len(line)
            found += 1
        return found

    def _positions(self, digest: bytes) -> list[int]:
        with self._reading:
            return self._index.offsets(digest)

    def _keys(self, line: bytes) -> tuple[bytes, ...]:
        """The keys under which a record is found: its own and, where its endpoint is an alias, that of the name."""
        key = _key_of(line)
        renamed = self.renamed_key(orjson.loads(line).get("request", {})) if self._aliases else None
        return (key, bytes.fromhex(renamed)) if renamed else (key,)

    def _keys_at(self, position: int) -> tuple[bytes, ...]:
        part, offset = self._place(position)
        try:
            key = None if self._aliases else _head_key(os.pread(part.descriptor, HEAD, offset))
            return (key,) if key else self._keys(self._line_at(position))
        except ValueError as error:
            raise self._broken(position) from error

    def _record_at(self, position: int) -> tuple[tuple[bytes, ...], Received]:
        line = self._line_at(position)
        try:
            key, received = parse(line)
            return self._keys(line) if self._aliases else (key,), received
        except ValueError as error:
            raise self._broken(position) from error

    def _line_at(self, position: int) -> bytes:
        part, offset = self._place(position)
        size = LINE
        block = os.pread(part.descriptor, size, offset)
        while (end := block.find(b"\n")) < 0 and len(block) == size:
            size *= 4
            block = os.pread(part.descriptor, size, offset)
        return block[: end + 1]

    def _place(self, position: int) -> tuple[_Part, int]:
        return self._parts[position >> PART_BITS], position & ((1 << PART_BITS) - 1)

    def _broken(self, position: int) -> StoreError:
        part, offset = self._place(position)
        with self._reading:  # all readers of lines share one file position
            number = 1 + sum(start < offset for start, _ in whole_lines(part.descriptor))
        return StoreError(
            f"{part.path}:{number}: not a record of the store. Move that line to another file. The others are kept."
        )
