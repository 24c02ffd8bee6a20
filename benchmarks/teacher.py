"""Compare our way of asking a teacher with other ways: time, CPU and memory, one table in one run.

    python -m benchmarks.teacher                          # about eight minutes on an idle machine
    python -m benchmarks.teacher --requests 60 --small 20 # a quick check that it runs

Every row is a separate process, and the mock teacher (mock_teacher.py) is another. Ours is the whole stage, ``python -m
stages.distill``, with store and rows; the others (ways.py) ask, and write the answers to a file. Where the CPU of one
process decides, ours is also started twice: both use one store, each has half of the calls at once, and the peak memory
is that of one of them.

asking        from the first request to the last answer, by the mock teacher's clock
of ideal      the shortest time possible for these latencies and this many workers, as a share of the asking time
CPU           user and system time per answer, of the whole process; then without the start-up, which is measured
              separately with one question
"""

import heapq
import json
import shlex
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import ROOT, Used, machine, measured, remove_rows, rows_in, table
from benchmarks.mock_teacher import answers_per_s, latencies, mock_teacher

SEED = 2  # its slowest answers come early: after a late one, the workers would be idle for a long time
PROMPT = "father"
THREADS = 30  # the article's
OURS, TWICE = "ours", "twice"
WAYS = {
    OURS: "ours (the whole stage)",
    TWICE: "ours, two processes with one store",
    "article": "the article's: a new client a call",
    "threads": "threads, one client",
    "async": "AsyncOpenAI",
    "raw": "raw aiohttp (the limit)",
}
HEADS = [
    *("latency", "way", "at once", "answered", "asking", "ideal", "of ideal", "whole process"),
    *("CPU an answer", "without start-up", "against ours", "peak memory"),
]


@dataclass(frozen=True)
class Load:
    """The teacher's latency, the questions in flight, and the number of questions as a multiple of the usual one."""

    name: str
    median_s: float
    sigma: float
    concurrency: int
    times: float = 1.0


LOADS = [
    Load("200 ms", 0.2, 0.0, 30),
    # more questions: every way ends with a wait for the slowest answers, which should be a small part of the run
    Load("median 1 s, sigma 0.7", 1.0, 0.7, 256, times=1.5),
    Load("200 ms", 0.2, 0.0, 1000, times=6),
]


@dataclass(frozen=True)
class Row:
    """One way under one load."""

    load: Load
    way: str
    asked: int
    concurrency: int
    answered: int
    seen: dict[str, float]
    used: Used

    @property
    def ideal_s(self) -> float:
        """The shortest time for these latencies at this concurrency."""
        drawn = islice(latencies(self.load.median_s, self.load.sigma, SEED), self.asked)
        return ideal_wall_s(drawn, self.concurrency)


@dataclass
class BenchmarkRun:
    """The folder of a benchmark run, and the CPU time of each way's start-up."""

    folder: Path
    startup_cpu_s: dict[str, float] = field(default_factory=dict)

    def row(self, load: Load, way: str, asked: int) -> Row:
        """Run one way under one load; the article's way alone always has its 30 threads."""
        concurrency = THREADS if way == "article" else load.concurrency
        print(f"{load.name}, {concurrency} at once: {way}, {asked} questions", file=sys.stderr)
        write_questions(self.folder / "questions.jsonl", asked)
        (self.folder / "store.jsonl").unlink(missing_ok=True)
        remove_rows(self.folder / "out.jsonl")
        with mock_teacher(load.median_s, load.sigma, SEED) as teacher:
            command = self.command(way, teacher.base_url, concurrency)
            environment = {"API_KEY": "benchmark", "DVC_ROOT": str(self.folder)}
            used = measured(command, self.folder / "output.log", environment)
        answered = rows_in(self.folder / "out.jsonl")
        return Row(load, way, asked, concurrency, answered, teacher.seen, used)

    def command(self, way: str, base_url: str, concurrency: int) -> list[str]:
        """The command of a way; ours has its params file written."""
        paths = ["--questions", str(self.folder / "questions.jsonl")]
        if way == OURS:
            return self.distill(paths, base_url, concurrency)
        if way == TWICE:
            half = max(1, concurrency // 2)
            one, other = (shlex.join(self.distill(paths, base_url, half, end)) for end in ("", ".2"))
            return ["bash", "-c", f"{one} & first=$!; {other}; code=$?; wait $first && exit $code"]
        paths += ["--out", str(self.folder / "out.jsonl"), "--base-url", base_url]
        options = ["--concurrency", str(concurrency), "--prompt", PROMPT]
        return [sys.executable, "-m", "benchmarks.ways", way, *paths, *options]

    def distill(self, paths: list[str], base_url: str, concurrency: int, end: str = "") -> list[str]:
        """The command of the stage, with its params file; ``end``: of the names of what it writes."""
        write_params(self.folder / f"params.yaml{end}", base_url, concurrency)
        outs = {
            "distilled": "out.jsonl",
            "failures": "failures.jsonl",
            "metrics": "metrics.json",
            "params": "params.yaml",
        }
        files = {key: f"{name}{end}" for key, name in outs.items()} | {"store": "store.jsonl"}
        paths = paths + [word for key, name in files.items() for word in (f"--{key}", str(self.folder / name))]
        return [sys.executable, "-m", "stages.distill", *paths]

    def measure_startup(self) -> None:
        """Measure each way's CPU time for one question: the lower of two runs, because the first reads the disk."""
        load = Load("start-up", 0.0, 0.0, 1)
        for way in WAYS:
            self.startup_cpu_s[way] = min(self.row(load, way, asked=1).used.cpu_s for _ in range(2))

    def cpu_ms(self, row: Row) -> float:
        """CPU time per answer without the start-up, in milliseconds."""
        return (row.used.cpu_s - self.startup_cpu_s[row.way]) / max(row.answered - 1, 1) * 1000


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--requests", default=2000, show_default=True, help="Questions per row.")
@click.option("--small", default=200, show_default=True, help="Questions of the article's rows except the first.")
def main(requests: int, small: int) -> None:
    before = machine()
    possible = answers_per_s()
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
        run = BenchmarkRun(Path(folder))
        run.measure_startup()
        rows = [
            run.row(load, way, question_count(load, way, requests, small))
            for load in LOADS
            for way in WAYS
            if way != TWICE or load is LOADS[-1]
        ]
    print(table(HEADS, [cells(row, rows, run) for row in rows]))
    print()
    starts = ", ".join(f"{way} {seconds * 1000:.0f} ms" for way, seconds in run.startup_cpu_s.items())
    busiest = max(row.seen["cpu_s"] / row.seen["asking_s"] for row in rows)
    print(f"CPU of the start-up (a run of one question): {starts}.")
    print(f"The mock teacher can give {possible:,.0f} answers/s; it was never busier than {busiest:.0%} of a core.")
    print(before)
    print(f"The article's way runs at its own {THREADS} threads under every load.")


def question_count(load: Load, way: str, requests: int, small: int) -> int:
    """The number of questions; the article's way is slow, so it gets the full number only in the first row."""
    return small if way == "article" and load is not LOADS[0] else int(requests * load.times)


def cells(row: Row, rows: Iterable[Row], run: BenchmarkRun) -> list[str]:
    """A row of the table."""
    (ours,) = [other for other in rows if other.way == OURS and other.load is row.load]
    return [
        row.load.name,
        WAYS[row.way],
        f"{row.concurrency:,}",
        f"{row.answered:,} of {row.asked:,}",
        f"{row.seen['asking_s']:.1f} s",
        f"{row.ideal_s:.1f} s",
        f"{row.ideal_s / row.seen['asking_s']:.0%}",
        f"{row.used.wall_s:.1f} s",
        f"{row.used.cpu_s / max(row.answered, 1) * 1000:.1f} ms",
        f"{run.cpu_ms(row):.1f} ms",
        f"{run.cpu_ms(row) / run.cpu_ms(ours):.1f} ×",
        f"{row.used.peak_mb:.0f} MB",
    ]


def ideal_wall_s(drawn: Iterable[float], workers: int) -> float:
    """The time when the last latency ends, if each one is started by the first free worker."""
    free = [0.0] * workers
    for latency in drawn:
        heapq.heapreplace(free, free[0] + latency)
    return max(free)


def write_questions(path: Path, count: int) -> None:
    """Write questions of the length of grade-school problems, all different."""
    with path.open("w") as file:
        for number in range(count):
            question = (
                f"Natalia sold {number} clips to her friends in April, and then she sold half as many clips in May. "
                "How many clips did Natalia sell altogether in April and May?"
            )
            file.write(json.dumps({"id": f"q{number}", "question": question, "answer": "72"}) + "\n")


def write_params(path: Path, base_url: str, concurrency: int) -> None:
    """Write the committed params with the mock teacher; a failed row is counted and does not end the run."""
    params: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["distill"] |= {"prompt": PROMPT, "max_failed_share": 1.0}
    sampling: dict[str, Any] = {"temperature": None, "top_p": None, "max_tokens": None, "extra_body": {}}
    params["distill"]["teacher"] = {"kind": "openai_compatible", "base_url": base_url, "model": "mock"} | sampling
    del params["run"]["embedded"]
    params["run"] |= {"concurrency": concurrency, "api_key_variables": {"teacher": "API_KEY"}}
    with path.open("w") as file:
        YAML(typ="safe").dump(params, file)


if __name__ == "__main__":
    main()
