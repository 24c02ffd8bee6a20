"""A YAML file as a tree of its lines. It can be rearranged, and everything that stays keeps its text.

    document("run:\n  # mine\n  threads: 2   # two cores\n")
    → Entry("run", {…}, ["run:"], entries=[Entry("threads", 2, ["threads: 2"], above=["# mine"], beside="# two cores")])

A value that is not a mapping keeps its lines. The comments above and beside a key move with it; those beside it keep
their column. A mapping in braces becomes a block if something in it has changed.
"""

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

STEP = 2


@dataclass
class Entry:
    """A key and its value. ``lines`` are dedented; those of a block mapping are only the line with its key.

    ``above`` are the comments and empty lines above the key, ``beside`` the comment in its line and its ``column``.
    """

    key: str
    value: Any
    lines: list[str] = field(default_factory=list)
    above: list[str] = field(default_factory=list)
    beside: str = ""
    column: int = 0
    entries: list["Entry"] | None = None
    written: list["Entry"] | None = None  # the original entries of a mapping in braces

    def at(self, key: str) -> "Entry | None":
        """The entry of that key, or None."""
        return next((each for each in self.entries or () if each.key == key), None)

    def take(self, key: str) -> "Entry | None":
        """Remove the entry of that key and return it."""
        found = self.at(key)
        if self.entries is not None and found:
            self.entries = [each for each in self.entries if each is not found]
        return found

    def put(self, entry: "Entry | None", place: int | None = None) -> None:
        """Insert an entry at a position or at the end."""
        if self.entries is not None and entry:
            self.entries.insert(len(self.entries) if place is None else place, entry)

    def rename(self, key: str) -> None:
        """Change the key."""
        if self.lines:
            self.lines[0] = re.sub(r"""^(['"]?)""" + re.escape(self.key) + r"\1(?=\s*:)", key, self.lines[0], count=1)
        self.key = key

    def set(self, value: Any) -> None:
        """Change the value, written on one line."""
        self.value, self.lines = value, [_inline(self.key, value)]


@dataclass
class Document:
    """A file: the lines before its entries (``---``), the entries, and the comments after the last one."""

    head: list[str]
    root: Entry
    tail: list[str]

    def text(self) -> str:
        """The file's text."""
        return "\n".join([*self.head, *_written(self.root.entries or (), 0), *self.tail])


def document(text: str) -> Document:
    """The tree of a valid YAML text; ValueError if a mapping uses a merge key (``<<``)."""
    lines = text.split("\n")
    end = len(lines)
    while end and _is_apart(lines[end - 1], 0):
        end -= 1
    loaded = _yaml().load(StringIO(text))
    entries = list(_entries(loaded, lines, 0, end, 0))
    begin = loaded.lc.key(next(iter(loaded)))[0] - len(entries[0].above)
    return Document(lines[:begin], Entry("", loaded, entries=entries), lines[end:])


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    return yaml


def _entries(mapping: CommentedMap, lines: list[str], start: int, end: int, margin: int) -> Iterator[Entry]:
    """The entries of a block mapping on the lines from ``start`` to ``end``, which are dedented by ``margin``."""
    if any(key not in mapping.lc.data for key in mapping):
        raise ValueError("a mapping uses merge keys (<<)")
    places = [(key, *mapping.lc.key(key)) for key in mapping]
    begins = [_first_comment(lines, line, column, start) for _, line, column in places]
    for (key, line, column), begin, stop in zip(places, begins, [*begins[1:], end], strict=True):
        above = [text.strip() for text in lines[begin:line]]
        own = [text[_indent(text, column) :] for text in lines[line:stop]]
        yield _entry(key, mapping[key], above, own, margin + column)


def _entry(key: Any, value: Any, above: list[str], lines: list[str], margin: int) -> Entry:
    if not isinstance(value, CommentedMap) or not value:
        code, beside = _parted(lines[0])
        column = margin + lines[0].find(beside) if beside else 0
        return Entry(str(key), value, [code, *lines[1:]], above, beside, column)
    code, beside = _parted(lines[0])
    column = margin + lines[0].find(beside) if beside else 0
    if value.fa.flow_style():
        return Entry(str(key), value, [code, *lines[1:]], above, beside, column, *_in_braces(value))
    # the lines belong only to this entry, so its mapping is parsed again from them
    inner = _yaml().load(StringIO("\n".join(lines)))[key]
    return Entry(str(key), value, [code], above, beside, column, list(_entries(inner, lines, 1, len(lines), margin)))


def _in_braces(mapping: CommentedMap) -> tuple[list[Entry], list[Entry]]:
    """The entries of a mapping in braces, and a copy of them, to detect changes."""
    entries = []
    for key, value in mapping.items():
        inner = _in_braces(value) if isinstance(value, CommentedMap) and value else (None, None)
        entries.append(Entry(str(key), value, entries=inner[0], written=inner[1]))
    return entries, deepcopy(entries)


def _parted(line: str) -> tuple[str, str]:
    """The code and the comment of a line."""
    for found in re.finditer(r"\s+#", line):
        try:
            YAML(typ="safe").load(StringIO(line[: found.start()].lstrip("- ")))
        except YAMLError:  # inside a quoted text
            continue
        return line[: found.start()], line[found.start() :].strip()
    return line.rstrip(), ""


def _first_comment(lines: list[str], line: int, column: int, start: int) -> int:
    """The line where the comments above a key begin. A more indented comment belongs to the entry before."""
    while line > start and _is_apart(lines[line - 1], column):
        line -= 1
    return line


def _is_apart(text: str, column: int) -> bool:
    stripped = text.lstrip()
    return not stripped or (stripped.startswith("#") and len(text) - len(stripped) <= column)


def _indent(text: str, column: int) -> int:
    """The part of a line's indentation that is removed with its key's."""
    return min(column, len(text) - len(text.lstrip()))


def _written(entries: Iterable[Entry], indent: int) -> Iterator[str]:
    margin = " " * indent
    for entry in entries:
        yield from (margin + text if text else "" for text in entry.above)
        untouched = entry.entries is None or entry.entries == entry.written
        lines = entry.lines if untouched else [f"{entry.key}:" if entry.entries else f"{entry.key}: {{}}"]
        first, *more = lines or [_inline(entry.key, entry.value)]
        yield f"{margin}{first}".ljust(entry.column - 1) + f" {entry.beside}" if entry.beside else margin + first
        yield from (margin + text if text else "" for text in more)
        if not untouched:
            yield from _written(entry.entries or (), indent + STEP)


def _inline(key: str, value: Any) -> str:
    """``key: value`` on one line."""
    if value is None:
        return f"{key}: null"
    yaml, text = _yaml(), StringIO()
    if isinstance(value, dict | list):
        yaml.default_flow_style = True
        yaml.dump(value, text)
        return f"{key}: {text.getvalue().strip()}"
    yaml.dump({key: value}, text)
    return text.getvalue().strip()
