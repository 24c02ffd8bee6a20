"""Rows as text for the page: JSON in chunks, each gzip-packed and in base64; a browser opens them without a library.

    packed = pack(entries(…), max_mb=20)
    packed.chunks     in the page itself
    packed.siblings   those of rows-1.js, rows-2.js, …: what a page of max_mb has no room for

A chunk is a list of formulas ({"f": 5, "tree": ["math", …]}), of questions ({"q": 7, "id": …, "question": …}) and of
rows ({"q": 7, "kind": …}): a formula before the first text that holds it, a question before the first row of it.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stages.lib.page.formulas import Tree
from stages.lib.page.rows import Entry, Packed

CHUNK = 2_000_000  # characters of JSON in a chunk: a browser opens one in some 20 ms
MB = 1_000_000


@dataclass(frozen=True)
class PackedRows:
    """The chunks in the page and those of each sibling; ``inside`` of the ``total`` rows are in the page."""

    chunks: list[str]
    siblings: list[list[str]]
    inside: int
    total: int


def pack(found: Iterable[Entry], max_mb: float, charts: int = 0) -> PackedRows:
    """All rows in the page, or, where that is more than ``max_mb``, those that stay, and the others in siblings.

    ``charts``: bytes that the page spends on charts as long as it has no siblings.
    """
    rows = list(found)
    numbers: dict[str, int] = {}
    chunks = list(_chunks(rows, numbers))
    if _size(chunks) + charts <= max_mb * MB:
        return PackedRows(chunks, [], len(rows), len(rows))
    numbers.clear()
    stay = [entry for entry in rows if entry.stays]
    inside = list(_chunks(stay, numbers))
    outside = _chunks([entry for entry in rows if not entry.stays], numbers)
    return PackedRows(inside, list(_siblings(outside, max_mb)), len(stay), len(rows))


def _siblings(chunks: Iterable[str], max_mb: float) -> Iterator[list[str]]:
    """The chunks in groups of at most ``max_mb``."""
    group: list[str] = []
    for chunk in chunks:
        if group and _size([*group, chunk]) > max_mb * MB:
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _size(chunks: list[str]) -> int:
    return sum(map(len, chunks))


def _chunks(rows: Iterable[Entry], numbers: dict[str, int]) -> Iterator[str]:
    """Packed chunks; ``numbers`` has the questions and formulas that an earlier chunk holds."""
    lines: list[str] = []
    size = 0
    for entry in rows:
        for line in _lines(entry, numbers):
            lines.append(line)
            size += len(line)
        if size > CHUNK:
            yield _packed(lines)
            lines, size = [], 0
    if lines:
        yield _packed(lines)


def _lines(entry: Entry, numbers: dict[str, int]) -> Iterator[str]:
    key = _json(entry.question)
    if key not in numbers:
        question, trees = _numbered(entry.question, numbers)
        yield from trees
        numbers[key] = len(numbers)
        yield _json({"q": numbers[key]} | question)
    row, trees = _numbered(entry.row, numbers)
    yield from trees
    yield _json({"q": numbers[key]} | row)


def _numbered(entry: Packed, numbers: dict[str, int]) -> tuple[Packed, list[str]]:
    """A question or a row with the numbers of its formulas, and the lines of the new ones.

    {"formulas": {"text": [[3, 17, ["math", …]]]}}   → {"formulas": {"text": [3, 17, 5]}}, ['{"f":5,"tree":[…]}']
    """
    lines: list[str] = []
    drawn: dict[str, list[int]] = {}
    for name, found in entry.get("formulas", {}).items():
        of = drawn.setdefault(name, [])
        for start, end, tree in found:
            key = _json(tree)
            if key not in numbers:
                numbers[key] = len(numbers)
                lines.append(_json({"f": numbers[key], "tree": tree}))
            of += [start, end, numbers[key]]
    return entry | ({"formulas": drawn} if drawn else {}), lines


def _json(value: Packed | Tree) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _packed(lines: list[str]) -> str:
    text = f"[{','.join(lines)}]".encode(errors="replace")
    gzip = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: gzip's header, without a time
    return base64.b64encode(gzip.compress(text) + gzip.flush()).decode()
