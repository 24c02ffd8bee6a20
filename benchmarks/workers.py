"""Measure the rule on answers of several lengths with one process and with more, in turns.

    python -m benchmarks.workers --processes 2

The answers are made as in benchmarks/page.py. A turn is the rule's verdict on all of them; the workers' start is
included. The ratio is that of the shortest turns. CPU seconds are those of all processes: they show what the workers
cost, also where other programs lengthen the turns, and where two processes get more of the cores than one.
"""

import json
import os
import time
from pathlib import Path

import click

from benchmarks.measuring import machine, table
from benchmarks.page import answers
from stages.lib.answers import Verdict, rule_verdict
from stages.lib.params import LocalEngine
from stages.lib.workers import cores, map_rows

TEXTS = Path(__file__).parent / "answers.jsonl"
LENGTHS = ((100, 1000), (2000, 8000))


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default=4000, show_default=True, help="Answers of each length.")
@click.option("--processes", default=cores(), show_default=True, help="Compared with one.")
@click.option("--turns", default=3, show_default=True, help="Of which the shortest counts.")
def main(rows: int, processes: int, turns: int) -> None:
    click.echo(f"{machine()}\n")
    real = [json.loads(line) for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    lines = []
    for characters in LENGTHS:
        cases = [
            (row.question, row.response, row.answer or "") for row in answers("base", ["b"], rows, characters, real)
        ]
        seconds: dict[int, list[tuple[float, float]]] = {1: [], processes: []}
        found = []
        for _ in range(turns):
            for count, taken in seconds.items():
                started, used = time.perf_counter(), cpu_s()
                found.append(list(map_rows(judged, cases, LocalEngine(kind="local", workers=count))))
                taken.append((time.perf_counter() - started, cpu_s() - used))
        if any(each != found[0] for each in found):
            raise click.ClickException("the verdicts differ")
        alone, several = (min(taken) for taken in seconds.values())
        length = f"{sum(len(text) for _, text, _ in cases) / rows:,.0f}"
        shown = [f"{wall:.1f} (CPU {cpu:.1f})" for wall, cpu in (alone, several)]
        lines.append([length, f"{rows:,}", *shown, f"{alone[0] / several[0]:.2f}"])
    heads = ["characters", "rows", "1 process, s", f"{processes} processes, s", "ratio"]
    click.echo(table(heads, lines))


def cpu_s() -> float:
    """The CPU time so far of this process and of those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def judged(case: tuple[str, str, str]) -> Verdict:
    """The rule's verdict on question, response and gold answer."""
    return rule_verdict(*case)


if __name__ == "__main__":
    main()
