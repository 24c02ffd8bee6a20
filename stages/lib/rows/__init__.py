"""Reading rows with errors that name file and line, and writing files whole. Each stage's rows are a module here.

One JSON object a line, UTF-8, in a fixed field order, so the same rows are the same bytes:

    {"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "gsm8k/train"}

A data file is one file or a folder of parts (stages/lib/files/shards.py); ``read_rows`` reads both.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.files import UNPROTECT as UNPROTECT
from stages.lib.files import DataError as DataError
from stages.lib.files import writing as writing
from stages.lib.files.repeats import Repeats
from stages.lib.files.shards import Parts, numbered_lines, writing_parts


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
        try:
            return orjson.dumps(self.model_dump(), option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # an integer of more than 64 bits, in what others wrote
            return self.model_dump_json().encode() + b"\n"


R = TypeVar("R", bound=Row)


def read_rows(path: Path, model: type[R], rebuild: str) -> Iterator[R]:
    """Yield the rows of a data file, one at a time.

    ``rebuild`` says what to do about a bad row ("Run 'dvc repro distill' to rebuild it.").
    Raises DataError, with file and line, on a missing file or part, a line that is not UTF-8 or not a JSON object,
    a missing field or one of the wrong type, a part that was cut short; and after the last row on a key that stands
    there twice. A byte order mark, which Windows editors put before the first line, is skipped.
    """
    repeats = Repeats()  # of hashes: the keys of a million rows would take 150 MB
    for row in _rows(path, model, rebuild):
        repeats.add(hash(row.key))
        yield row
    if repeated := repeats.found():
        _refuse_repeated_keys(path, model, rebuild, repeated)


def read_some_rows(path: Path, model: type[R], rebuild: str) -> list[R]:
    """All rows of a file as a list, of which there must be at least one."""
    rows = list(read_rows(path, model, rebuild))
    if not rows:
        raise DataError(f"{path}: there is nothing in it. {rebuild}")
    return rows


class RowsOf(Generic[R]):
    """The rows of a data file, which each iteration reads again."""

    def __init__(self, path: Path, model: type[R], rebuild: str) -> None:
        self._of = (path, model, rebuild)

    def __iter__(self) -> Iterator[R]:
        return read_rows(*self._of)


def _rows(path: Path, model: type[R], rebuild: str) -> Iterator[R]:
    for where, line in numbered_lines(path, rebuild):
        yield parse_row(line, model, where, rebuild)


def _refuse_repeated_keys(path: Path, model: type[R], rebuild: str, hashes: set[int]) -> None:
    """Raise DataError on the first key that came before; nothing where two keys but share a hash."""
    seen: dict[str, str] = {}
    for where, line in numbered_lines(path, rebuild):
        key = parse_row(line, model, where, rebuild).key
        if hash(key) in hashes:
            first = seen.setdefault(key, where)
            if first != where:
                raise DataError(f"{where}: id '{key}' was at {first} already. {rebuild}")


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


class RowWriter:
    """Writes rows into a data file; ``count``: how many so far."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.count = 0

    def add(self, row: Row) -> None:
        """Add a row."""
        self._parts.add(row.line())
        self.count += 1


@contextmanager
def writing_rows(path: Path, shard_rows: int | None = None) -> Iterator[RowWriter]:
    """A data file, whole or not at all; above ``shard_rows`` rows it is a folder of parts (None: always one file)."""
    with writing_parts(path, shard_rows) as parts:
        yield RowWriter(parts)


def write_rows(path: Path, rows: Iterable[Row], shard_rows: int | None = None) -> int:
    """Write all rows as ``writing_rows`` does; return how many."""
    with writing_rows(path, shard_rows) as writer:
        for row in rows:
            writer.add(row)
    return writer.count


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
