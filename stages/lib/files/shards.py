"""The layout of a data file: one file or, above ``run.shard_rows`` rows, a folder of that name with its parts.

    data/distilled.jsonl                                 up to shard_rows rows
    data/distilled.jsonl/part-00000-of-00003.jsonl       above: shard_rows rows in each part but the last
    data/distilled.jsonl/part-00001-of-00003.jsonl
    data/distilled.jsonl/part-00002-of-00003.jsonl

    with writing_parts(Path("data/distilled.jsonl"), 100_000) as parts:
        parts.add(b'{"id": "x-0"}\n')
    parts_of(Path("data/distilled.jsonl"), advice)       # its files, in their order

The layout depends on the number of rows and on ``shard_rows`` alone. After each SAME_SIZE parts the next ones are twice
as long, so a thousand million rows are some thousand parts. A folder holds its parts and nothing else, because trainers
read all files of it; each name says how many parts there are, and each part but the last is full. So a lost part is
seen before the first row is read, and of three parts or more one that was cut short, but for the last, when the next
one has been read. DVC's hash, which covers all of them, sees every cut.
"""

import codecs
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import BinaryIO

from stages.lib.files import DataError, is_device, named_errors, sync, temporary_name, writing

SAME_SIZE = 200  # parts, after which parts are twice as long
PART = re.compile(r"part-\d{5}-of-(\d{5})(\..+)?")
FIRST_LOOK = 2**16  # bytes from the end of a file, in which its last line is looked for
PARTS = "parts"  # the folder in the temporary one


@dataclass(frozen=True)
class Form:
    """What stands around the rows of a file: before the first, between two, and after the last."""

    begin: bytes = b""
    between: bytes = b""
    end: bytes = b""


LINES = Form()  # JSONL: a row comes with the end of its line


def parts_of(path: Path, advice: str) -> list[Path]:
    """The files of a data file in their order: itself, or the parts in its folder.

    ``advice`` says how to rebuild it. DataError where there is no such file or folder, or where a part is missing.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file. {advice}")
    found = {each.name for each in path.iterdir() if PART.fullmatch(each.name)}
    if not found:
        raise DataError(f"{path}: a folder without parts of a data file. {advice}")
    totals = {int(named[1]) for name in found if (named := PART.fullmatch(name))}
    expected = [_part_name(number, max(totals), path.suffix) for number in range(max(totals))]
    for name in expected:
        if name not in found:
            raise DataError(f"{path}: {name} is missing. {advice}")
    if strange := sorted(found.difference(expected)):
        raise DataError(f"{path}: {strange[0]} is a part of another data file. {advice}")
    return [path / name for name in expected]


def numbered_lines(path: Path, advice: str) -> Iterator[tuple[str, bytes]]:
    """Each line of a JSONL data file with its place, FILE:LINE. DataError as of ``parts_of`` and ``check_part``."""
    files, first = parts_of(path, advice), 0
    with _opening(path, advice) as opened:
        for part, file in enumerate(files):
            number = 0
            with opened(file) as lines:
                for number, line in enumerate(lines, start=1):
                    yield f"{file}:{number}", line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            first = first or number
            check_part(files, part, number, first, advice)


def last_line(path: Path, advice: str) -> bytes:
    """The last line of a JSONL data file, found from its end. DataError as of ``parts_of``."""
    with parts_of(path, advice)[-1].open("rb") as file:
        size, length = file.seek(0, os.SEEK_END), FIRST_LOOK
        while True:
            file.seek(max(0, size - length))
            *before, line = file.read().removesuffix(b"\n").rsplit(b"\n", 1)
            if before or length >= size:
                return line
            length *= 4


@contextmanager
def _opening(path: Path, advice: str) -> Iterator[Callable[[Path], BinaryIO]]:
    """A function that opens a part in the folder that has the name now: one that takes its place is not read."""
    if not path.is_dir():
        yield lambda file: file.open("rb")
        return
    folder = os.open(path, os.O_RDONLY)

    def opened(file: Path) -> BinaryIO:
        try:
            return os.fdopen(os.open(file.name, os.O_RDONLY, dir_fd=folder), "rb")
        except FileNotFoundError as error:
            raise DataError(f"{file}: it was replaced while {path} was read. {advice}") from error

    try:
        yield opened
    finally:
        os.close(folder)


def check_part(files: Sequence[Path], part: int, rows: int, first: int, advice: str) -> None:
    """DataError where a part has not the rows that it was written with, as ``first``, the rows of part 0, tells."""
    full = part_rows(part, first)
    if len(files) > 1 and not (0 < rows <= full if part == len(files) - 1 else 0 < rows == full):
        of_first = f"{files[0]} has {first}" if part else "it is the first of several"
        raise DataError(f"{files[part]}: {rows} rows, and {of_first}: one of them was cut short. {advice}")


def part_rows(number: int, shard_rows: int) -> int:
    """How many rows the part of this number, from 0, has room for."""
    return shard_rows << (number // SAME_SIZE)


@contextmanager
def writing_parts(path: Path, shard_rows: int | None, form: Form = LINES) -> Iterator["Parts"]:
    """A data file that takes its name only when it is whole; ``shard_rows`` None: one file, however many rows.

    What had the name before, file or folder, is replaced. A file replaces a file at once. Else the old one is moved
    aside first: for a moment there is none of that name, and never half of one. DataError for another folder.
    """
    if path.is_dir() and not _holds_parts_alone(path):
        raise DataError(f"{path}: a folder, but not of a data file's parts alone, so nothing replaces it. Name a file.")
    if is_device(path):
        with writing(path) as device:
            parts = Parts(lambda _: device, None, form)
            yield parts
            parts.end()
        return
    folder = temporary_name(path)
    shutil.rmtree(folder, ignore_errors=True)  # of a process with this number that was killed
    try:
        (folder / PARTS).mkdir(parents=True)
        parts = Parts(lambda number: (folder / PARTS / str(number)).open("wb"), shard_rows, form)
        with named_errors(path), closing(parts):
            yield parts
            parts.end()
        _name_parts(folder / PARTS, parts.begun, path.suffix)
        _replace(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Parts:
    """The parts of a data file that is being written; the first one is there from the beginning."""

    def __init__(self, opened: Callable[[int], BinaryIO], shard_rows: int | None, form: Form) -> None:
        self._opened, self._shard_rows, self._form = opened, shard_rows, form
        self.begun = 0
        self._begin()

    def add(self, row: bytes) -> None:
        """Add a row: the bytes of its JSON, with the end of its line if the form has none between rows."""
        if self._rows == self._room:
            self.end()
            self.close()
            self._begin()
        self._file.write(self._form.between + row if self._rows else row)
        self._rows += 1

    def end(self) -> None:
        """Write what ends the last part."""
        self._file.write(self._form.end)

    def close(self) -> None:
        """Have the last part on the disk, and close it."""
        if not self._file.closed:
            with self._file:
                sync(self._file)

    def _begin(self) -> None:
        self._file, self._rows = self._opened(self.begun), 0
        self._file.write(self._form.begin)
        self._room = part_rows(self.begun, self._shard_rows) if self._shard_rows else None
        self.begun += 1


def _holds_parts_alone(folder: Path) -> bool:
    names = [each.name for each in folder.iterdir() if not each.name.startswith(".")]  # .DS_Store
    return bool(names) and all(map(PART.fullmatch, names))


def _name_parts(folder: Path, total: int, suffix: str) -> None:
    for number in range(total):
        (folder / str(number)).rename(folder / _part_name(number, total, suffix))


def _part_name(number: int, total: int, suffix: str) -> str:
    return f"part-{number:05}-of-{total:05}{suffix}"


def _replace(folder: Path, path: Path) -> None:
    """Give ``path`` to the only part, or to the folder of several; what had the name is left in ``folder``."""
    parts = list((folder / PARTS).iterdir())
    new = parts[0] if len(parts) == 1 else folder / PARTS
    old = folder / "old"
    try:
        if lexists(path) and (path.is_dir() or new.is_dir()):  # a rename can only replace a file by a file
            path.rename(old)
        new.replace(path)
    except BaseException:  # Ctrl-C between the two, too
        if lexists(old) and not lexists(path):
            old.rename(path)
        raise
