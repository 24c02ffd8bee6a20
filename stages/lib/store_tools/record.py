"""A record of the store as a typed row. Reading is strict: it checks every field, and the key against the request.

{"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}
"""

import heapq
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.store.answer_file import StoreError, files_of_hosts, whole_end, whole_lines
from stages.lib.store.answer_store import request_key

ADVICE = "Copy the file again, or move that line to another one."


class Record(BaseModel):
    """One line of the store. An unknown field would be lost in an export, so it is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    key: str
    request: dict[str, Any]
    served_by: Annotated[str | None, Field(exclude_if=lambda server: server is None)] = None
    at: Annotated[float | None, Field(exclude_if=lambda at: at is None)] = None  # in a host's own file
    body: str

    @classmethod
    def of(cls, request: dict[str, Any], body: str) -> "Record":
        """The record of an answer, with its key."""
        return cls(key=request_key(request), request=request, body=body)


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file; StoreError, with the line, on any other content and on an incomplete last line."""
    with path.open("rb") as file:
        yield from _records(file, path)
        if whole_end(file.fileno()) < os.fstat(file.fileno()).st_size:
            number = 1 + sum(1 for _ in whole_lines(file.fileno()))
            raise StoreError(f"{path}:{number}: the file ends within this line. {ADVICE}")


def stored_records(path: Path) -> Iterator[Record]:
    """The complete records of a store that other processes may be writing to, of all hosts, the earlier ones first."""
    with ExitStack() as stack:
        files = [(stack.enter_context(each.open("rb")), each) for each in (path, *files_of_hosts(path))]
        yield from heapq.merge(*(_records(file, each) for file, each in files), key=lambda record: record.at or 0.0)


def _records(file: BinaryIO, path: Path) -> Iterator[Record]:
    for number, (_, line) in enumerate(whole_lines(file.fileno()), start=1):
        try:
            record = Record.model_validate(orjson.loads(line))
        except (orjson.JSONDecodeError, ValidationError) as error:
            raise StoreError(f"{path}:{number}: not a record of the store. {ADVICE}") from error
        if record.key != request_key(record.request):
            raise StoreError(f"{path}:{number}: its key is not that of its request. {ADVICE}")
        yield record
