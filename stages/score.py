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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from tqdm import tqdm

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.logprobs import Scored
from stages.lib.logprobs.alignment import Alignment, Reason, parts_of
from stages.lib.logprobs.answers import TokenLogprobs, answer_hash, read_logprobs
from stages.lib.logprobs.cache import ScoreCache, open_cache
from stages.lib.logprobs.local import LocalScorer
from stages.lib.logprobs.scores import ScoredRow, origin_of, write_scores
from stages.lib.logprobs.served import ServedScorer
from stages.lib.params import FromTeacher, Params, ParamsError, load_params
from stages.lib.rows import write_json
from stages.lib.runtime.versions import versions
from stages.lib.store.answer_store import default_path
from stages.lib.students import student_folder
from stages.lib.teacher.backends.openai_compatible import endpoint_at
from stages.lib.tokens import Tokens, tokens_of
from stages.lib.tokens.length import fitting_rows, measured
from stages.lib.tokens.tokenizer import aligned_tokenizer
from stages.lib.training import Conversation, Job
from stages.lib.training.dataset import read_dataset
from stages.lib.training.identity import student_identity
from stages.lib.vocabulary import check_same_vocabulary, vocabulary_hash

log = logging.getLogger("distillery.score")

Plan = list[tuple[Conversation, Tokens]]
Score = Callable[[list[int], list[int]], Scored]  # of the tokens of a row and places in it


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
    rows: list[ScoredRow] = []
    trained, origin = 0, None
    if params.score and params.arms[arm_name].alpha:
        job = job_of(arm_name, read_dataset(dataset_path), params)
        tokenizer = aligned_tokenizer(job)
        plan = planned(job, tokenizer)
        trained = sum(len(places_of(tokens)) for _, tokens in plan)
        if isinstance(params.score, FromTeacher):
            rows = by_teacher(plan, params.score, params, cache_path or default_path().with_name("scores.sqlite"))
        else:
            rows = from_answers(plan, params, tokenizer, logprobs_path)
        origin = origin_of(params.score, vocabulary_hash(tokenizer))
    write_scores(scores_path, rows, width_of(params) if rows else 1, origin)  # no rows: the same bytes for any width
    metrics = metrics_of(rows, trained, params)
    write_json(metrics_path, metrics)
    if rows:
        log.info("score: %s", summary_line(arm_name, metrics))


def job_of(name: str, conversations: list[Conversation], params: Params) -> Job:
    """The training whose rows are scored; nothing is written to its ``out``."""
    student = student_folder(params.train.student)
    train, arm, run = params.train, params.arms[name], params.run
    return Job(name, conversations, student, train, arm, run, params.convert.markers, Path())


def planned(job: Job, tokenizer: Any) -> Plan:
    """The rows that the training will have, with their tokens."""
    fitting = fitting_rows(job, lambda conversations: measured(job, conversations, tokenizer)).rows
    conversations = [row.conversation for row in fitting]
    return list(zip(conversations, tokens_of(job, conversations, tokenizer), strict=True))


def places_of(tokens: Tokens) -> list[int]:
    """The places of a row that have a loss."""
    return [place for begin, end in tokens.trained for place in range(begin, end)]


def from_answers(plan: Plan, params: Params, tokenizer: Any, path: Path) -> list[ScoredRow]:
    """The rows with the probabilities that came with their answers."""
    wanted = {key for conversation, _ in plan if (key := key_of(conversation, params))}
    known = {key: tokens for key, tokens in read_logprobs(path) if key in wanted}
    alignment = Alignment(tokenizer, width_of(params))
    return [ScoredRow(tokens.ids, aligned(each, tokens, params, known, alignment)) for each, tokens in plan]


def aligned(
    conversation: Conversation,
    tokens: Tokens,
    params: Params,
    known: dict[str, list[TokenLogprobs]],
    alignment: Alignment,
) -> Scored | Reason:
    """The probabilities of a row's last answer, which is the teacher's; or why it has none."""
    parts = parts_of(conversation.assistant, params.convert.markers)
    found = known.get(key_of(conversation, params) or "")
    if not parts or not found:
        return "no_logprobs"
    return alignment.scored(parts, tokens.ids, tokens.trained[-1][0], found)


def key_of(conversation: Conversation, params: Params) -> str | None:
    """By what an answer is found among those of ``distill``; None for an answer of another form."""
    parts = parts_of(conversation.assistant, params.convert.markers)
    return answer_hash(conversation.user, parts.reasoning, parts.response) if parts else None


def by_teacher(plan: Plan, score: FromTeacher, params: Params, cache_path: Path) -> list[ScoredRow]:
    """The rows as the teacher reads them; those of the same tokens are scored once."""
    teacher, student = student_folder(score.teacher), student_folder(params.train.student)
    check_same_vocabulary(student, teacher)
    wanted = [(tokens.ids, places_of(tokens)) for _, tokens in plan]
    with open_cache(cache_path, shaping(score, params)) as cache:
        distinct = {(tuple(ids), tuple(places)): (ids, places) for ids, places in wanted}.values()
        missing = [(ids, places) for ids, places in distinct if cache.get(ids, places) is None]
        if missing:
            with scorer_of(score, teacher, params) as (scorer, at_once):
                read_missing(missing, scorer, at_once, cache)
        found = [(ids, cache.get(ids, places)) for ids, places in wanted]
    return [ScoredRow(ids, scored) for ids, scored in found if scored]


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


def read_missing(missing: list[tuple[list[int], list[int]]], score: Score, at_once: int, cache: ScoreCache) -> None:
    """Score the rows that the cache lacks; each is kept as soon as it is there."""
    tokens = sum(len(ids) for ids, _ in missing)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(at_once))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        bar = stack.enter_context(tqdm(total=tokens, desc="score", unit="token", disable=not sys.stderr.isatty()))
        futures = {pool.submit(score, *row): row for row in missing}
        for future in as_completed(futures):
            ids, places = futures[future]
            cache.put(ids, places, future.result())
            bar.update(len(ids))


def width_of(params: Params) -> int:
    """How many tokens there are at each place; with those of the answers, the one that was written besides."""
    if isinstance(params.score, FromTeacher):
        return params.score.top_k
    return (params.distill.logprobs or 0) + 1


def metrics_of(rows: list[ScoredRow], trained: int, params: Params) -> dict[str, Any]:
    """Counts: ``in = rows + unscored``, ``tokens`` of the ``tokens_trained`` have probabilities."""
    scored = [row.scored for row in rows if isinstance(row.scored, Scored)]
    reasons = Counter(row.scored for row in rows if isinstance(row.scored, str))
    tokens = sum(len(each.positions) for each in scored)
    mass = sum(float(np.exp(each.logprobs.astype(np.float64)).sum()) for each in scored)
    return {
        "kind": params.score.kind if params.score else None,
        "in": len(rows),
        "rows": len(scored),
        "unscored": {reason: reasons[reason] for reason in get_args(Reason)},
        "tokens_trained": trained,
        "tokens": tokens,
        "mass": round(mass / tokens, 4) if tokens else None,
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
