"""Copy stored answers from one host to another: export the store to a file, and import a file into the store.

    python -m stages.lib.store_tools.transfer export answers.jsonl      # on the host that asked
    python -m stages.lib.store_tools.transfer import answers.jsonl      # on the other: adds the records that it lacks
    python -m stages.lib.store_tools.transfer import r1_distill.txt     # the article's file (r1_distill.py)
    python -m stages.lib.store_tools.transfer r1-distill r1_distill.txt --questions data/questions.jsonl    # and back

The file has the layout of the store (store/answer_store.py): one record per line, its key the hash of its request:

    {"key": "9f86d081…", "request": {"endpoint": "…", "model": "…", "messages": […], "sample": 0}, "body": "{…}"}

Every command only adds records. Where store and file hold different answers to one request, each keeps its own, so that
the rows made from it stay reproducible. A ``distill`` may be writing to the store at the same time. No stage imports
this module, so a change to it reruns no stage.
"""

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

import click
import orjson

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.rows import read_rows, writing
from stages.lib.rows.question import Question
from stages.lib.store.answer_file import AnswerFile, StoreError, files_of_hosts, open_answers
from stages.lib.store.answer_store import AnswerStore, default_path, open_store
from stages.lib.store_tools.r1_distill import is_r1_distill, read_r1_distill, write_r1_distill
from stages.lib.store_tools.record import Record, read_records, stored_records
from stages.lib.teacher.asking import Respondent

log = logging.getLogger("distillery.store")

BATCH_SIZE = 64  # records that share one fsync

Reader = Callable[[Path, Counter[str]], Iterator[Record]]


@dataclass
class MergeCounts:
    """The counts of the transferred records."""

    added: int = 0
    known: int = 0
    different: int = 0  # of the known ones: the target has another answer to the same request
    skipped: Counter[str] = field(default_factory=Counter)  # rows without a usable answer, by reason


@click.group(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
def main() -> None: ...


STORE = click.option("--store", type=READ, default=None, help="Another store  [default: data/store/answers.jsonl]")


@main.command("export")
@click.argument("file", type=WRITE)
@STORE
@one_line_errors
def export_command(file: Path, store: Path | None) -> None:
    """Write the store's records to FILE; records that FILE holds already stay in it."""
    counts = export_answers(store or default_path(), file)
    log.info("export: %s", summary(counts, file))


@main.command("import")
@click.argument("file", type=READ)
@STORE
@params_option
@one_line_errors
def import_command(file: Path, store: Path | None, params_path: Path) -> None:
    """Add the records of FILE that the store lacks.

    FILE is an exported store, or the article's r1_distill.txt. The answers of the latter count as those of the prompt
    and the teacher in the params.
    """
    target = store or default_path()
    reader: Reader = exported_records
    if is_r1_distill(file):
        reader = partial(r1_distill_records, params_path=params_path)
    counts = import_answers(file, target, reader)
    log.info("import: %s", summary(counts, target))


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
        raise StoreError(f"{file}: the file exists already and is not overwritten. Name another file.")
    questions = read_rows(questions_path, Question, "Run 'dvc repro difficulty' to rebuild it.")
    params = load_params(params_path)
    teacher = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher")
    with open_answers(source) as answers:
        teacher.read_aliases(answers, params.run)
        identity = teacher.identity(params.run)
        written, skipped = write_r1_distill(file, questions, params.distill, identity, answers)
    log.info("r1-distill: %d answers written to %s%s", written, file, skipped_text(skipped))


def export_answers(store: Path, file: Path) -> MergeCounts:
    """Write the store's records to a file, which is replaced as a whole or not at all."""
    check_store(store)
    refuse_same_file(store, file)
    counts = MergeCounts()
    with ExitStack() as stack:
        present = None
        if file.is_file():
            read_all(read_records(file))
            present = stack.enter_context(open_answers(file))
        out = stack.enter_context(writing(file))
        if present is not None:
            with file.open("rb") as before:
                shutil.copyfileobj(before, out)
        for record in stored_records(store):
            if not is_known(record, present, counts):
                # without its time: the earlier one of two answers stands first
                out.write(orjson.dumps(record.model_dump(exclude={"at"})) + b"\n")
    return counts


def import_answers(file: Path, store: Path, reader: Reader) -> MergeCounts:
    """Append a file's records to the store, which is created if missing; an invalid file adds nothing."""
    refuse_same_file(file, store)
    read_all(reader(file, Counter()))  # the whole file is read before the first record is taken
    counts = MergeCounts()
    with open_store(store) as answers:
        asyncio.run(append(answers, reader(file, counts.skipped), counts))
    return counts


def exported_records(file: Path, _: Counter[str]) -> Iterator[Record]:
    """All records of an exported store; of a store itself, those of its hosts too."""
    return chain.from_iterable(map(read_records, (file, *files_of_hosts(file))))


def r1_distill_records(file: Path, skipped: Counter[str], params_path: Path) -> Iterator[Record]:
    """The records of an r1_distill.txt."""
    return read_r1_distill(file, load_params(params_path).distill, skipped)


def read_all(records: Iterator[Record]) -> None:
    """Read to the end, so that an error is raised before anything is written."""
    for _ in records:
        pass


def check_store(store: Path) -> Path:
    """The path of a store; StoreError where it is not a file (reading a device would never end)."""
    if not store.is_file():
        raise StoreError(f"{store}: no answers were received here. Run 'dvc repro distill', or name one with --store.")
    return store


def refuse_same_file(source: Path, target: Path) -> None:
    """StoreError where both are one file, which must not be read and written at the same time."""
    if target.exists() and source.exists() and target.samefile(source):
        raise StoreError(f"{target}: this is the store itself. Name another file.")


async def append(store: AnswerStore, records: Iterator[Record], counts: MergeCounts) -> None:
    """Add the records that the store lacks, in their order, in batches."""
    while some := list(islice(records, BATCH_SIZE)):
        new: dict[str, Record] = {}
        for record in some:
            if record.key in new:
                counts.known += 1
                counts.different += record.body != new[record.key].body
            elif not is_known(record, store, counts):
                new[record.key] = record
        puts = (store.put(one.key, one.request, one.body.encode(), one.served_by) for one in new.values())
        await asyncio.gather(*puts)


def is_known(record: Record, answers: AnswerFile | None, counts: MergeCounts) -> bool:
    """Whether the target has an answer to the request; counts the record."""
    if answers is None or record.key not in answers:
        counts.added += 1
        return False
    counts.known += 1
    counts.different += answers.body(record.key) != record.body.encode()
    return True


def summary(counts: MergeCounts, target: Path) -> str:
    """``12 answers added to answers.jsonl, 3 were there (1 of them with another answer, which stays)``."""
    different = f" ({counts.different} of them with another answer, which stays)" if counts.different else ""
    there = f"{counts.known} were there{different}"
    return f"{counts.added} answers added to {target}, {there}{skipped_text(counts.skipped)}"


def skipped_text(skipped: Counter[str]) -> str:
    """``; 5 skipped (3 not_answered, 2 cut_off)``, or nothing."""
    kinds = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
    return f"; {skipped.total()} skipped ({kinds})" if kinds else ""


if __name__ == "__main__":
    main()
