"""Measure time, memory and disk of the stages up to the training, for ten thousand short rows up to a million.

    python -m benchmarks.scale --rows 10000,100000,1000000      # up to convert: 25 minutes of two cores
    python -m benchmarks.scale --rows 10000,100000 --last collect --near     # with near_duplicates
    python -m benchmarks.scale --rows 100000,10000000 --first distill --last distill    # an hour, 20 GB
    python -m benchmarks.scale --rows 100000,1000000 --first score --last train

collect → difficulty → distill → filter → convert, each in a separate process, on generated sums. The answers are in a
store, so no teacher is asked: one in four of them is wrong. Stages read one row at a time, so the memory at the most
rows should be at most 1.5 times that at the second most. Files are in .cache/scale; parts have run.shard_rows rows.

score and train read sums that are written here as convert writes them, with a random student of two small layers. A
thousand of the sums differ, so the teacher, of the same weights, reads so many; every row is read, tokenized and
written. The training has one step. Of train, the disk is the most that it had of its rows at a time.
"""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import ROOT, Used, machine, measured, table
from stages.lib.files.shards import parts_of

FOLDER = ROOT / ".cache" / "scale"
NEAR = {"ngram": 5, "threshold": 0.8, "permutations": 128, "seed": 3}
WARM_UP = 1000  # rows; the first run also reads the student's tokenizer from its package
DIFFERENT = 1000  # sums that score and train read
STUDENT = "import sys; from pathlib import Path; from benchmarks.training import made_student; "
STUDENT += "made_student(Path(sys.argv[1]))"
FILL = "import sys; from pathlib import Path; from benchmarks.scale import fill_store; fill_store(Path(sys.argv[1]))"
FIRST = ["collect", "distill", "score", "train"]  # what a run can begin with: their input is written here
HEADS = ["stage", "rows", "seconds", "µs a row", "CPU s", "peak MB", "MB written", "files"]
OUTS = {
    "collect": {"questions": "collected.jsonl", "heldout": "heldout.jsonl", "left-out": "left_out.jsonl"},
    "difficulty": {"questions": "questions.jsonl", "too-easy": "too_easy.jsonl"},
    "distill": {"distilled": "distilled.jsonl", "failures": "failures.jsonl"},
    "filter": {name: f"{name}.jsonl" for name in ("filtered", "rejected", "control", "disagreements")},
    "convert": {"out": "filtered"},
    "score": {"scores": "scores.parquet"},
    "train": {"model": "model", "left-out": "train_left_out.jsonl", "loss": "loss.csv"},
}
INS = {
    "difficulty": {"collected": "collected.jsonl"},
    "distill": {"questions": "questions.jsonl", "store": "store/answers.jsonl"},
    "filter": {"distilled": "distilled.jsonl"},
    "convert": {"rows": "filtered.jsonl", "lengths": "lengths.csv"},
    "score": {"dataset": "sums", "logprobs": "none.parquet"},
    "train": {"dataset": "sums"},
}


@dataclass(frozen=True)
class Measured:
    """What a stage took on this many rows, and the sizes of the files that it wrote."""

    stage: str
    rows: int
    used: Used
    sizes: list[int]

    def cells(self) -> list[str]:
        """A line of the table."""
        used, per_row = self.used, self.used.wall_s / self.rows * 1e6
        sizes = f"{sum(self.sizes) / 1e6:.1f}", f"{len(self.sizes)}"
        took = f"{used.wall_s:.1f}", f"{per_row:.0f}", f"{used.cpu_s:.1f}", f"{used.peak_mb:.0f}"
        return [self.stage, f"{self.rows:,}", *took, *sizes]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default="10000,100000,1000000", show_default=True, help="How many, separated by commas.")
@click.option("--shard-rows", default=100_000, show_default=True, help="Rows of a part.")
@click.option("--first", default="collect", show_default=True, type=click.Choice(FIRST), help="The first stage.")
@click.option("--last", default="convert", show_default=True, type=click.Choice(list(OUTS)), help="The last stage.")
@click.option("--near", is_flag=True, help="Search near-duplicates in collect: the sums are of few templates.")
def main(rows: str, shard_rows: int, first: str, last: str, near: bool) -> None:
    click.echo(f"{machine()}\n")
    counts = [int(count) for count in rows.split(",")]
    stages = list(OUTS)[list(OUTS).index(first) : list(OUTS).index(last) + 1]
    chain(WARM_UP, shard_rows, stages, near)
    found = {count: chain(count, shard_rows, stages, near) for count in counts}
    click.echo(table(HEADS, [found[count][stage].cells() for stage in stages for count in counts]))
    for stage in stages if len(counts) > 1 else ():
        before, most = (found[count][stage] for count in counts[-2:])
        slope = (most.used.peak_mb - before.used.peak_mb) * 1e6 / (most.rows - before.rows)
        ratio = most.used.peak_mb / before.used.peak_mb
        click.echo(f"{stage}: {ratio:.2f} times the memory for {most.rows:,} rows, {slope:.0f} bytes a row")


def chain(count: int, shard_rows: int, stages: list[str], near: bool) -> dict[str, Measured]:
    """These stages on this many rows. What an earlier call left is removed."""
    folder = FOLDER / str(count)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "store").mkdir(parents=True)
    (FOLDER / "students").mkdir(exist_ok=True)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "students").symlink_to(FOLDER / "students")
    if not (FOLDER / "student").exists():
        measured([sys.executable, "-c", STUDENT, str(FOLDER / "student")], FOLDER / "student.log")
    found = {}
    for stage in stages:
        write_params(folder / "params.yaml", count, shard_rows, stage, near)
        if "dataset" in INS.get(stage, {}) and not (folder / "sums").exists():
            write_sums(folder / "sums", count, shard_rows)
        if stage == stages[0] == "distill":
            write_questions(folder / "questions.jsonl", count, shard_rows)
        if stage == "distill":  # a process's peak includes that of the one that starts it, so this one stays small
            measured([sys.executable, "-c", FILL, str(folder)], folder / "fill.log")
        with most_in(folder / ".cache" / "training") as most:
            used = run(stage, folder)
        found[stage] = Measured(stage, count, used, most if stage == "train" else sizes(stage, folder))
        used = found[stage].used
        click.echo(f"{stage}: {count:,} rows in {used.wall_s:.1f} s, {used.peak_mb:.0f} MB", err=True)
    return found


def run(stage: str, folder: Path) -> Used:
    """Run a stage in its own process."""
    files = OUTS[stage] | INS.get(stage, {}) | {"metrics": f"{stage}.json", "params": "params.yaml"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(folder / path))]
    if "dataset" in files:
        options += ["--arm", "filtered"] + ["--cache", str(folder / "scores.sqlite")] * (stage == "score")
    command = [sys.executable, "-m", f"stages.{stage}", *options]
    return measured(command, folder / f"{stage}.log", {"DVC_ROOT": str(folder), "TQDM_DISABLE": "1"})


def sizes(stage: str, folder: Path) -> list[int]:
    """The sizes in bytes of the files that a stage wrote."""
    paths = [folder / name for name in OUTS[stage].values()]
    if stage == "convert":
        paths = [folder / "filtered" / "filtered.json", folder / "filtered" / "dropped.jsonl"]
    return [file.stat().st_size for path in paths for file in parts_of(path, "")]


@contextmanager
def most_in(folder: Path) -> Iterator[list[int]]:
    """The sizes of a folder's files when they were the largest together, of twice a second."""
    most: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            with suppress(FileNotFoundError):  # Python 3.11's, where a folder is removed while it is walked
                found = [size for path in folder.rglob("*") if (size := size_of(path))]
                if sum(found) > sum(most):
                    most[:] = found

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def size_of(path: Path) -> int:
    """The size of a file; 0 of a folder, and of what was removed just now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def write_questions(path: Path, count: int, shard_rows: int) -> None:
    """Sums, all different, as difficulty writes its questions."""
    from stages.lib.rows import write_rows
    from stages.lib.rows.question import Question

    pairs = (divmod(number, 10_000) for number in range(count))
    sums = (
        Question(
            id=f"sum-{one}-{other}",
            question=f"What is {one} + {other}?",
            answer=str(one + other),
            solution=f"{one} + {other} = {one + other}",
            source="sums",
        )
        for one, other in pairs
    )
    write_rows(path, sums, shard_rows)


def write_sums(folder: Path, count: int, shard_rows: int) -> None:
    """A ShareGPT dataset of sums, as convert writes it."""
    from stages.convert import LIST, dataset_info
    from stages.lib.files.shards import writing_parts
    from stages.lib.params import load_params
    from stages.lib.rows import write_json

    tags = load_params(folder.with_name("params.yaml")).convert.tags
    with writing_parts(folder / f"{folder.name}.json", shard_rows, LIST) as parts:
        for number in range(count):
            one, other = divmod(number % DIFFERENT, 100)
            answer = f"<think>\n\n{one} + {other} = {one + other}.</think>\n\n<answer>\n\n{one + other}</answer>"
            turns = [(tags.user_tag, f"What is {one} + {other}?"), (tags.assistant_tag, answer)]
            named = [{tags.role_tag: speaker, tags.content_tag: text} for speaker, text in turns]
            sample = {"system": "Think step by step.", "conversations": named}
            parts.add(json.dumps(sample, indent=4).replace("\n", "\n    ").encode())
    write_json(folder / "dataset_info.json", {folder.name: dataset_info(folder, tags)})


def write_params(path: Path, count: int, shard_rows: int, stage: str, near: bool) -> None:
    """The embedded profile with so many questions, long enough to be different, and without a teacher."""
    yaml = YAML()
    params: dict[str, Any] = yaml.load((ROOT / "profiles" / "embedded.yaml").read_text(encoding="utf-8"))
    params["collect"]["train_size"] = count
    params["collect"]["source"] |= {"seed": 0, "heldout_seed": 10**9, "max_digits": 6}
    params["collect"]["near_duplicates"] = NEAR if near else None
    params["run"] |= {"offline": True, "shard_rows": shard_rows}
    if stage in ("score", "train"):
        student = {"kind": "path", "name": str(FOLDER / "student")}
        params["train"]["student"] = student
        params["run"]["threads"] = 1
        params["arms"]["filtered"] |= {"max_steps": 1, "alpha": 0.5 if stage == "score" else 0.0}
        params["score"] = {"kind": "teacher", "teacher": student, "top_k": 5, "dtype": "float32", "served": None}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def fill_store(folder: Path) -> None:
    """Write an answer to each question into the store, one in four of them wrong."""
    import orjson

    from stages.distill import PlannedCalls
    from stages.lib.params import load_params
    from stages.lib.store.answer_store import request_key
    from stages.lib.teacher.asking import Respondent

    params = load_params(folder / "params.yaml")
    identity = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher").identity(params.run)
    with (folder / "store" / "answers.jsonl").open("wb") as store:
        calls = PlannedCalls(folder / "questions.jsonl", params.distill, identity)
        for number, (question, _, request) in enumerate(calls):
            value = f"{question.answer}{'1' * (number % 4 == 0)}"
            message = {"reasoning_content": f"{question.solution}.", "content": f"The answer is {value}."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 40, "completion_tokens": 30 + number % 50}
            body = orjson.dumps({"model": "made", "choices": [choice], "usage": usage}).decode()
            store.write(orjson.dumps({"key": request_key(request), "request": request, "body": body}) + b"\n")


if __name__ == "__main__":
    main()
