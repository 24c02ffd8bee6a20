"""Measure a run of distill whose answers are all in the store: its time, next to plain reading, and its memory.

    python -m benchmarks.rerun        # four minutes

The whole stage, ``python -m stages.distill``, runs in a separate process: with 100,000 stored answers of 6 KB, next to
parsing the same lines with orjson; then with 10,000 and 1,000,000 short answers, likewise. There is no teacher. The
smallest peak that can be shown is that of this process, about 80 MB.
"""

import sys
import tempfile
from pathlib import Path

import click
import orjson

from benchmarks.measuring import machine, measured, table
from benchmarks.teacher import write_params, write_questions
from stages.distill import PlannedCalls
from stages.lib.params import load_params
from stages.lib.store.answer_store import request_key
from stages.lib.teacher.asking import Respondent

UNREACHABLE_URL = "http://127.0.0.1:9/v1"
PLAIN = "import orjson, sys\nfor line in open(sys.argv[1], 'rb'): orjson.loads(orjson.loads(line)['body'])"
HEADS = ["what", "answers", "store", "wall", "CPU", "times plain", "peak memory"]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--long", "long_ones", default=100_000, show_default=True, help="Answers of 6 KB.")
@click.option("--short", default=1_000_000, show_default=True, help="Short answers, against 10,000 of them.")
def main(long_ones: int, short: int) -> None:
    machine_text = machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            cells
            for count, length in ((long_ones, 6_000), (10_000, 100), (short, 100))
            for cells in pair(Path(folder), count, length)
        ]
    print(table(HEADS, rows))
    print(f"\n{machine_text}")


def pair(folder: Path, count: int, length: int) -> list[list[str]]:
    """Plain reading and distill, of one store."""
    names = ("questions", "distilled", "failures", "metrics", "store", "params")
    paths = {name: folder / f"{name}-{count}" for name in names}
    fill(paths, count, length)
    size = f"{paths['store'].stat().st_size / 1e6:.0f} MB"
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    commands = {"plain orjson": ["-c", PLAIN, str(paths["store"])], "distill": ["-m", "stages.distill", *options]}
    used = {
        what: measured([sys.executable, *command], folder / "output.log", {"DVC_ROOT": str(folder)})
        for what, command in commands.items()
    }
    plain_s = used["plain orjson"].cpu_s
    return [
        [
            *(what, f"{count:,}", size, f"{each.wall_s:.1f} s", f"{each.cpu_s:.1f} s"),
            *(f"{each.cpu_s / plain_s:.1f}", f"{each.peak_mb:.0f} MB"),
        ]
        for what, each in used.items()
    ]


def fill(paths: dict[str, Path], count: int, length: int) -> None:
    """Write questions, params, and a store with an answer of about this length to each question."""
    write_questions(paths["questions"], count)
    write_params(paths["params"], UNREACHABLE_URL, concurrency=30)
    params = load_params(paths["params"])
    teacher = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher")
    with paths["store"].open("wb") as store:
        for question, _, request in PlannedCalls(paths["questions"], params.distill, teacher.identity(params.run)):
            message = {"reasoning_content": f"{question.id}: 甲 has 3 apples.\n" * (length // 30 + 1), "content": "5"}
            usage = {"prompt_tokens": 90, "completion_tokens": length // 3}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = orjson.dumps({"model": "mock", "choices": [choice], "usage": usage}).decode()
            store.write(orjson.dumps({"key": request_key(request), "request": request, "body": body}) + b"\n")


if __name__ == "__main__":
    main()
