"""Measure what more servers of one teacher bring: the same questions by one, two and four, in one run.

    python -m benchmarks.servers                   # about a minute on an idle machine

Each server is a mock teacher (mock_teacher.py) in its own process that takes ``--concurrency`` calls at once, as
run.endpoints says. A row's time is the longest of its servers' from the first request to the last answer.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from ruamel.yaml import YAML

from benchmarks.measuring import machine, measured, rows_in, table
from benchmarks.mock_teacher import mock_teacher
from benchmarks.teacher import OURS, BenchmarkRun, write_questions

SEED = 2
HEADS = ["servers", "answered", "seconds", "times one server", "answers of each"]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--requests", default=1000, show_default=True, help="Questions per row.")
@click.option("--concurrency", default=16, show_default=True, help="Calls at once to each server.")
@click.option("--median-s", default=0.3, show_default=True, help="The median latency in seconds.")
def main(requests: int, concurrency: int, median_s: float) -> None:
    before = machine()
    rows: list[tuple[int, int, float, list[int]]] = []
    for servers in (1, 2, 4):
        with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
            rows.append((servers, *ask(Path(folder), servers, requests, concurrency, median_s)))
    alone = rows[0][2]
    print(
        table(
            HEADS,
            [
                [f"{n}", f"{done:,} of {requests:,}", f"{s:.1f}", f"{alone / s:.2f}", " + ".join(map(str, each))]
                for n, done, s, each in rows
            ],
        )
    )
    print()
    print(before)


def ask(folder: Path, servers: int, requests: int, concurrency: int, median_s: float) -> tuple[int, float, list[int]]:
    """The number of answers, the seconds of asking, the answers of each server."""
    run = BenchmarkRun(folder)
    write_questions(folder / "questions.jsonl", requests)
    with ExitStack() as stack:
        teachers = [stack.enter_context(mock_teacher(median_s, 0.5, SEED + number)) for number in range(servers)]
        command = run.command(OURS, "http://teacher.invalid/v1", servers * concurrency)
        name_servers(folder / "params.yaml", [teacher.base_url for teacher in teachers], concurrency)
        measured(command, folder / "output.log", {"API_KEY": "benchmark", "DVC_ROOT": str(folder)})
    answered = rows_in(folder / "out.jsonl")
    asking_s = max(teacher.seen["asking_s"] for teacher in teachers)
    return answered, asking_s, [int(teacher.seen["answered"]) for teacher in teachers]


def name_servers(path: Path, addresses: list[str], concurrency: int) -> None:
    """Add the servers to a params file."""
    params = YAML(typ="safe").load(path.read_text())
    limits = {"key_variable": None, "requests_per_minute": None, "tokens_per_minute": None}
    entries = [{"base_url": address, "weight": 1.0, "concurrency": concurrency} | limits for address in addresses]
    params["run"]["endpoints"] = {"teacher": {"name": None, "aliases": [], "servers": entries}}
    with path.open("w") as file:
        YAML(typ="safe").dump(params, file)


if __name__ == "__main__":
    main()
