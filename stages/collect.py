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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any, Literal, get_args

import click
from tqdm import tqdm

from stages.lib.chat_template import ControlTokens
from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.hygiene.contamination import BenchmarkIndex, benchmark_indexes, contamination_counts
from stages.lib.hygiene.duplicates import normalised
from stages.lib.hygiene.seen import Seen
from stages.lib.params import Engine, NearDuplicateParams, load_params
from stages.lib.rows import DataError, write_json, writing_rows
from stages.lib.rows.question import LeftOut, NearlySame, Question
from stages.lib.sources import draw
from stages.lib.wording.description import Description
from stages.lib.wording.examining import Examined, Examining
from stages.lib.wording.near_duplicates import NearDuplicates
from stages.lib.workers import map_rows

log = logging.getLogger("distillery.collect")

Place = Literal["questions", "heldout", "left_out"]


class Kept:
    """The questions of one set so far, to compare others with."""

    def __init__(self, near: NearDuplicateParams | None) -> None:
        self._ids = Seen()
        self._near = NearDuplicates(near) if near else None

    def add(self, question: Question, examined: Examined) -> None:
        """Keep a question."""
        self._ids.add(normalised(question.user_text), question.id)
        if self._near and examined.sketch is not None:
            self._near.add(question.id, examined.sketch)

    def same(self, question: Question, reason: str) -> LeftOut | None:
        """The question as one to leave out, if a kept one has the same text, or is a turn of it."""
        texts = {normalised(text): None for text in (question.user_text, *question.user_turns)}
        same_as = next((found for text in texts if (found := self._ids.get(text))), None)
        return _left_out(question, reason=reason, same_as=same_as) if same_as else None

    def nearly_same(self, question: Question, examined: Examined, reason: str) -> LeftOut | None:
        """The question as one to leave out, if a kept one has nearly the same wording."""
        if self._near is None or examined.sketch is None:
            return None
        found = self._near.nearest(examined.sketch)
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
    candidates = Received(tqdm(drawn.candidates, desc="collect", unit=" questions", disable=None))
    heldout = Received(drawn.heldout)
    engine, tally = all_params.run.engine, Tally()
    with ExitStack() as stack:
        paths: dict[Place, Path] = {"questions": questions_path, "heldout": heldout_path, "left_out": left_out_path}
        files = {
            place: stack.enter_context(writing_rows(path, all_params.run.shard_rows)) for place, path in paths.items()
        }
        for place, row in separate(candidates, heldout, indexes, control.found_in, params.near_duplicates, engine):
            tally.add(place, row)
            files[place].add(row)
        tally.check(candidates.count + heldout.count)
    contamination = contamination_counts(tally.hits, indexes, params.contamination)
    source = {"source": drawn.facts} if drawn.facts else {}
    write_json(metrics_path, tally.counts() | source | {"contamination": contamination, "texts": tally.texts()})
    log.info(
        "collect: %d questions, %d held out, %d left out (%s)",
        tally.rows["questions"],
        tally.rows["heldout"],
        tally.rows["left_out"],
        ", ".join(f"{count} {reason}" for reason, count in tally.left_out.items()),
    )


class Received:
    """The source's questions, and the ``count`` of those that it gave."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._questions = questions
        self.count = 0

    def __iter__(self) -> Iterator[Question]:
        for question in self._questions:
            self.count += 1
            yield question


def separate(
    candidates: Iterable[Question],
    heldout: Iterable[Question],
    indexes: Sequence[BenchmarkIndex],
    has_control_token: Callable[[str], bool] = lambda text: False,
    near: NearDuplicateParams | None = None,
    engine: Engine | None = None,
) -> Iterator[tuple[Place, Question]]:
    """Where each question goes, the held-out ones first; those that are left out come as ``LeftOut``.

    Each question is kept once, and the training questions are without held-out ones and those of benchmarks.
    ``has_control_token`` says whether a text has a control token, which a student would not read as text. ``near``
    None: only questions of the same text are compared. ``engine``: whose workers examine the questions.
    """
    kept_heldout, kept = Kept(near), Kept(near)
    heldout = list(heldout)
    questions, again = tee(chain(heldout, candidates))
    examined = zip(questions, map_rows(Examining(indexes, near), again, engine), strict=True)
    for question, own in islice(examined, len(heldout)):
        if row := _control_token(question, has_control_token) or kept_heldout.same(question, "duplicate"):
            yield "left_out", row
        else:
            kept_heldout.add(question, own)
            yield "heldout", question
    for question, own in examined:
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
            yield "left_out", row
        else:
            kept.add(question, own)
            yield "questions", question


def _control_token(question: Question, has_control_token: Callable[[str], bool]) -> LeftOut | None:
    return _left_out(question, reason="control_token") if has_control_token(question.all_texts) else None


def _contaminated(question: Question, examined: Examined) -> LeftOut | None:
    hits = examined.hits
    return _left_out(question, reason="contaminated", benchmark_hits=hits) if hits else None


def _left_out(question: Question, **why: Any) -> LeftOut:
    return LeftOut(**question.model_dump(), **{"same_as": None, "benchmark_hits": []} | why)


class Tally:
    """The counts of the questions so far: ``in = questions + heldout + left_out``.

    ``left_out`` counts by reason, with 0 for one that did not occur; ``hits`` the questions that share words with each
    benchmark.
    """

    def __init__(self) -> None:
        self.rows: Counter[Place] = Counter()
        self.left_out = Counter(dict.fromkeys(get_args(LeftOut.model_fields["reason"].annotation), 0))
        self.hits: Counter[str] = Counter()
        self._described = {"questions": Description(), "heldout": Description()}
        self._heldout = Seen()  # the texts that were written
        self._overlap = 0  # how many of them are in the training set too

    def add(self, place: Place, row: Question) -> None:
        """Count a question that is written there."""
        self.rows[place] += 1
        if isinstance(row, LeftOut):
            self.left_out[row.reason] += 1
            self.hits.update(hit.benchmark for hit in row.benchmark_hits)
            return
        self._described[place].add(row.user_text)
        if place == "heldout":
            self._heldout.add(normalised(row.user_text), row.id)
        else:
            self._overlap += self._heldout.get(normalised(row.user_text)) is not None

    def check(self, received: int) -> None:
        """DataError where no question is left, not all that were received are counted, or a text is in both sets."""
        if not self.rows["questions"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
            raise DataError(
                f"collect: no question is left to train on ({reasons}). Is columns.question the right column?"
            )
        if received != self.rows.total():
            raise DataError(f"collect: {received} questions in, {self.rows.total()} written. This is a bug in collect.")
        if self._overlap:
            raise DataError(f"collect: {self._overlap} questions are in both sets. This is a bug in collect.")

    def counts(self) -> dict[str, Any]:
        """The metrics."""
        return {
            "in": self.rows.total(),
            "questions": self.rows["questions"],
            "heldout": self.rows["heldout"],
            "left_out": dict(self.left_out),
            "overlap": self._overlap,
        }

    def texts(self) -> dict[str, Any]:
        """The scripts and the lengths of the questions that were kept."""
        return {name: description.facts() for name, description in self._described.items()}


if __name__ == "__main__":
    main()
