"""The store at size: reading a large one again, and the memory that its index takes.

    python -m benchmarks.store

A rerun (open the store, ask for each key, read each body) over 100,000 answers of 6 KB, beside reading the same lines
with orjson and nothing else; then the memory of an open store with 10,000 and 1,000,000 short answers. Each figure is
from a process of its own; the stores lie in .cache/store, made once.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import orjson

from stages.lib.teacher.store import AnswerStore, open_store, request_key

ROOT = Path(__file__).resolve().parents[1]
KEPT: list[AnswerStore] = []


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--measure", type=click.Choice(["plain", "rerun", "open"]), help="One figure, in this process.")
@click.option("--entries", default=100_000)
@click.option("--length", default=6_000)
def main(measure: str | None, entries: int, length: int) -> None:
    if measure:
        print(json.dumps(measured({"plain": plain, "rerun": rerun, "open": opened}[measure], made(entries, length))))
        return
    print("| what | entries | file MB | seconds | CPU s | memory MB (peak) | memory MB (end) |")
    print("|---|---|---|---|---|---|---|")
    for kind, count, body in (
        ("plain", entries, length),
        ("rerun", entries, length),
        ("open", entries, length),
        ("open", 10_000, 100),
        ("open", 1_000_000, 100),
    ):
        path = made(count, body)
        command = [sys.executable, "-m", "benchmarks.store", "--measure", kind]
        command += ["--entries", str(count), "--length", str(body)]
        figures = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
        size = path.stat().st_size / 1e6
        print(f"| {kind} | {count:,} | {size:.0f} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")


def made(entries: int, length: int) -> Path:
    """A store with so many answers of about this length."""
    path = ROOT / ".cache" / "store" / f"{entries}-{length}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for number in range(entries):
                file.write(orjson.dumps(record(number, length)) + b"\n")
    return path


def record(number: int, length: int) -> dict[str, object]:
    """An answer with the words and the escapes of a real one."""
    request = asked(number)
    text = f"Step {number}: 甲 has 3 apples.\n" * (length // 30)
    body = {"choices": [{"message": {"content": "5", "reasoning_content": text}, "finish_reason": "stop"}]}
    return {"key": request_key(request), "request": request, "body": orjson.dumps(body).decode()}


def asked(number: int) -> dict[str, object]:
    """The request of an answer."""
    messages = [{"role": "user", "content": f"What is {number} + 1?"}]
    return {"endpoint": "http://127.0.0.1/v1", "model": "m", "messages": messages, "sample": 0}


def measured(work: Callable[[Path], None], path: Path) -> list[float]:
    """Wall and CPU seconds of some work, then this process's memory at its peak and now, in MB."""
    started, before = time.perf_counter(), time.process_time()
    work(path)
    seconds, cpu = time.perf_counter() - started, time.process_time() - before
    return [seconds, cpu, memory_mb("VmHWM"), memory_mb("VmRSS")]


def memory_mb(kind: str) -> float:
    """The memory of this process: VmHWM its peak, VmRSS now. (``getrusage`` takes over the peak of who started it.)"""
    return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0]) * 1024 / 1e6


def plain(path: Path) -> None:
    """Every line parsed by orjson, and the body in it again, as a reader of answers must."""
    with path.open("rb") as lines:
        for line in lines:
            orjson.loads(orjson.loads(line)["body"])


def rerun(path: Path) -> None:
    """What a second run does: every key looked up, every body read and parsed."""
    entries = int(path.stem.split("-")[0])
    with open_store(path) as store:
        keys = [request_key(asked(number)) for number in range(entries)]
        assert all(key in store for key in keys)
        for key in keys:
            orjson.loads(store.body(key))


def opened(path: Path) -> None:
    """Only the index."""
    with open_store(path) as store:
        KEPT.append(store)  # its memory is measured after this


if __name__ == "__main__":
    main()
