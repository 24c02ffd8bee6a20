"""The store of received answers, from one host to another: in goes a file or the store, out comes what both hold.

    python -m stages.lib.store_tools.transfer export answers.jsonl      # on the host that asked
    python -m stages.lib.store_tools.transfer import answers.jsonl      # on the other: what it lacks comes to its store
    python -m stages.lib.store_tools.transfer import r1_distill.txt     # the article's file (r1_distill.py)
    python -m stages.lib.store_tools.transfer r1-distill r1_distill.txt --questions data/questions.jsonl    # and back

The file is laid out as the store is (store/answer_store.py): one record a line, its key the hash of its request:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

All ways add and never take away. Where store and file hold different answers to one request, each keeps its own:
the rows that were made from it stay reproducible. A ``distill`` may be writing to the store meanwhile. No stage
imports this module, so a change of it recomputes nothing.
"""

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import click
import orjson

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.rows import read_some_rows, writing
from stages.lib.rows.question import Question
from stages.lib.store.answer_file import AnswerFile, StoreError, open_answers
from stages.lib.store.answer_store import AnswerStore, default_path, open_store
from stages.lib.store_tools.r1_distill import is_r1_distill, read_r1_distill, write_r1_distill
from stages.lib.store_tools.record import Record, read_records, stored_records

log = logging.getLogger("distillery.store")

TOGETHER = 64  # records that share one fsync

Reader = Callable[[Path, Counter[str]], Iterator[Record]]


@dataclass
class Merged:
    """What became of the records on their way to the other side."""

    added: int = 0
    known: int = 0
    different: int = 0  # of the known ones: the other side has another answer to the same request
    skipped: Counter[str] = field(default_factory=Counter)  # rows without a usable answer, by reason


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
@params_option
@one_line_errors
def import_command(file: Path, store: Path | None, params_path: Path) -> None:
    """Add FILE's records to the store, those that it lacks.

    FILE is an exported store, or the article's r1_distill.txt, whose answers count as those of the prompt and the
    teacher in the params.
    """
    target = store or default_path()
    reader: Reader = exported
    if is_r1_distill(file):
        reader = partial(rows, params_path=params_path)
    merged = import_answers(file, target, reader)
    log.info("import: %s", summary(merged, target))


@main.command("r1-distill")
@click.argument("file", type=WRITE)
@click.option("--questions", "questions_path", type=READ, default=Path("data/questions.jsonl"), show_default=True)
@STORE
@params_option
@one_line_errors
def r1_distill_command(file: Path, questions_path: Path, store: Path | None, params_path: Path) -> None:
    """Write the stored answers to the questions to FILE, in the layout of the article's r1_distill.txt."""
    source = check_store(store or default_path())
    if file.exists():
        raise StoreError(f"{file}: is there already and is not written over. Name another file.")
    questions = read_some_rows(questions_path, Question, "Run 'dvc repro collect' to rebuild it.")
    with open_answers(source) as answers:
        written, skipped = write_r1_distill(file, questions, load_params(params_path).distill, answers)
    log.info("r1-distill: %d answers written to %s%s", written, file, of_no_use(skipped))


def export_answers(store: Path, file: Path) -> Merged:
    """Lay the store's records into a file, which is replaced as a whole or not at all."""
    check_store(store)
    refuse_one_file(store, file)
    merged = Merged()
    with ExitStack() as stack:
        present = None
        if file.is_file():
            check(read_records(file))
            present = stack.enter_context(open_answers(file))
        out = stack.enter_context(writing(file))
        if present is not None:
            with file.open("rb") as before:
                shutil.copyfileobj(before, out)
        for record in stored_records(store):
            if not known(record, present, merged):
                out.write(orjson.dumps(record.model_dump()) + b"\n")
    return merged


def import_answers(file: Path, store: Path, reader: Reader) -> Merged:
    """Append a file's records to the store, which is made where there is none; a bad file adds nothing."""
    refuse_one_file(file, store)
    check(reader(file, Counter()))  # the whole file is read before the first record is taken
    merged = Merged()
    with open_store(store) as answers:
        asyncio.run(append(answers, reader(file, merged.skipped), merged))
    return merged


def exported(file: Path, _: Counter[str]) -> Iterator[Record]:
    """The records of an exported store, all of them."""
    return read_records(file)


def rows(file: Path, skipped: Counter[str], params_path: Path) -> Iterator[Record]:
    """The records of an r1_distill.txt."""
    return read_r1_distill(file, load_params(params_path).distill, skipped)


def check(records: Iterator[Record]) -> None:
    """Read to the end, for the error that may come."""
    for _ in records:
        pass


def check_store(store: Path) -> Path:
    """A store that is there; a device would be read without end."""
    if not store.is_file():
        raise StoreError(f"{store}: no answers were received here. Run 'dvc repro distill', or name one with --store.")
    return store


def refuse_one_file(source: Path, target: Path) -> None:
    """Reading and writing one file at once would end badly."""
    if target.exists() and source.exists() and target.samefile(source):
        raise StoreError(f"{target}: this is the store itself. Name another file.")


async def append(store: AnswerStore, records: Iterator[Record], merged: Merged) -> None:
    """Put what the store lacks into it, in its order, some at a time."""
    while some := list(islice(records, TOGETHER)):
        new: dict[str, Record] = {}
        for record in some:
            if record.key in new:
                merged.known += 1
                merged.different += record.body != new[record.key].body
            elif not known(record, store, merged):
                new[record.key] = record
        await asyncio.gather(*(store.put(record.key, record.request, record.body.encode()) for record in new.values()))


def known(record: Record, answers: AnswerFile | None, merged: Merged) -> bool:
    """Whether the other side has an answer to the request; counted."""
    if answers is None or record.key not in answers:
        merged.added += 1
        return False
    merged.known += 1
    merged.different += answers.body(record.key) != record.body.encode()
    return True


def summary(merged: Merged, target: Path) -> str:
    """``12 answers added to answers.jsonl, 3 were there (1 of them another answer, which stays)``."""
    different = f" ({merged.different} of them another answer, which stays)" if merged.different else ""
    there = f"{merged.known} were there{different}"
    return f"{merged.added} answers added to {target}, {there}{of_no_use(merged.skipped)}"


def of_no_use(skipped: Counter[str]) -> str:
    """``; 5 skipped (3 not_answered, 2 cut_off)``, or nothing."""
    kinds = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
    return f"; {skipped.total()} skipped ({kinds})" if kinds else ""


if __name__ == "__main__":
    main()
