"""Estimate requests, tokens, cost, hours, disk, memory and cards of a run, by stage, before it is paid for.

python -m stages.lib.plan --params profiles/ascend.yaml --questions 1e6      # make plan PROFILE=ascend QUESTIONS=1e6
python -m stages.lib.plan --params profiles/ascend.yaml                      # from 10^3 to 10^8 questions
python -m stages.lib.plan --json                                             # params.yaml, for programs

The unit costs, their ranges and sources are in stages/lib/plan/units.yaml. If the settings are those of params.yaml,
yields and lengths come from the metrics of its last run. Nothing is asked, and nothing is written.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from stages.lib.command import READ, DistilleryError, one_line_errors
from stages.lib.params import Params, load_params
from stages.lib.plan.estimate import Line, Plan, as_json, card_hours, plan, totals
from stages.lib.plan.measured import measured
from stages.lib.plan.units import Range, Unit, Units

SCALES = tuple(10**power for power in range(3, 9))
SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--params", "params_path", type=READ, default=Path("params.yaml"), show_default=True, help="Parameters.")
@click.option("--questions", help="Questions to draw, such as 1e6; 'all': a table from 10^3 to 10^8.  [default: all]")
@click.option(
    "--teacher-cards", type=click.IntRange(min=0), default=0, help="Cards of a teacher of one's own; 0: a provider."
)
@click.option("--metrics", type=READ, default=Path("metrics"), show_default=True, help="The metrics of a run.")
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
@one_line_errors
def main(params_path: Path, questions: str | None, teacher_cards: int, metrics: Path, as_json_: bool) -> None:
    params = load_params(params_path)
    yields = measured(metrics, params, Path("params.yaml"))
    counts = SCALES if questions in (None, "all") else (number(str(questions)),)
    made = [planned(params, each, yields, teacher_cards) for each in counts]
    if as_json_:
        found = [as_json(each, units) for each, units in made]
        click.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False))
        return
    (first, units) = made[0]
    click.echo("\n".join(by_stage(first) if len(made) == 1 else by_scale([each for each, _ in made])))
    click.echo()
    click.echo("\n".join(footnotes(first, units)))


def planned(params: Params, questions: float, yields: dict[str, Unit], teacher_cards: int) -> tuple[Plan, Units]:
    """A plan, and the units that it used."""
    units = Units(yields)
    return plan(params, questions, units, teacher_cards), units


def number(text: str) -> float:
    """``1e6`` or ``1_000_000``."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1e12:
        raise DistilleryError(f"QUESTIONS={text}: no number of questions. Write one such as 1e6.")
    return value


def by_stage(found: Plan) -> Iterator[str]:
    """The table of one plan."""
    yield f"{shown(found.questions)} questions"
    yield ""
    yield from _table(["stage", "what", "low", "mid", "high", "unit"], [_cells(line) for line in _lines(found)])


def _lines(found: Plan) -> Iterator[Line]:
    yield from found.lines
    yield from totals(found)


def _cells(line: Line) -> list[str]:
    return [line.stage, line.what, *(shown(getattr(line.value, end)) for end in ("low", "mid", "high")), line.unit]


def by_scale(plans: list[Plan]) -> Iterator[str]:
    """The totals of several plans, a row each: mid, and low to high in brackets."""
    units = {line.what: line.unit for line in plans[-1].lines}
    columns = [what for what in ("requests", "answer tokens", "cost", "hours", "disk", "cards") if what in units]
    heads = [f"{what} ({units[what]})" if units[what] else what for what in columns]
    rows = []
    for found in plans:
        cells = [spread(found.total(what)) for what in columns]
        rows.append([shown(found.questions), *cells, spread(card_hours(found))])
    yield from _table(["questions", *heads, "card hours"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *rows]:
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"


def footnotes(found: Plan, units: Units) -> Iterator[str]:
    """The sources of the units, and what is not counted."""
    yield "Low and high take every unit at its end; the truth is likelier near the middle. Units:"
    for name, unit in sorted(units.used.items()):
        yield f"  {name}: {spread(unit.range)} ({unit.kind}: {unit.source})"
    for note in found.notes:
        yield f"Note: {note}"


def spread(value: Range) -> str:
    """``1.1k (0.9k to 1.4k)``."""
    low, mid, high = (shown(getattr(value, end)) for end in ("low", "mid", "high"))
    return mid if low == high else f"{mid} ({low} to {high})"


def shown(value: float) -> str:
    """Three digits: ``1.14k``, ``7.8M``; small values as they are."""
    for size, suffix in SUFFIXES:
        if value >= size:
            return f"{value / size:.3g}{suffix}" if value < 999.5 * size else f"{value / size:.0f}{suffix}"
    return f"{value:.3g}"


if __name__ == "__main__":
    main()
