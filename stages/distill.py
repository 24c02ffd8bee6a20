"""Ask the teacher every question, and keep its reasoning and its answer.

In:   data/questions.jsonl, the prompt's file
Out:  data/distilled.jsonl          the question + {"sample": 0, "reasoning": "…", "response": "…",
                                    "finish_reason": "stop", "model": "deepseek-r1", "usage": {…}}
      data/distill_failures.jsonl   the question + {"reason": "cut_off", "status": 200, "attempts": 1}
      metrics/distill.json          the counts

A received answer goes to the store first (``--store``) and is never asked for again: a killed run goes on where it was.

Alone:  python -m stages.distill --questions Q.jsonl --distilled OUT.jsonl --failures FAIL.jsonl --metrics M.json
"""

import asyncio
import importlib
import logging
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop
from tqdm import tqdm

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.params import Distill, Params, ParamsError, Run, load_params, prompt_text
from stages.lib.records import Distilled, Failure, Question, read_some_rows, write_json, write_rows
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.client import CallFailed, TeacherClient, TeacherError
from stages.lib.teacher.reading import Answer, BodyError, read_body
from stages.lib.teacher.store import AnswerStore, default_path, open_store, request_key

log = logging.getLogger("distillery.distill")

LINE_EVERY_S = 10.0  # between two lines about the progress, where stderr is no terminal


@dataclass(frozen=True)
class Call:
    """One answer to be had: the question, which sample of it, the request and its key in the store."""

    question: Question
    sample: int
    request: dict[str, Any]
    key: str


@dataclass
class Asked:
    """What the asking came to: calls that failed, and how many answers were bought and how many were there."""

    failed: dict[str, CallFailed] = field(default_factory=dict)
    bought: int = 0
    from_store: int = 0


@click.command(help="Ask the teacher every question; answers in the store are not asked for again.")
@click.option("--questions", "questions_path", type=READ, required=True, help="Questions, read.")
@click.option("--distilled", "distilled_path", type=WRITE, required=True, help="Answers, written.")
@click.option("--failures", "failures_path", type=WRITE, required=True, help="Questions without one, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--store", "store_path", type=WRITE, help="Received answers  [default: data/store/answers.jsonl]")
@params_option
@one_line_errors
def main(
    questions_path: Path,
    distilled_path: Path,
    failures_path: Path,
    metrics_path: Path,
    store_path: Path | None,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    questions = read_some_rows(questions_path, Question, "Mend the line, or run 'dvc repro collect' to rebuild it.")
    started = time.monotonic()
    with open_store(store_path or default_path()) as store:
        asked, calls = ask(questions, params, store)
        rows = list(outcomes(calls, store, asked))
    distilled = [row for row in rows if isinstance(row, Distilled)]
    failures = [row for row in rows if isinstance(row, Failure)]
    check_failures(failures, len(rows), len(asked.failed), params.distill)
    write_rows(distilled_path, distilled)
    write_rows(failures_path, failures)
    write_json(metrics_path, counts(distilled, failures))
    write_run_facts(asked, time.monotonic() - started)
    log.info(
        "distill: %d answers to %d questions (%d from the store, %d bought), %d failed",
        len(distilled),
        len(questions),
        asked.from_store,
        asked.bought,
        len(failures),
    )
    if asked.failed:
        log.info(
            "distill: %d of them were not received; 'dvc repro --force --single-item distill' asks again",
            len(asked.failed),
        )


def ask(questions: list[Question], params: Params, store: AnswerStore) -> tuple[Asked, list[Call]]:
    """Ask for every answer that the store does not hold."""
    teacher = params.distill.teacher
    backend = importlib.import_module(f"stages.lib.teacher.backends.{teacher.backend}")
    with backend.connect(teacher, params.run) as endpoint:
        calls = list(planned_calls(questions, params.distill, endpoint))
        # by key: two questions with the same text share one answer
        missing = list({call.key: call for call in calls if call.key not in store}.values())
        asked = Asked(from_store=len(calls) - len(missing))
        uvloop.run(ask_all(missing, endpoint, params.run, store, asked))
    return asked, calls


def planned_calls(questions: Iterable[Question], params: Distill, endpoint: Endpoint) -> Iterator[Call]:
    """Each question once for each sample, in order."""
    prompt = prompt_text(params.prompt)
    if "{question}" not in prompt:
        raise ParamsError(
            f"params.yaml: distill.prompt: stages/prompts/{params.prompt}.txt does not say where the question stands. "
            "Write {question} into it, or choose another prompt."
        )
    teacher = params.teacher
    sampling = {"temperature": teacher.temperature, "top_p": teacher.top_p, "max_tokens": teacher.max_tokens}
    for question in questions:
        # not str.format: a question may hold braces
        messages = [{"role": "user", "content": prompt.replace("{question}", question.question)}]
        for sample in range(params.samples_per_question):
            request = {
                "endpoint": endpoint.identity,
                "model": teacher.model,
                "messages": messages,
                **{name: value for name, value in sampling.items() if value is not None},
                "sample": sample,
            }
            yield Call(question, sample, request, request_key(request))


async def ask_all(calls: list[Call], endpoint: Endpoint, run: Run, store: AnswerStore, asked: Asked) -> None:
    """``run.concurrency`` workers share the calls; after a TeacherError none is begun, those under way are kept."""
    client = TeacherClient(endpoint, run)
    waiting = iter(calls)
    refusals: list[TeacherError] = []
    progress = Progress(len(calls))

    async def work() -> None:
        for call in waiting:
            if refusals:
                return
            try:
                body = await client.ask(
                    model=call.request["model"],
                    messages=call.request["messages"],
                    sampling={
                        name: call.request[name]
                        for name in ("temperature", "top_p", "max_tokens")
                        if name in call.request
                    },
                )
            except CallFailed as failed:
                asked.failed[call.key] = failed
            except TeacherError as refusal:
                refusals.append(refusal)
            else:
                await store.put(call.key, call.request, body)
                asked.bought += 1
            progress.update(len(asked.failed))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(run.concurrency, len(calls))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        progress.close()
        await client.close()
    if refusals:
        raise refusals[0]


class Progress:
    """How far the asking is: a bar on a terminal, elsewhere a plain line now and then."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(
            total=total, desc="distill", unit="answer", mininterval=1.0, disable=not total or not sys.stderr.isatty()
        )
        self._total = total
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def update(self, failed: int) -> None:
        """One more call has ended; ``failed`` of all so far."""
        self._done += 1
        self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            rate = self._done / (now - self._started)
            log.info(
                "distill: %d of %d asked, %d failed, %.1f/s, %.0f s left",
                self._done,
                self._total,
                failed,
                rate,
                (self._total - self._done) / rate,
            )

    def close(self) -> None:
        """Leave the terminal in order."""
        self._bar.close()


def outcomes(calls: Iterable[Call], store: AnswerStore, asked: Asked) -> Iterator[Distilled | Failure]:
    """One row for each call, in the order of the questions: an answer, or why there is none."""
    for call in calls:
        question = call.question.model_dump(include=set(Question.model_fields)) | {"sample": call.sample}
        failed = asked.failed.get(call.key)
        if failed:
            yield Failure(**question, reason=failed.reason, status=failed.status, attempts=failed.attempts)
            continue
        try:
            answer = read_body(store.body(call.key))
        except BodyError as error:  # received when the reader asked for less
            yield Failure(**question, reason=str(error), status=200, attempts=1)
            continue
        if answer.failure:
            yield Failure(**question, reason=answer.failure, status=200, attempts=1)
        else:
            yield _distilled(question, answer)


def _distilled(question: dict[str, Any], answer: Answer) -> Distilled:
    return Distilled(
        **question,
        reasoning=answer.reasoning,
        response=answer.response,
        finish_reason=answer.finish_reason,
        model=answer.model,
        usage=answer.usage,
    )


def check_failures(failures: list[Failure], total: int, not_received: int, params: Distill) -> None:
    """Fail the stage where more rows failed than params allow; of those, ``not_received`` can be asked for again."""
    if len(failures) > params.max_failed_share * total:
        kinds = ", ".join(
            f"{count} {reason}" for reason, count in Counter(row.reason for row in failures).most_common()
        )
        raise TeacherError(
            f"distill: {len(failures)} of {total} answers failed ({kinds}), more than distill.max_failed_share = "
            f"{params.max_failed_share:g} allows. What was received is kept: 'dvc repro' asks for the {not_received} "
            "that were not; those cut off, empty or refused stay so until the prompt or distill.teacher changes."
        )


def counts(distilled: list[Distilled], failures: list[Failure]) -> dict[str, Any]:
    """The metrics: ``in = distilled + failed``; tokens as the teacher counted them."""
    tokens = _tokens(distilled, "completion_tokens")
    return {
        "in": len(distilled) + len(failures),
        "distilled": len(distilled),
        "failed": len(failures),
        "failed_by_reason": dict(sorted(Counter(row.reason for row in failures).items())),
        "prompt_tokens": sum(_tokens(distilled, "prompt_tokens")),
        "completion_tokens": sum(tokens),
        "completion_tokens_median": statistics.median(tokens) if tokens else 0,
    }


def _tokens(rows: list[Distilled], kind: str) -> list[int]:
    """What the teacher counted for each row; 0 where it counted nothing, or not in a number."""
    counted = [row.usage.get(kind) for row in rows]
    return [count if isinstance(count, int) else 0 for count in counted]


def write_run_facts(asked: Asked, seconds: float) -> None:
    """What differs from run to run, for no stage to depend on."""
    facts = {"bought": asked.bought, "from_store": asked.from_store, "seconds": round(seconds, 3)}
    write_json(project_root() / "metrics" / "runs" / "distill.json", facts)


if __name__ == "__main__":
    main()
