"""Keep the right answers: each response's final answer against the gold one.

In:   data/distilled.jsonl
Out:  data/filtered.jsonl   the row + {"prediction": "72", "verdict": "right", "decided_by": "rule:phrase"}
      data/rejected.jsonl   the same + {"reason": "wrong_answer"}
      data/control.jsonl    distilled rows, as many dropped as by the filter but at random (seeded)
      metrics/filter.json   the counts

Alone:  python -m stages.filter --distilled D.jsonl --filtered F.jsonl --rejected R.jsonl --control C.jsonl --metrics M
"""

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import click

from stages.lib.answers import Verdict, rule_verdict
from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.records import DataError, Distilled, Filtered, Rejected, read_some_rows, write_json, write_rows

log = logging.getLogger("distillery.filter")


@click.command(help="Judge every answer, keep the right ones, say of each other why it was dropped.")
@click.option("--distilled", "distilled_path", type=READ, required=True, help="The teacher's answers, read.")
@click.option("--filtered", "filtered_path", type=WRITE, required=True, help="Right answers, written.")
@click.option("--rejected", "rejected_path", type=WRITE, required=True, help="Dropped answers, written.")
@click.option("--control", "control_path", type=WRITE, required=True, help="The random control, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@params_option
@one_line_errors
def main(
    distilled_path: Path,
    filtered_path: Path,
    rejected_path: Path,
    control_path: Path,
    metrics_path: Path,
    params_path: Path,
) -> None:
    params = load_params(params_path).filter
    rows = read_some_rows(distilled_path, Distilled, "Run 'dvc repro distill' to rebuild it.")
    kept, rejected = judge(rows, params.on_unsure)
    if not kept:
        raise DataError(
            f"{distilled_path}: not one of {len(rows)} answers is to be kept. Look at their 'response' fields."
        )
    write_rows(filtered_path, kept)
    write_rows(rejected_path, rejected)
    write_rows(control_path, random_control(rows, len(kept), params.control_seed))
    write_json(metrics_path, counts(kept, rejected))
    log.info("filter: kept %d of %d (%s)", len(kept), len(rows), _reasons(rejected))


def judge(rows: list[Distilled], on_unsure: str) -> tuple[list[Filtered], list[Rejected]]:
    """Each row among the kept or among the rejected, in the order it came; ``on_unsure`` is 'reject' or 'keep'."""
    kept: list[Filtered] = []
    rejected: list[Rejected] = []
    for row in rows:
        verdict = rule_verdict(row.question, row.response, row.answer)
        if verdict.verdict == "right" or (verdict.verdict == "unsure" and on_unsure == "keep"):
            kept.append(Filtered(**_judged(row, verdict)))
        else:
            wrong = verdict.verdict == "wrong"
            rejected.append(Rejected(**_judged(row, verdict), reason="wrong_answer" if wrong else "no_answer_read"))
    return kept, rejected


def _judged(row: Distilled, verdict: Verdict) -> dict[str, Any]:
    return row.model_dump() | {
        "prediction": verdict.prediction,
        "verdict": verdict.verdict,
        "decided_by": f"rule:{verdict.rule}",
    }


def random_control(rows: list[Distilled], size: int, seed: int) -> list[Distilled]:
    """``size`` of the rows drawn at random, in their order: the filter's effect without its judgement."""
    chosen = set(random.Random(seed).sample(range(len(rows)), size))
    return [row for index, row in enumerate(rows) if index in chosen]


def counts(kept: list[Filtered], rejected: list[Rejected]) -> dict[str, Any]:
    """The metrics: ``in = kept + rejected``."""
    return {
        "in": len(kept) + len(rejected),
        "kept": len(kept),
        "kept_unsure": sum(row.verdict == "unsure" for row in kept),
        "kept_share": round(len(kept) / (len(kept) + len(rejected)), 4),
        "rejected": len(rejected),
        "rejected_by_reason": dict(sorted(Counter(row.reason for row in rejected).items())),
        "decided_by": dict(sorted(Counter(row.decided_by for row in [*kept, *rejected]).items())),
        "control": len(kept),
    }


def _reasons(rejected: list[Rejected]) -> str:
    found = Counter(row.reason for row in rejected).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in found) or "none dropped"


if __name__ == "__main__":
    main()
