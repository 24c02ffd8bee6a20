"""The store of received answers, from one host to another: in goes a file or the store, out comes what both hold.

    python -m stages.lib.teacher.transfer export answers.jsonl    # on the host that asked
    python -m stages.lib.teacher.transfer import answers.jsonl    # on the other: what it lacks comes to its store

The file is laid out as the store is (store.py): one record a line, its key the hash of its request:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

Both ways add and never take away. Where store and file hold different answers to one request, each keeps its own:
the rows that were made from it stay reproducible. Both wait for a ``distill`` that writes to the store. No stage
imports this module, so a change of it recomputes nothing.
"""

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.command import READ, WRITE, one_line_errors
from stages.lib.records import writing
from stages.lib.teacher.store import AnswerStore, StoreError, default_path, open_store, request_key

log = logging.getLogger("distillery.store")

TOGETHER = 64  # records that share one fsync
AGAIN = "Copy the file again, or move that line to another one."


class Record(BaseModel):
    """One line of the store. An unknown field would be lost on the way, so it is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    key: str
    request: dict[str, Any]
    body: str


@dataclass
class Merged:
    """What became of the records on their way to the other side."""

    added: int = 0
    known: int = 0
    different: int = 0  # of the known ones: the other side has another answer to the same request


@click.group(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
def main() -> None: ...


STORE = click.option("--store", type=READ, default=None, help="Another store  [default: data/store/answers.jsonl]")


@main.command("export")
@click.argument("file", type=WRITE)
@STORE
@one_line_errors
def export_command(file: Path, store: Path | None) -> None:
    """Write the store's records to FILE; what FILE holds already stays in it."""
    merged = export_answers(store or default_path(), file)
    log.info("export: %s", summary(merged, file))


@main.command("import")
@click.argument("file", type=READ)
@STORE
@one_line_errors
def import_command(file: Path, store: Path | None) -> None:
    """Add FILE's records to the store, those that it lacks."""
    target = store or default_path()
    merged = import_answers(file, target)
    log.info("import: %s", summary(merged, target))


def export_answers(store: Path, file: Path) -> Merged:
    """Lay the store's records into a file, which is replaced as a whole or not at all."""
    if not store.is_file():
        raise StoreError(f"{store}: no answers were received here. Run 'dvc repro distill', or name one with --store.")
    refuse_one_file(store, file)
    merged = Merged()
    with open_store(store), writing(file) as out:
        present = bodies(file) if file.is_file() else {}
        if present:
            with file.open("rb") as before:
                shutil.copyfileobj(before, out)
        for record in lacking(store, present, merged):
            out.write(orjson.dumps(record.model_dump()) + b"\n")
    return merged


def import_answers(file: Path, store: Path) -> Merged:
    """Append a file's records to the store, which is made where there is none; a bad file adds nothing."""
    refuse_one_file(file, store)
    bodies(file)  # the whole file is read before the first record is taken
    merged = Merged()
    with open_store(store) as answers:
        asyncio.run(append(answers, lacking(file, bodies(store), merged)))
    return merged


def refuse_one_file(source: Path, target: Path) -> None:
    """Reading and writing one file at once would end badly."""
    if target.exists() and source.exists() and target.samefile(source):
        raise StoreError(f"{target}: this is the store itself. Name another file.")


def lacking(source: Path, present: dict[str, bytes], merged: Merged) -> Iterator[Record]:
    """The records of one side that the other lacks, each once, counted; ``present`` grows by them."""
    for record in read_records(source):
        digest = body_digest(record)
        if record.key not in present:
            merged.added += 1
            present[record.key] = digest
            yield record
        else:
            merged.known += 1
            merged.different += present[record.key] != digest


async def append(store: AnswerStore, records: Iterator[Record]) -> None:
    """Put records into the store in their order, some at a time."""
    while some := list(islice(records, TOGETHER)):
        await asyncio.gather(*(store.put(record.key, record.request, record.body.encode()) for record in some))


def bodies(path: Path) -> dict[str, bytes]:
    """A digest of the body for every key: a million records fit into memory, their bodies would not."""
    return {record.key: body_digest(record) for record in read_records(path)}


def body_digest(record: Record) -> bytes:
    """16 bytes that tell one body from another."""
    return hashlib.blake2b(record.body.encode(), digest_size=16).digest()


def read_records(path: Path) -> Iterator[Record]:
    """The records of a store or of an exported file; StoreError, with the line, where there is something else."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                raise StoreError(f"{path}:{number}: the file ends within this line. {AGAIN}")
            try:
                record = Record.model_validate(orjson.loads(line))
            except (orjson.JSONDecodeError, ValidationError) as error:
                raise StoreError(f"{path}:{number}: not a record of the store. {AGAIN}") from error
            if record.key != request_key(record.request):
                raise StoreError(f"{path}:{number}: its key is not that of its request. {AGAIN}")
            yield record


def summary(merged: Merged, target: Path) -> str:
    """``12 answers added to answers.jsonl, 3 were there (1 of them another answer, which stays)``."""
    different = f" ({merged.different} of them another answer, which stays)" if merged.different else ""
    return f"{merged.added} answers added to {target}, {merged.known} were there{different}"


if __name__ == "__main__":
    main()
