"""What the benchmarks share: a child process measured whole, a table, and whether this machine is quiet.

used = measured(["python", "-m", "stages.distill", …], log=Path("distill.log"))    → Used(wall_s=…, cpu_s=…, …)
print(table(["way", "CPU"], [["ours", "1.9 ms"]]))
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import click

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Used:
    """What a process took from start to end, the processes that it started and waited for included."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measured(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Used:
    """Run a command, its output in a file; a failure ends the benchmark with the last line of it."""
    started = monotonic()
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output)
        # wait4 counts this child alone, where RUSAGE_CHILDREN would count all so far
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text().splitlines() or ["it said nothing"]
        raise click.ClickException(f"{log}: exit code {process.returncode}: {lines[-1]}")
    return Used(monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that it reads as plain text too."""
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> str:
    """How many cores there are, and how busy they were before."""
    load = os.getloadavg()[0]
    busy = " Other work ran beside: these figures are not worth keeping." if load > 0.5 else ""
    return f"{os.cpu_count()} cores, load {load:.1f} before the run.{busy}"
