"""What the benchmarks share: the measurement of a child process, a table, and a check that this machine is idle.

used = measured(["python", "-m", "stages.distill", …], log=Path("distill.log"))    → Used(wall_s=…, cpu_s=…, …)
print(table(["way", "CPU"], [["ours", "1.9 ms"]]))
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import click

from stages.lib.files.shards import numbered_lines

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Used:
    """The resources of a process from start to end, including the child processes that it waited for."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measured(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Used:
    """Run a command with its output in a file; a failure ends the benchmark with the last line of the output."""
    started = monotonic()
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output)
        # wait4 counts this child alone; RUSAGE_CHILDREN would count all children so far
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text().splitlines() or ["no output"]
        raise click.ClickException(f"{log}: exit code {process.returncode}: {lines[-1]}")
    return Used(monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def rows_in(path: Path) -> int:
    """The number of rows of a JSONL data file, one file or a folder of parts."""
    return sum(1 for _ in numbered_lines(path, "Run the benchmark again."))


def remove_rows(path: Path) -> None:
    """Remove a data file, one file or a folder of parts, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns, so that it is readable as plain text too."""
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> str:
    """The number of cores, and their load before the run."""
    load = os.getloadavg()[0]
    busy = " Other programs were running: do not publish these figures." if load > 0.5 else ""
    return f"{os.cpu_count()} cores, load {load:.1f} before the run.{busy}"
