"""Gather the questions: a training set, and a disjoint held-out set to evaluate on.

In:   a source (``collect.source``): GSM8K, or the embedded generator
Out:  data/questions.jsonl   {"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "…"}
      data/heldout.jsonl     the same fields
      data/left_out.jsonl    + {"reason": "duplicate", "same_as": "gsm8k-train-0"}
      metrics/collect.json   the counts

Alone:  python -m stages.collect --questions Q.jsonl --heldout H.jsonl --left-out L.jsonl --metrics M.json
"""

import importlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from stages.lib.command import WRITE, one_line_errors, params_option
from stages.lib.params import Collect, load_params
from stages.lib.records import DataError, LeftOut, Question, write_json, write_rows

log = logging.getLogger("distillery.collect")


@dataclass
class Collected:
    """The questions by where they go."""

    questions: list[Question] = field(default_factory=list)
    heldout: list[Question] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


@click.command(help="Gather the training questions and the held-out ones, duplicates left out.")
@click.option("--questions", "questions_path", type=WRITE, required=True, help="Training questions, written.")
@click.option("--heldout", "heldout_path", type=WRITE, required=True, help="Held-out questions, written.")
@click.option("--left-out", "left_out_path", type=WRITE, required=True, help="Questions left out, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@params_option
@one_line_errors
def main(questions_path: Path, heldout_path: Path, left_out_path: Path, metrics_path: Path, params_path: Path) -> None:
    params = load_params(params_path).collect
    source = importlib.import_module(f"stages.lib.sources.{params.source}")
    collected = separate(source.candidates(params), source.heldout(params))
    check_sizes(collected, params)
    write_rows(questions_path, collected.questions)
    write_rows(heldout_path, collected.heldout)
    write_rows(left_out_path, collected.left_out)
    write_json(metrics_path, counts(collected))
    log.info(
        "collect: %d questions, %d held out, %d left out",
        len(collected.questions),
        len(collected.heldout),
        len(collected.left_out),
    )


def separate(candidates: Iterable[Question], heldout: Iterable[Question]) -> Collected:
    """Each question once, and none of the held-out ones among the training questions."""
    collected = Collected()
    heldout_ids: dict[str, str] = {}
    for question in heldout:
        _keep(question, collected.heldout, heldout_ids, collected.left_out)
    training_ids: dict[str, str] = {}
    for question in candidates:
        same_as = heldout_ids.get(normalised(question.question))
        if same_as:
            collected.left_out.append(LeftOut(**question.model_dump(), reason="in_heldout", same_as=same_as))
        else:
            _keep(question, collected.questions, training_ids, collected.left_out)
    return collected


def _keep(question: Question, kept: list[Question], ids: dict[str, str], left_out: list[LeftOut]) -> None:
    same_as = ids.setdefault(normalised(question.question), question.id)
    if same_as == question.id:
        kept.append(question)
    else:
        left_out.append(LeftOut(**question.model_dump(), reason="duplicate", same_as=same_as))


def normalised(text: str) -> str:
    """The text without differences of case and white space."""
    return " ".join(text.casefold().split())


def check_sizes(collected: Collected, params: Collect) -> None:
    """The source had as many questions as were asked for, and the two sets share none."""
    # by id: a short source gives the same row to both sets
    total = len({row.id for row in [*collected.questions, *collected.heldout, *collected.left_out]})
    asked = params.size + params.heldout_size
    if total < asked:
        raise DataError(
            f"collect: size and heldout_size ask for {asked} questions, the source has {total}. Lower one of them."
        )
    if overlap(collected):
        raise DataError(f"collect: {overlap(collected)} questions are in both sets. This is a fault of collect itself.")


def overlap(collected: Collected) -> int:
    """How many texts stand in the training set and in the held-out set; counted anew from what will be written."""
    training = {normalised(question.question) for question in collected.questions}
    return len(training & {normalised(question.question) for question in collected.heldout})


def counts(collected: Collected) -> dict[str, Any]:
    """The metrics: ``in = questions + heldout + left_out``."""
    reasons = [row.reason for row in collected.left_out]
    return {
        "in": len(collected.questions) + len(collected.heldout) + len(collected.left_out),
        "questions": len(collected.questions),
        "heldout": len(collected.heldout),
        "left_out": {"duplicate": reasons.count("duplicate"), "in_heldout": reasons.count("in_heldout")},
        "overlap": overlap(collected),
    }


if __name__ == "__main__":
    main()
