"""How fast a verdict by rule is, against math-verify on the same rows.

In:   --rows FILE    distilled rows (question, response, answer); without it the lessons of the tests
Out:  a Markdown table: median and mean microseconds a row, verdicts, and the ratio of the medians

Alone:  python -m benchmarks.answers --rows data/distilled.jsonl
"""

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from stages.lib.answers import rule_verdict
from tests.answers import lessons_en, lessons_zh

Row = tuple[str, str, str]  # question, response, answer


@click.command(help="Time rule_verdict and math-verify on the same rows and print a table.")
@click.option("--rows", "path", type=click.Path(path_type=Path, exists=True), help="Distilled rows, read.")
@click.option("--limit", default=500, show_default=True, help="Rows timed, from the start.")
def main(path: Path | None, limit: int) -> None:
    rows = (read(path) if path else lessons())[:limit]
    ours = timed(lambda row: rule_verdict(*row).verdict, rows)
    theirs = timed(math_verify_verdict(), rows)
    click.echo(table({"rule_verdict": ours, "math-verify": theirs}))


def read(path: Path) -> list[Row]:
    """The rows of a file of distilled answers."""
    rows = map(json.loads, path.read_bytes().splitlines())
    return [(row["question"], row["response"], row["answer"]) for row in rows]


def lessons() -> list[Row]:
    """The whole responses that the tests are made of."""
    return [(question, text, answer) for question, answer, _, text in lessons_zh.LESSONS + lessons_en.LESSONS]


def math_verify_verdict() -> Callable[[Row], str]:
    """math-verify with its defaults, time-outs on; its verdict knows no unsure."""
    from math_verify import parse, verify  # type: ignore[import-untyped]

    return lambda row: "right" if verify(parse(row[2]), parse(row[1])) else "wrong"


def timed(judge: Callable[[Row], str], rows: list[Row]) -> list[tuple[float, str]]:
    """Seconds and verdict of each row, after one unmeasured for what is loaded at first use."""
    judge(rows[0])
    results = []
    for row in rows:
        started = time.perf_counter()
        verdict = judge(row)
        results.append((time.perf_counter() - started, verdict))
    return results


def table(results: dict[str, list[tuple[float, str]]]) -> str:
    """One line a judge."""
    lines = ["| judge | rows | median, µs | mean, µs | right | wrong | unsure |", "|---|---|---|---|---|---|---|"]
    medians = []
    for name, timings in results.items():
        seconds = [second for second, _ in timings]
        verdicts = Counter(verdict for _, verdict in timings)
        medians.append(statistics.median(seconds))
        found = " | ".join(str(verdicts[verdict]) for verdict in ("right", "wrong", "unsure"))
        mean = statistics.mean(seconds)
        lines.append(f"| {name} | {len(seconds)} | {medians[-1] * 1e6:.0f} | {mean * 1e6:.0f} | {found} |")
    return "\n".join([*lines, "", f"Median against median: {medians[1] / medians[0]:.1f} times faster."])


if __name__ == "__main__":
    main()
