"""Rows as text for the page: JSON in chunks, each gzip-packed and in base64; a browser opens them without a library.

    packed = pack(entries(…), max_mb=20)
    packed.chunks     in the page itself
    packed.siblings   those of rows-1.js, rows-2.js, …: what a page of max_mb has no room for, by the rows' rank

A chunk is a list of formulas ({"f": 5, "tree": ["math", …]}), of questions ({"q": 7, "id": …, "question": …}) and of
rows ({"q": 7, "kind": …}): a formula before the first text that holds it, a question before the first row of it.
"""

import base64
import gzip
import hashlib
import json
import pickle
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from stages.lib.page.formulas import Tree
from stages.lib.page.rows import Entry, Packed, Rank

CHUNK = 2_000_000  # characters of JSON in a chunk, about: a browser opens one in some 20 ms
SMALLEST = 10_000  # of a page whose max_mb is small: a chunk is at most a quarter of it
MB = 1_000_000

Numbers = dict[bytes, int]  # of the questions and formulas that an earlier chunk holds, by the hash of their JSON


class Chunk(NamedTuple):
    """Packed rows, and how many."""

    text: str
    rows: int


@dataclass(frozen=True)
class PackedRows:
    """The chunks in the page and those of each sibling; ``inside`` of the ``total`` rows are in the page.

    ``leave_room``: all are in the page, and it has room for the charts as well.
    """

    chunks: list[str]
    siblings: "Siblings"
    inside: int
    total: int
    leave_room: bool


class Siblings:
    """The chunks of each sibling, in a file without a name: one sibling at a time is in memory."""

    def __init__(self, groups: Iterable[list[str]] = ()) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115
        self._lengths: list[int] = []
        for group in groups:
            self._file.writelines(f"{chunk}\n" for chunk in group)
            self._lengths.append(len(group))

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[list[str]]:
        self._file.seek(0)
        for length in self._lengths:
            yield [line.rstrip("\n") for line in islice(self._file, length)]


def pack(found: Iterable[Entry], max_mb: float, charts: int = 0) -> PackedRows:
    """All rows in the page, or as many as ``max_mb`` has room for, by their rank, and the others in siblings.

    ``charts``: bytes that the page spends on charts where the rows leave room for them. Each row is taken once, and is
    in memory only until it is packed.
    """
    rows, size = _Kept(found), max(SMALLEST, min(CHUNK, max_mb * MB / 4))
    inside, rest = _first(_chunks(rows.taken, size), max_mb * MB - charts)
    leave_room = next(rest, None) is None
    if not leave_room:
        for _ in rows.taken:  # those behind the first chunk that had no room
            pass
        inside, rest = _first(_chunks(rows.by_rank(), size), max_mb * MB)
    siblings = Siblings(_siblings((chunk.text for chunk in rest), max_mb))
    number = sum(chunk.rows for chunk in inside)
    return PackedRows([chunk.text for chunk in inside], siblings, number, rows.total, leave_room)


class _Kept:
    """Rows that are taken once, and then read again from a file without a name."""

    def __init__(self, found: Iterable[Entry]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.total = 0
        self.taken = self._taken(found)

    def _taken(self, found: Iterable[Entry]) -> Iterator[Entry]:
        with gzip.open(self._file, "wb", compresslevel=1) as file:
            for entry in found:
                file.write(pickle.dumps(entry))
                self.total += 1
                yield entry

    def by_rank(self) -> Iterator[Entry]:
        """Those of the first rank first."""
        for rank in Rank:
            self._file.seek(0)
            with gzip.open(self._file) as file:
                for _ in range(self.total):
                    entry: Entry = pickle.load(file)
                    if entry.rank == rank:
                        yield entry


def _first(chunks: Iterator[Chunk], most: float) -> tuple[list[Chunk], Iterator[Chunk]]:
    """The first chunks, as many as have at most so many characters together, and the others."""
    found: list[Chunk] = []
    size = 0
    for chunk in chunks:
        size += len(chunk.text)
        if size > most:
            return found, chain([chunk], chunks)
        found.append(chunk)
    return found, chunks


def _siblings(chunks: Iterable[str], max_mb: float) -> Iterator[list[str]]:
    """The chunks in groups of at most ``max_mb``."""
    group: list[str] = []
    for chunk in chunks:
        if group and sum(map(len, [*group, chunk])) > max_mb * MB:
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _chunks(rows: Iterable[Entry], most: float) -> Iterator[Chunk]:
    """Packed chunks of so many characters of JSON; a question and a formula are in the first one that needs it."""
    numbers: Numbers = {}
    lines: list[str] = []
    size = count = 0
    for entry in rows:
        for line in _lines(entry, numbers):
            lines.append(line)
            size += len(line)
        count += 1
        if size > most:
            yield Chunk(_packed(lines), count)
            lines, size, count = [], 0, 0
    if lines:
        yield Chunk(_packed(lines), count)


def _lines(entry: Entry, numbers: Numbers) -> Iterator[str]:
    key = _hash(entry.question)
    if key not in numbers:
        question, trees = _numbered(entry.question, numbers)
        yield from trees
        numbers[key] = len(numbers)
        yield _json({"q": numbers[key]} | question)
    row, trees = _numbered(entry.row, numbers)
    yield from trees
    yield _json({"q": numbers[key]} | row)


def _numbered(entry: Packed, numbers: Numbers) -> tuple[Packed, list[str]]:
    """A question or a row with the numbers of its formulas, and the lines of the new ones.

    {"formulas": {"text": [[3, 17, ["math", …]]]}}   → {"formulas": {"text": [3, 17, 5]}}, ['{"f":5,"tree":[…]}']
    """
    lines: list[str] = []
    drawn: dict[str, list[int]] = {}
    for name, found in entry.get("formulas", {}).items():
        of = drawn.setdefault(name, [])
        for start, end, tree in found:
            key = _hash(tree)
            if key not in numbers:
                numbers[key] = len(numbers)
                lines.append(_json({"f": numbers[key], "tree": tree}))
            of += [start, end, numbers[key]]
    return entry | ({"formulas": drawn} if drawn else {}), lines


def _json(value: Packed | Tree) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _hash(value: Packed | Tree) -> bytes:
    return hashlib.blake2b(_json(value).encode(errors="surrogatepass"), digest_size=16).digest()


def _packed(lines: list[str]) -> str:
    text = f"[{','.join(lines)}]".encode(errors="replace")
    gzip = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: gzip's header, without a time
    return base64.b64encode(gzip.compress(text) + gzip.flush()).decode()
