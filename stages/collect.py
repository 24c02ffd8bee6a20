"""Collect the questions: a training set, and a disjoint held-out set for the evaluation.

In:   a source (``collect.source``); the benchmarks' files, where params name them, and data/eval_data, the downloaded
      benchmarks, where ``collect.contamination.downloaded`` is true
Out:  data/collected.jsonl   {"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "…"}
      data/heldout.jsonl     the same fields
      data/left_out.jsonl    + {"reason": "duplicate", "same_as": "gsm8k-train-0", "benchmark_hits": []}
                             + {"reason": "near_duplicate", "same_as": "gsm8k-train-0", "benchmark_hits": [],
                                "similarity": 0.935}
                             + {"reason": "contaminated", "same_as": null, "benchmark_hits":
                                [{"benchmark": "gsm8k", "question": "…", "ngram": "…"}]}
                             + {"reason": "control_token", "same_as": null, "benchmark_hits": []}
      metrics/collect.json   the counts

A training question is left out for the first of these reasons that holds:

    control_token    it has a text that the student reads as a control token (<|im_end|>)
    in_heldout       it is also in the held-out set
    near_heldout     its wording is nearly that of a held-out question (``collect.near_duplicates``)
    contaminated     it shares n consecutive words with a benchmark's question
    duplicate        it is in the training set already
    near_duplicate   its wording is nearly that of a training question before it (``collect.near_duplicates``)

A held-out question is left out for control_token and duplicate. Its near-duplicates stay, so that another threshold
changes the training set and not the evaluation. Of a question with earlier turns, all turns of the user are compared; a
control token is searched in all its turns and in its system text.

Alone:  python -m stages.collect --questions C.jsonl --heldout H.jsonl --left-out L.jsonl --metrics M.json
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any, get_args

import click
from tqdm import tqdm

from stages.lib.chat_template import ControlTokens
from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.hygiene.contamination import BenchmarkIndex, benchmark_indexes, contamination_counts
from stages.lib.hygiene.duplicates import normalised
from stages.lib.params import Engine, NearDuplicateParams, load_params
from stages.lib.rows import DataError, write_json, write_rows
from stages.lib.rows.question import LeftOut, NearlySame, Question
from stages.lib.sources import draw
from stages.lib.wording.description import described
from stages.lib.wording.examining import Examined, Examining
from stages.lib.wording.near_duplicates import NearDuplicates
from stages.lib.workers import map_rows

log = logging.getLogger("distillery.collect")


@dataclass
class Collected:
    """The questions by where they go, and how many were ``received`` from the source."""

    received: int = 0
    questions: list[Question] = field(default_factory=list)
    heldout: list[Question] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


class Kept:
    """The questions of one set so far, to compare others with."""

    def __init__(self, rows: list[Question], near: NearDuplicateParams | None) -> None:
        self._rows = rows
        self._ids: dict[str, str] = {}
        self._near = NearDuplicates(near) if near else None

    def add(self, question: Question, examined: Examined) -> None:
        """Keep a question."""
        self._rows.append(question)
        self._ids[normalised(question.user_text)] = question.id
        if self._near and examined.sketch is not None:
            self._near.add(question.id, question.user_text, examined.sketch)

    def same(self, question: Question, reason: str) -> LeftOut | None:
        """The question as one to leave out, if a kept one has the same text, or is a turn of it."""
        texts = {normalised(text): None for text in (question.user_text, *question.user_turns)}
        same_as = next((self._ids[text] for text in texts if text in self._ids), None)
        return _left_out(question, reason=reason, same_as=same_as) if same_as else None

    def nearly_same(self, question: Question, examined: Examined, reason: str) -> LeftOut | None:
        """The question as one to leave out, if a kept one has nearly the same wording."""
        if self._near is None or examined.sketch is None:
            return None
        found = self._near.nearest(question.user_text, examined.sketch)
        if not found:
            return None
        row = _left_out(question, reason=reason, same_as=found.id)
        return NearlySame(**row.model_dump(), similarity=round(found.similarity, 4))


@click.command(help="Collect training and held-out questions, without duplicates and benchmark questions.")
@click.option("--questions", "questions_path", type=WRITE, required=True, help="Training questions, written.")
@click.option("--heldout", "heldout_path", type=WRITE, required=True, help="Held-out questions, written.")
@click.option("--left-out", "left_out_path", type=WRITE, required=True, help="Questions left out, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--eval-data", type=READ, help="The folder of downloaded benchmarks, read if params say so.")
@params_option
@one_line_errors
def main(
    questions_path: Path,
    heldout_path: Path,
    left_out_path: Path,
    metrics_path: Path,
    eval_data: Path | None,
    params_path: Path,
) -> None:
    all_params = load_params(params_path)
    params = all_params.collect
    drawn = draw(params)
    indexes = benchmark_indexes(params.contamination, eval_data)
    control = ControlTokens(all_params.train.student, all_params.convert.markers)
    candidates = tqdm(drawn.candidates, desc="collect", unit=" questions", disable=None)
    engine = all_params.run.engine
    collected = separate(candidates, drawn.heldout, indexes, control.found_in, params.near_duplicates, engine)
    if not collected.questions:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out_by_reason(collected).items() if count)
        raise DataError(f"collect: no question is left to train on ({reasons}). Is columns.question the right column?")
    hits = [hit for row in collected.left_out for hit in row.benchmark_hits]
    contamination = contamination_counts(hits, indexes, params.contamination)
    metrics = counts(collected) | ({"source": drawn.facts} if drawn.facts else {}) | {"contamination": contamination}
    metrics |= {"texts": texts(collected)}
    write_rows(questions_path, collected.questions)
    write_rows(heldout_path, collected.heldout)
    write_rows(left_out_path, collected.left_out)
    write_json(metrics_path, metrics)
    log.info(
        "collect: %d questions, %d held out, %d left out (%s)",
        len(collected.questions),
        len(collected.heldout),
        len(collected.left_out),
        ", ".join(f"{count} {reason}" for reason, count in left_out_by_reason(collected).items()),
    )


def separate(
    candidates: Iterable[Question],
    heldout: Iterable[Question],
    indexes: Sequence[BenchmarkIndex],
    has_control_token: Callable[[str], bool] = lambda text: False,
    near: NearDuplicateParams | None = None,
    engine: Engine | None = None,
) -> Collected:
    """Each question once; the training questions without held-out ones and those of benchmarks.

    ``has_control_token`` says whether a text has a control token, which a student would not read as text. ``near``
    None: only questions of the same text are compared. ``engine``: whose workers examine the questions.
    """
    collected = Collected()
    heldout = list(heldout)
    questions, again = tee(chain(heldout, candidates))
    examined = zip(questions, map_rows(Examining(indexes, near), again, engine), strict=True)
    kept_heldout = Kept(collected.heldout, near)
    for question, own in islice(examined, len(heldout)):
        collected.received += 1
        if row := _control_token(question, has_control_token) or kept_heldout.same(question, "duplicate"):
            collected.left_out.append(row)
        else:
            kept_heldout.add(question, own)
    kept = Kept(collected.questions, near)
    for question, own in examined:
        collected.received += 1
        row = (
            _control_token(question, has_control_token)
            or kept_heldout.same(question, "in_heldout")
            or kept_heldout.nearly_same(question, own, "near_heldout")
            # before the duplicates, so that same_as is always the id of a row that was kept
            or _contaminated(question, own)
            or kept.same(question, "duplicate")
            or kept.nearly_same(question, own, "near_duplicate")
        )
        if row:
            collected.left_out.append(row)
        else:
            kept.add(question, own)
    return collected


def _control_token(question: Question, has_control_token: Callable[[str], bool]) -> LeftOut | None:
    return _left_out(question, reason="control_token") if has_control_token(question.all_texts) else None


def _contaminated(question: Question, examined: Examined) -> LeftOut | None:
    hits = examined.hits
    return _left_out(question, reason="contaminated", benchmark_hits=hits) if hits else None


def _left_out(question: Question, **why: Any) -> LeftOut:
    return LeftOut(**question.model_dump(), **{"same_as": None, "benchmark_hits": []} | why)


def overlap(collected: Collected) -> int:
    """The number of texts in both sets, counted from the rows that will be written."""
    training = {normalised(question.user_text) for question in collected.questions}
    return len(training & {normalised(question.user_text) for question in collected.heldout})


def counts(collected: Collected) -> dict[str, Any]:
    """The metrics; DataError unless ``in = questions + heldout + left_out`` and no text is in both sets."""
    written = len(collected.questions) + len(collected.heldout) + len(collected.left_out)
    if collected.received != written:
        raise DataError(f"collect: {collected.received} questions in, {written} written. This is a bug in collect.")
    if shared := overlap(collected):
        raise DataError(f"collect: {shared} questions are in both sets. This is a bug in collect.")
    return {
        "in": collected.received,
        "questions": len(collected.questions),
        "heldout": len(collected.heldout),
        "left_out": left_out_by_reason(collected),
        "overlap": shared,
    }


def texts(collected: Collected) -> dict[str, Any]:
    """The scripts and the lengths of the questions that were kept."""
    sets = {"questions": collected.questions, "heldout": collected.heldout}
    return {name: described(row.user_text for row in rows) for name, rows in sets.items()}


def left_out_by_reason(collected: Collected) -> dict[str, int]:
    """How many were left out for each reason; a reason that did not occur has 0."""
    found = Counter(row.reason for row in collected.left_out)
    return {reason: found[reason] for reason in get_args(LeftOut.model_fields["reason"].annotation)}


if __name__ == "__main__":
    main()
