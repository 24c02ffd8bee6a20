"""Reading rows with errors that name file and line, and writing files whole. Each stage's rows are a module here.

One JSON object a line, UTF-8, in a fixed field order, so the same rows are the same bytes:

    {"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "gsm8k/train"}
"""

import codecs
import json
import os
import stat
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.command import DistilleryError

# what DVC tracks may be a link into its cache: an edit would spoil the cached file
UNPROTECT = "'dvc unprotect' the file if DVC tracks it"


class DataError(DistilleryError):
    """A row or a file that cannot be used: ``FILE:LINE: what. What to do next.``"""


class Row(BaseModel):
    """A row of a data file. Unknown fields are not read: a later version may have written them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    id: str = Field(min_length=1)

    @property
    def key(self) -> str:
        """What tells this row from every other row of its file."""
        return self.id

    def line(self) -> bytes:
        """Its line in a file: the bytes of ``model_dump_json``, in half the time."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_APPEND_NEWLINE)


R = TypeVar("R", bound=Row)


def read_rows(path: Path, model: type[R], rebuild: str) -> Iterator[R]:
    """Yield the rows of a JSONL file, one at a time.

    ``rebuild`` says what to do about a bad row ("Run 'dvc repro distill' to rebuild it.").
    Raises DataError, with file and line, on a missing file, a line that is not UTF-8 or not a JSON object,
    a missing field or one of the wrong type; and after the last row on a key that stands there twice. A byte order
    mark, which Windows editors put before the first line, is skipped.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. {rebuild}")
    hashes = array("q")  # 8 bytes a row, 48 while they are sorted: the keys of a million rows would take 150 MB
    for row in _rows(path, model, rebuild):
        hashes.append(hash(row.key))
        yield row
    repeated = {first for first, second in pairwise(sorted(hashes)) if first == second}
    if repeated:
        _refuse_repeated_keys(path, model, rebuild, repeated)


def read_some_rows(path: Path, model: type[R], rebuild: str) -> list[R]:
    """All rows of a file as a list, of which there must be at least one."""
    rows = list(read_rows(path, model, rebuild))
    if not rows:
        raise DataError(f"{path}: there is nothing in it. {rebuild}")
    return rows


def _rows(path: Path, model: type[R], rebuild: str) -> Iterator[R]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            yield parse_row(text, model, f"{path}:{number}", rebuild)


def _refuse_repeated_keys(path: Path, model: type[R], rebuild: str, hashes: set[int]) -> None:
    """Raise DataError on the first key that came before; nothing where two keys but share a hash."""
    seen: dict[str, int] = {}
    for number, row in enumerate(_rows(path, model, rebuild), start=1):
        if hash(row.key) in hashes:
            first = seen.setdefault(row.key, number)
            if first != number:
                raise DataError(f"{path}:{number}: id '{row.key}' was on line {first} already. {rebuild}")


def parse_row(line: bytes, model: type[R], where: str, rebuild: str) -> R:
    """The row of one line; DataError, with ``where`` (FILE:LINE), on a line that is not UTF-8 or not such a row."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x} at {error.start}). "
            f"{UNPROTECT}, and convert it, for example with 'iconv -f GB18030 -t UTF-8'. {rebuild}"
        ) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise DataError(f"{where}: {_row_complaint(error)}. {rebuild}") from error


def _row_complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"not a JSON object ({first['ctx']['error']})"
    if first["type"] == "missing":
        return f"no field '{field}'"
    return f"field '{field}': {first['msg']}" if field else first["msg"]


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSONL, whole or not at all; return how many."""
    count = 0
    with writing(path) as file:
        for row in rows:
            file.write(row.line())
            count += 1
    return count


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document (metrics), whole or not at all, in the order of its keys."""
    with writing(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def read_json(path: Path, rebuild: str) -> Any:
    """One JSON document; DataError where it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. {rebuild}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). {rebuild}") from error


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is whole: written beside it, synced, then renamed."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with _named_errors(path), path.open("wb") as device:  # a pipe or a device is written to, never replaced
            yield device
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _named_errors(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Give the file's name to errors of writing, which come without one (a full disk)."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
