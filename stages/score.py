"""Write the teacher's probabilities of the tokens that an arm is trained on, for arms with ``alpha`` above 0.

In:   data/sharegpt/DATASET, the student's tokenizer, the arm's cutoff_len: the rows and tokens of the training itself
      data/logprobs.parquet    with ``score: {kind: answers}``, what came with the answers
      a teacher's weights      with ``score: {kind: teacher, …}``, or a server that has them
Out:  data/scores/ARM.parquet  the likeliest tokens at each trained place, with probabilities (lib/logprobs/scores.py)
      metrics/score/ARM.json   rows with probabilities, and those without by reason; tokens; the mean probability that
                               the likeliest tokens have together ("mass")

With ``score: null``, or for an arm with ``alpha: 0.0``, nobody is asked and the file has no rows. What a teacher has
read is kept in data/store/scores.sqlite: a killed stage resumes, and arms with the same rows share it.
docs/logprobs.md explains the method.

Alone:  python -m stages.score --arm filtered --dataset DIR/filtered --logprobs L.parquet --scores S.parquet
        --metrics M.json
"""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, get_args

import click
import numpy as np
from tqdm import tqdm

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.logprobs import Scored
from stages.lib.logprobs.alignment import Alignment, Reason, parts_of
from stages.lib.logprobs.answers import answer_hash
from stages.lib.logprobs.cache import ScoreCache, open_cache
from stages.lib.logprobs.local import LocalScorer
from stages.lib.logprobs.lookup import LogprobsOf
from stages.lib.logprobs.scores import ScoredRow, origin_of, write_scores
from stages.lib.logprobs.served import ServedScorer
from stages.lib.params import FromTeacher, Params, ParamsError, load_params
from stages.lib.rows import write_json
from stages.lib.runtime.versions import versions
from stages.lib.store.answer_store import default_path
from stages.lib.students import student_folder
from stages.lib.teacher.backends.openai_compatible import endpoint_at
from stages.lib.tokens import NO_LOSS
from stages.lib.tokens.length import FittingRows
from stages.lib.tokens.table import TOKENS, read_tokens, tokenized
from stages.lib.tokens.tokenizer import aligned_tokenizer
from stages.lib.training import Conversation, Job
from stages.lib.training.dataset import ShareGpt
from stages.lib.training.identity import student_identity
from stages.lib.training.rows_folder import rows_folder
from stages.lib.vocabulary import check_same_vocabulary, vocabulary_hash

log = logging.getLogger("distillery.score")

Planned = tuple[list[int], list[int]]  # the tokens of a row, and the places that have a loss
Score = Callable[[list[int], list[int]], Scored]  # of these


@click.command(help="Write the teacher's probabilities of the tokens that an arm is trained on.")
@click.option("--arm", "arm_name", required=True, help="The arm's name in params.yaml.")
@click.option("--dataset", "dataset_path", type=READ, required=True, help="A ShareGPT dataset's folder, read.")
@click.option("--logprobs", "logprobs_path", type=READ, required=True, help="What came with the answers, read.")
@click.option("--scores", "scores_path", type=WRITE, required=True, help="The probabilities, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--cache", "cache_path", type=WRITE, help="Read rows  [default: scores.sqlite beside the store]")
@params_option
@one_line_errors
def main(
    arm_name: str,
    dataset_path: Path,
    logprobs_path: Path,
    scores_path: Path,
    metrics_path: Path,
    cache_path: Path | None,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    if arm_name not in params.arms:
        raise ParamsError(f"params.yaml: arms: no arm '{arm_name}'. Known: {', '.join(params.arms)}.")
    tally = Tally()
    if params.score and params.arms[arm_name].alpha:
        with rows_folder(arm_name) as folder:
            job = job_of(arm_name, ShareGpt(dataset_path), params, folder)
            tokenizer = aligned_tokenizer(job)
            plan = Plan(tokenized(job, tokenizer), job.rows / TOKENS)
            if isinstance(params.score, FromTeacher):
                rows = by_teacher(plan, params.score, params, cache_path or default_path().with_name("scores.sqlite"))
            else:
                rows = from_answers(plan, params, tokenizer, logprobs_path)
            origin = origin_of(params.score, vocabulary_hash(tokenizer))
            write_scores(scores_path, map(tally.counted, rows), width_of(params), origin)
            tally.trained = plan.fitting.answer_tokens
    else:
        write_scores(scores_path, [], 1, None)
    metrics = tally.metrics(params)
    write_json(metrics_path, metrics)
    if tally.rows:
        log.info("score: %s", summary_line(arm_name, metrics))


def job_of(name: str, dataset: ShareGpt, params: Params, folder: Path) -> Job:
    """The training whose rows are scored, which are kept in ``folder``; nothing is written to its ``out``."""
    student = student_folder(params.train.student)
    train, arm, run = params.train, params.arms[name], params.run
    return Job(name, dataset, student, train, arm, run, params.convert.markers, Path(), rows=folder)


@dataclass(frozen=True)
class Plan:
    """The rows that the training will have; ``tokens`` is the file with their tokens."""

    fitting: FittingRows
    tokens: Path

    def __iter__(self) -> Iterator[Planned]:
        for batch in read_tokens(self.tokens):
            for ids, labels in zip(*(batch.column(name) for name in ("input_ids", "labels")), strict=True):
                has_loss = labels.values.to_numpy() != NO_LOSS
                yield ids.values.to_pylist(), np.flatnonzero(has_loss).tolist()


def from_answers(plan: Plan, params: Params, tokenizer: Any, path: Path) -> Iterator[ScoredRow]:
    """The rows with the probabilities that came with their answers."""
    alignment = Alignment(tokenizer, width_of(params))
    with LogprobsOf(path) as known:
        for conversation, (ids, places) in zip(plan.fitting.conversations, plan, strict=True):
            yield ScoredRow(ids, aligned(conversation, ids, last_answer(places), params, known, alignment))


def last_answer(places: list[int]) -> int:
    """Where the last answer begins, of the places with a loss: between two answers there is a question."""
    first = len(places) - 1
    while first and places[first - 1] == places[first] - 1:
        first -= 1
    return places[first]


def aligned(
    conversation: Conversation, ids: list[int], first: int, params: Params, known: LogprobsOf, alignment: Alignment
) -> Scored | Reason:
    """The probabilities of a row's last answer, which is the teacher's and begins at ``first``; or why it has none."""
    parts = parts_of(conversation.assistant, params.convert.markers)
    key = key_of(conversation, params)
    found = known.of(key) if key else None
    if not parts or not found:
        return "no_logprobs"
    return alignment.scored(parts, ids, first, found)


def key_of(conversation: Conversation, params: Params) -> str | None:
    """By what an answer is found among those of ``distill``; None for an answer of another form."""
    parts = parts_of(conversation.assistant, params.convert.markers)
    return answer_hash(conversation.user, parts.reasoning, parts.response) if parts else None


def by_teacher(plan: Plan, score: FromTeacher, params: Params, cache_path: Path) -> Iterator[ScoredRow]:
    """The rows as the teacher reads them; those of the same tokens are scored once."""
    teacher, student = student_folder(score.teacher), student_folder(params.train.student)
    check_same_vocabulary(student, teacher)
    with open_cache(cache_path, shaping(score, params)) as cache:
        if not all(cache.has(*row) for row in plan):
            with scorer_of(score, teacher, params) as (scorer, at_once):
                read_missing(plan, plan.fitting.tokens, scorer, at_once, cache)
        for ids, places in plan:
            if scored := cache.get(ids, places):
                yield ScoredRow(ids, scored)


def shaping(score: FromTeacher, params: Params) -> dict[str, Any]:
    """What makes a teacher's values differ from those of another."""
    if score.served:
        asked: dict[str, Any] = {"served": score.served.model_dump()}
    else:
        identity = student_identity(score.teacher)
        asked = {"teacher": identity["sha256"], "dtype": score.dtype, "versions": versions(("torch", "transformers"))}
        asked |= {"device": params.run.device.partition(":")[0]}
    return asked | {"top_k": score.top_k}


@contextmanager
def scorer_of(score: FromTeacher, teacher: Path, params: Params) -> Iterator[tuple[Score, int]]:
    """The function that scores a row, and how many rows it may score at once."""
    run = params.run
    if score.served is None:
        yield LocalScorer(teacher, score.top_k, score.dtype, run.device, run.threads).score, 1
    else:
        from transformers import AutoTokenizer

        endpoint = endpoint_at(score.served.base_url, run.key_variable("score"))
        scorer = ServedScorer(score.served, endpoint, score.top_k, run, AutoTokenizer.from_pretrained(teacher))
        yield scorer.score, run.concurrency


def read_missing(rows: Iterable[Planned], tokens: int, score: Score, at_once: int, cache: ScoreCache) -> None:
    """Score the rows that the cache lacks; each is kept as soon as it is there, those in flight at an error too."""
    waiting: dict[Future[Scored], Planned] = {}
    done: SimpleQueue[Future[Scored]] = SimpleQueue()
    errors: list[BaseException] = []
    bar = tqdm(total=tokens, desc="score", unit="token", disable=not sys.stderr.isatty())

    def keep_done(most: int) -> None:
        """Keep all that is there; before the first error, wait until ``most`` are left."""
        while not done.empty() or (len(waiting) > most and not errors):
            future = done.get()
            ids, places = waiting.pop(future)
            if future.cancelled():
                continue
            if error := future.exception():
                errors.append(error)
            else:
                cache.put(ids, places, future.result())
                bar.update(len(ids))

    with bar, ThreadPoolExecutor(at_once) as pool:
        try:
            for row in rows:
                keep_done(2 * at_once - 1)
                if errors:
                    break
                if row in waiting.values() or cache.has(*row):
                    bar.update(len(row[0]))
                    continue
                future = pool.submit(score, *row)
                waiting[future] = row
                future.add_done_callback(done.put)
            keep_done(0)
        finally:
            pool.shutdown(cancel_futures=True)  # those in flight are paid for, so they finish
            keep_done(len(waiting))
    if errors:
        raise errors[0]


def width_of(params: Params) -> int:
    """How many tokens there are at each place; with those of the answers, the one that was written besides."""
    if isinstance(params.score, FromTeacher):
        return params.score.top_k
    return (params.distill.logprobs or 0) + 1


class Tally:
    """The counts of the rows so far; ``trained``: the tokens that have a loss."""

    def __init__(self) -> None:
        self.rows = self.trained = self._tokens = 0
        self._reasons: Counter[str] = Counter()
        self._mass = 0.0

    def counted(self, row: ScoredRow) -> ScoredRow:
        """The row itself, once it is counted."""
        self.rows += 1
        if isinstance(row.scored, Scored):
            self._tokens += len(row.scored.positions)
            self._mass += float(np.exp(row.scored.logprobs.astype(np.float64)).sum())
        else:
            self._reasons[row.scored] += 1
        return row

    def metrics(self, params: Params) -> dict[str, Any]:
        """Counts: ``in = rows + unscored``, ``tokens`` of the ``tokens_trained`` have probabilities."""
        return {
            "kind": params.score.kind if params.score else None,
            "in": self.rows,
            "rows": self.rows - self._reasons.total(),
            "unscored": {reason: self._reasons[reason] for reason in get_args(Reason)},
            "tokens_trained": self.trained,
            "tokens": self._tokens,
            "mass": round(self._mass / self._tokens, 4) if self._tokens else None,
        }


def summary_line(arm: str, metrics: dict[str, Any]) -> str:
    """The counts in one line."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in metrics["unscored"].items() if count)
    others = f" (others: {reasons})" if reasons else ""
    return (
        f"{arm}: {metrics['rows']} of {metrics['in']} rows have probabilities{others}; {metrics['tokens']} of "
        f"{metrics['tokens_trained']} tokens have them, and the likeliest tokens have {metrics['mass']} of it together"
    )


if __name__ == "__main__":
    main()
