"""Measure the rule filter's time and memory for ten thousand short answers and for a million.

    python -m benchmarks.filter --rows 10000,1000000

Rows are read one at a time, so the memory should be about the same: at most 1.5 times. Each figure is for ``python -m
stages.filter`` in a separate process with the committed params. Rows and outputs are in .cache/filter.
"""

import json
import sys
from pathlib import Path

import click

from benchmarks.measuring import ROOT, Used, machine, measured, table

FOLDER = ROOT / ".cache" / "filter"
OUTPUTS = ("filtered", "rejected", "control", "disagreements", "metrics")


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default="10000,1000000", show_default=True, help="How many, separated by commas.")
def main(rows: str) -> None:
    click.echo(f"{machine()}\n")
    counts = [int(count) for count in rows.split(",")]
    used = [filtered(count, FOLDER) for count in counts]
    lines = [
        [f"{count:,}", f"{each.wall_s:.1f}", f"{each.cpu_s / count * 1e6:.0f}", f"{each.peak_mb:.1f}"]
        for count, each in zip(counts, used, strict=True)
    ]
    click.echo(table(["rows", "seconds", "CPU µs a row", "peak MB"], lines))
    click.echo(
        f"\nMemory at {counts[-1]:,} rows: {used[-1].peak_mb / used[0].peak_mb:.2f} times that at {counts[0]:,}."
    )


def filtered(count: int, folder: Path) -> Used:
    """Measure the stage on this many rows. The rows are made once and stay in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = made(count, folder)
    outputs = [part for name in OUTPUTS for part in (f"--{name}", str(folder / name))]
    command = [sys.executable, "-m", "stages.filter", "--distilled", str(path), *outputs]
    return measured([*command, "--params", "profiles/embedded.yaml"], folder / "filter.log")


def made(count: int, folder: Path) -> Path:
    """A file with this many short answers, one in four of them wrong."""
    path = folder / f"distilled-{count}.jsonl"
    if not path.exists():
        with path.open("w", encoding="utf-8") as file:
            for number in range(count):
                file.write(json.dumps(row(number)) + "\n")
    return path


def row(number: int) -> dict[str, object]:
    """A short answer."""
    first, second = number % 89, number % 97
    result = first + second + (number % 4 == 0)
    return {
        "id": f"made-{number}",
        "question": f"What is {first} + {second}?",
        "answer": str(first + second),
        "solution": f"{first} + {second} = {first + second}",
        "source": "made",
        "sample": 0,
        "reasoning": f"{first} + {second} = {result}",
        "response": f"The answer is {result}.",
        "finish_reason": "stop",
        "model": "none",
        "usage": {"completion_tokens": 12},
    }


if __name__ == "__main__":
    main()
