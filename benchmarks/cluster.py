"""Compare run.engine's kinds on this machine: start-up, where Ray pays, 1, 2 and 4 workers, and asking a teacher.

    make ray-env && python -m benchmarks.cluster    # about ten minutes on an idle machine

The cluster has two nodes on loopback, with two CPUs each in Ray's books whatever the machine has. Each figure is of a
process of its own, from the first row to the last result; the shortest of some turns counts, and the ways take turns.
Rows that wait take 10 ms and no core: with the workers started, they show what the engine adds where other machines
compute. All other figures include the start-up.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from benchmarks.measuring import machine, measured, rows_in, table
from benchmarks.mock_teacher import mock_teacher
from benchmarks.page import answers
from benchmarks.teacher import write_params, write_questions
from benchmarks.workers import TEXTS, cpu_s, judged
from stages.lib import workers
from stages.lib.params import Engine
from stages.lib.workers import map_rows

CHARACTERS = (2000, 8000)
WAIT_S = 0.01
HERE = "127.0.0.2"
SCALE = (1, 2, 4)
CHILD = "import sys; from benchmarks.cluster import child; child(*sys.argv[1:])"
Figures = tuple[float, float]  # seconds, and CPU seconds of the stage's own process and its children


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default="200,1000,4000", show_default=True, help="Answers that the rule judges.")
@click.option("--waiting", default=1000, show_default=True, help="Rows of 10 ms.")
@click.option("--questions", default=2000, show_default=True, help="Questions to the mock teacher; 0: none.")
@click.option("--turns", default=3, show_default=True, help="Of which the shortest counts.")
def main(rows: str, waiting: int, questions: int, turns: int) -> None:
    click.echo(f"{machine()}\n")
    with cluster() as address:
        click.echo(
            f"{start_up(address, turns)}\n\n{where_it_pays(address, [int(each) for each in rows.split(',')], turns)}"
        )
        click.echo(f"\n{scaling(address, waiting, turns)}")
        if questions:
            click.echo(f"\n{asking(address, questions, turns)}")


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with two CPUs each."""
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 2, "object_store_memory": 200 * 2**20, "node_ip_address": HERE}
    found = Cluster(True, head_node_args=settings | {"include_dashboard": False})
    found.add_node(**settings)
    try:
        yield str(found.address)
    finally:
        found.shutdown()


def local(count: int) -> dict[str, Any]:
    """An engine of so many processes."""
    return {"kind": "local", "workers": count}


def ray(address: str, count: int) -> dict[str, Any]:
    """An engine of so many workers of the cluster."""
    return {"kind": "ray", "address": address, "workers": count}


def start_up(address: str, turns: int) -> str:
    """From the first row to its result, for rows that take no time."""
    engines = {"local, 2": local(2), "Ray, 2": ray(address, 2)}
    found = best({name: ("nothing", engine, 1) for name, engine in engines.items()}, turns)
    return table(["engine", "start-up, s", "CPU here, s"], [[name, *map(_s, found[name])] for name in engines])


def where_it_pays(address: str, counts: Sequence[int], turns: int) -> str:
    """The rule on so many answers."""
    lines = []
    for count in counts:
        engines = {"1": local(1), "2": local(2), "ray": ray(address, 2)}
        found = best({name: ("rule", engine, count) for name, engine in engines.items()}, turns)
        one, two, there = (found[name][0] for name in engines)
        lines.append([f"{count:,}", _s(one), _s(two), _s(there), f"{one / there:.2f}", f"{two / there:.2f}"])
    heads = ["answers", "1 process, s", "2 processes, s", "Ray, 2 workers, s", "1 process / Ray", "2 processes / Ray"]
    return table(heads, lines)


def scaling(address: str, count: int, turns: int) -> str:
    """Rows that wait, with 1, 2 and 4 workers, against the time of the waits alone."""
    found = best({str(number): ("waiting", ray(address, number), count) for number in SCALE}, turns)
    first = found[str(SCALE[0])][0]
    lines = [
        [str(number), _s(found[str(number)][0]), f"{first / found[str(number)][0]:.2f}", _s(count * WAIT_S / number)]
        for number in SCALE
    ]
    return table(["workers", "rows that wait, s", "against 1 worker", "waits alone, s"], lines)


def asking(address: str, count: int, turns: int) -> str:
    """Distill from a mock teacher of 200 ms with 64 calls in flight: by the mock's clock, and the whole stage."""
    engines = {"local": local(1)} | {f"Ray, {number}": ray(address, number) for number in SCALE}
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
    for _ in range(turns):
        for name, engine in engines.items():
            seen[name].append(distilled(engine, count))
    shortest = {name: min(found) for name, found in seen.items()}
    lines = [[name, *map(_s, shortest[name]), f"{shortest['local'][0] / shortest[name][0]:.2f}"] for name in engines]
    return table(["engine", "asking, s", "whole stage, s", "CPU of the stage, s", "local / this"], lines)


def distilled(engine: dict[str, Any], count: int) -> tuple[float, float, float]:
    """Seconds between the first request and the last answer, of the whole stage, and CPU seconds of its process."""
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as name:
        folder = Path(name)
        write_questions(folder / "questions.jsonl", count)
        with mock_teacher(0.2, 0.0, 2) as teacher:
            write_params(folder / "params.yaml", teacher.base_url, 64)
            params = YAML(typ="safe").load((folder / "params.yaml").read_text())
            params["run"]["engine"] = engine
            with (folder / "params.yaml").open("w") as file:
                YAML(typ="safe").dump(params, file)
            files = {"questions": "questions.jsonl", "params": "params.yaml", "store": "store.jsonl"}
            files |= {"distilled": "out.jsonl", "failures": "failures.jsonl", "metrics": "metrics.json"}
            options = [word for key, each in files.items() for word in (f"--{key}", str(folder / each))]
            environment = {"API_KEY": "benchmark", "DVC_ROOT": str(folder)}
            used = measured([sys.executable, "-m", "stages.distill", *options], folder / "log", environment)
        answered = rows_in(folder / "out.jsonl")
        if answered != count:
            raise click.ClickException(f"{answered} of {count} answers came")
        return teacher.seen["asking_s"], used.wall_s, used.cpu_s


def best(ways: dict[str, tuple[str, dict[str, Any], int]], turns: int) -> dict[str, Figures]:
    """The figures of the shortest turn of each way; each turn is a process."""
    seen: dict[str, list[Figures]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, (kind, engine, count) in ways.items():
            command = [sys.executable, "-c", CHILD, kind, json.dumps(engine), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            wall, cpu = json.loads(done.stdout)
            seen[name].append((wall, cpu))
    return {name: min(found) for name, found in seen.items()}


def child(kind: str, engine: str, count: str) -> None:
    """One measurement: print its figures."""
    workers.ALONE_S = 0.0
    chosen: Engine = TypeAdapter(Engine).validate_json(engine)
    rows: list[Any] = [None] * int(count)
    if kind == "rule":
        real = [json.loads(line) for line in TEXTS.read_text(encoding="utf-8").splitlines()]
        made = answers("base", ["b"], int(count), CHARACTERS, real)
        rows = [(row.question, row.response, row.answer or "") for row in made]
    function: Any = {"rule": judged, "waiting": wait, "nothing": nothing}[kind]
    if kind == "waiting":
        list(map_rows(function, rows, chosen))  # starts the workers
    started, used = time.perf_counter(), cpu_s()
    found = list(map_rows(function, rows, chosen))
    wall = time.perf_counter() - started
    if len(found) != len(rows):
        raise click.ClickException(f"{len(found)} results of {len(rows)} rows")
    print(json.dumps([wall, cpu_s() - used]))


def wait(_: None) -> None:
    """A row that another machine would compute."""
    time.sleep(WAIT_S)


def nothing(_: None) -> None:
    """A row that takes no time."""


def _s(seconds: float) -> str:
    return f"{seconds:.1f}"


if __name__ == "__main__":
    main()
