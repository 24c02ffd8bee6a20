"""Ask the teacher every question, and store its reasoning and its answer.

In:   data/questions.jsonl, the prompt's file
Out:  data/distilled.jsonl          the question + {"sample": 0, "reasoning": "…", "response": "…",
                                    "finish_reason": "stop", "model": "deepseek-r1", "usage": {…}}, and of several
                                    servers (run.endpoints) which gave it: {"served_by": "http://node1:8000/v1"}
      data/distill_failures.jsonl   the question + {"reason": "cut_off", "status": 200, "attempts": 1,
                                    "error": "the server's message, if any"}
      data/logprobs.parquet         the probabilities of the answers' tokens (lib/logprobs/answers.py), with
                                    distill.logprobs; else no rows
      metrics/distill.json          the counts

The teacher gets a question's system text and its earlier turns as messages before it; the prompt is around the question
alone.
A received answer goes to the store first (``--store``) and is never asked for again, so a killed run resumes where it
stopped. To retry answers that failed, name their kinds in DISTILLERY_RETRY_KINDS (``make retry KINDS=cut_off``): each
such answer is drawn again once per run (draws.py), and the former ones stay. With ``run.offline`` an answer that the
store lacks fails as not_asked. ``in = distilled + failed``. Where more failed than ``distill.max_failed_share`` allows,
only the failures are written.

Alone:  python -m stages.distill --questions Q.jsonl --distilled OUT.jsonl --failures FAIL.jsonl --metrics M.json
        [--logprobs L.parquet]
        [--params P.yaml] [--store S.jsonl] [--dry-run: print what it would ask and cost, and ask nothing]
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.files.shards import last_line
from stages.lib.params import Distill, Params, Price, Run, load_params, slotted_prompt_text
from stages.lib.ranks import median
from stages.lib.replies.reading import Answer, BodyError
from stages.lib.replies.usage import tokens
from stages.lib.rows import UNPROTECT, DataError, parse_row, read_rows, write_json, writing_rows
from stages.lib.rows.distilled import Distilled, Failure
from stages.lib.rows.question import Question
from stages.lib.store.answer_file import AnswerFile, open_answers
from stages.lib.store.answer_store import AnswerStore, default_path, open_store, request_key
from stages.lib.teacher.asking import AskResult, Respondent, ask_missing, chat_request, make_plan, price_of
from stages.lib.teacher.batches.journal import in_open_batches
from stages.lib.teacher.draws import answer_that_counts, last_draw, with_draw
from stages.lib.teacher.failures import CallFailed, TeacherError
from stages.lib.teacher.pricing import money, tokens_cost
from stages.lib.teacher.progress import RunCounts
from stages.lib.teacher.spending import max_cost

log = logging.getLogger("distillery.distill")

REBUILD = f"Run 'dvc repro difficulty' to rebuild it; or {UNPROTECT}, and correct the line."
KINDS_VARIABLE = "DISTILLERY_RETRY_KINDS"
UNUSABLE = ("cut_off", "empty_reasoning", "empty_response", "not_finished", "refused")  # received and stored
NOT_ASKED = "not_asked"


@click.command(help="Ask the teacher every question; answers in the store are not asked for again.")
@click.option("--questions", "questions_path", type=READ, required=True, help="Questions, read.")
@click.option("--distilled", "distilled_path", type=WRITE, required=True, help="Answers, written.")
@click.option("--failures", "failures_path", type=WRITE, required=True, help="Questions without one, written.")
@click.option("--logprobs", "logprobs_path", type=WRITE, help="The probabilities of the answers' tokens, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--store", "store_path", type=WRITE, help="Received answers  [default: data/store/answers.jsonl]")
@click.option("--kinds", envvar=KINDS_VARIABLE, default="", help="Failures to draw again, such as 'cut_off,refused'.")
@click.option("--dry-run", is_flag=True, help="Print what the run would ask and cost; ask and write nothing.")
@params_option
@one_line_errors
def main(
    questions_path: Path,
    distilled_path: Path,
    failures_path: Path,
    logprobs_path: Path | None,
    metrics_path: Path,
    store_path: Path | None,
    kinds: str,
    dry_run: bool,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    run = params.run
    teacher = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher")
    calls = PlannedCalls(questions_path, params.distill, teacher.identity(run))
    store_path = store_path or default_path()
    if dry_run:
        return click.echo(forecast(calls, teacher, run, store_path, parse_kinds(kinds)))
    result, price = AskResult(), price_of(teacher, run)
    tally = Tally(price)
    with open_store(store_path) as store:
        try:
            teacher.read_aliases(store, run)
            calls.draw_again(parse_kinds(kinds), store, run)
            writer = Writer(calls, store, params, distilled_path, failures_path)
            if calls.new_draws or not writer.write_stored(result, tally):
                result, tally = AskResult(), Tally(price)
                ask(calls, teacher, run, store, result)
                writer.write(result, tally, None if run.offline else calls.changed())
            counts = write_logprobs(calls, store, params.distill, logprobs_path) if logprobs_path else {}
        finally:  # a run that was stopped states its cost, too
            write_run_facts(result, tally, run)
    write_json(metrics_path, tally.metrics() | counts)
    log.info("distill: %s", summary(result, tally, run))
    for line in remaining(calls, result, tally):
        log.info("distill: %s", line)


def parse_kinds(text: str) -> set[str]:
    """``cut_off, refused`` as a set."""
    return {kind.strip() for kind in text.split(",")} - {""}


class PlannedCalls:
    """Each question once per sample, in order; each iteration reads the file again."""

    def __init__(self, questions_path: Path, params: Distill, identity: str) -> None:
        self._path = questions_path
        self._prompt = slotted_prompt_text("distill.prompt", params.prompt, "question")
        samples, asked = range(params.samples_per_question), asked_logprobs(params)
        self._of_samples = [chat_request(identity, params.teacher, [], sample) | asked for sample in samples]
        self.kinds: set[str] = set()  # the kinds of failures that are drawn again
        self.new_draws: set[str] = set()  # the keys of these draws
        self._numbers: dict[str, int] = {}  # the numbers of these draws, by the key of draw 0

    def __iter__(self) -> Iterator[tuple[Question, int, dict[str, Any]]]:
        """Question, sample number, request. DataError where the file is invalid or empty."""
        question = None
        for question in read_rows(self._path, Question, REBUILD):
            yield from self._of(question)
        if question is None:
            raise DataError(f"{self._path}: there is nothing in it. {REBUILD}")

    def _of(self, question: Question) -> Iterator[tuple[Question, int, dict[str, Any]]]:
        # not str.format: a question may hold braces
        messages = question.messages(self._prompt.replace("{question}", question.question))
        for sample, request in enumerate(self._of_samples):
            yield question, sample, request | {"messages": messages}

    def last_request(self) -> dict[str, Any] | None:
        """The request of the last call, without those before it; None where the last line is no question."""
        line = last_line(self._path, REBUILD)
        try:
            *_, (_, _, request) = self._of(parse_row(line, Question, str(self._path), REBUILD))
        except DataError:  # iterating names the line
            return None
        return request

    def requests(self) -> Iterator[dict[str, Any]]:
        """The requests alone, each of its first draw or of its new one."""
        for _, _, request in self:
            yield with_draw(request, self._numbers.get(request_key(request), 0)) if self._numbers else request

    def draw_again(self, kinds: set[str], answers: AnswerFile, run: Run) -> None:
        """Plan one more draw of each call whose answer failed as one of ``kinds``; TeacherError on an unknown kind."""
        if kinds and run.offline:
            raise TeacherError("KINDS: run.offline is true, so nothing can be drawn again. Set it to false.")
        self.kinds, known = kinds, set(UNUSABLE)
        for _, _, request in self if kinds else ():
            failure = failure_of(request, answers)
            known.update({failure} if failure else ())
            if failure in kinds:
                number = last_draw(request, answers) + 1
                self._numbers[request_key(request)] = number
                self.new_draws.add(request_key(with_draw(request, number)))
        for kind in sorted(kinds - known):
            raise TeacherError(f"KINDS: no answer fails as '{kind}'. Known: {', '.join(sorted(known))}.")

    def changed(self) -> DataError:
        """The error where the file holds a call now that it did not hold when the calls were made."""
        return DataError(
            f"{self._path}: the questions changed during the run. Run the stage again: it asks the new ones."
        )


def ask(calls: PlannedCalls, teacher: Respondent, run: Run, store: AnswerStore, result: AskResult) -> None:
    """Ask for missing answers; after new draws, an error says how to make the rows without more draws."""
    try:
        ask_missing(teacher, calls.requests, run, store, result)
    except TeacherError as error:
        more = " 'dvc repro' makes the rows without more draws." if calls.new_draws else ""
        raise TeacherError(f"{error}{more}") from error


def asked_logprobs(params: Distill) -> dict[str, Any]:
    """The fields of a request that ask for the probabilities of the answer's tokens."""
    return {"logprobs": True, "top_logprobs": params.logprobs} if params.logprobs else {}


class Tally:
    """The counts of the rows so far, and ``full_cost``: what all their answers would cost now."""

    def __init__(self, price: Price | None) -> None:
        self.distilled = 0
        self.failed: Counter[str] = Counter()
        self.not_received = 0
        self.errors: Counter[str] = Counter()  # how often the server sent each message
        self.full_cost = 0.0
        self._price = price
        self._prompt_tokens = 0
        self._completion_tokens: Counter[int] = Counter()  # how many answers have how many

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.distilled + self.failed.total()

    @property
    def tried(self) -> int:
        """The number of rows without those that were not asked for."""
        return self.rows - self.failed[NOT_ASKED]

    def add(self, row: Distilled | Failure, usage: dict[str, Any], received: bool) -> None:
        """Count a row and the tokens of its answer; ``received``: the store has an answer, usable or not."""
        counted = tokens(usage)
        self.full_cost += tokens_cost(counted, self._price) if self._price else 0.0
        if isinstance(row, Failure):
            self.failed[row.reason] += 1
            self.not_received += not received and row.reason != NOT_ASKED
            self.errors.update([row.error] if row.error else [])
        else:
            self.distilled += 1
            self._prompt_tokens += counted.prompt
            self._completion_tokens[counted.completion] += 1

    def metrics(self) -> dict[str, Any]:
        """``in = distilled + failed``; tokens of the distilled rows, as the teacher counted them."""
        return {
            "in": self.rows,
            "distilled": self.distilled,
            "failed": self.failed.total(),
            "failed_by_reason": dict(sorted(self.failed.items())),
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": sum(length * count for length, count in self._completion_tokens.items()),
            "completion_tokens_median": median(self._completion_tokens),
        }


def failure_of(request: dict[str, Any], answers: AnswerFile) -> str | None:
    """Why the received answer is not usable; None where it is usable or where there is none."""
    try:
        return answer_that_counts(request, answers).failure
    except KeyError:
        return None
    except BodyError as error:
        return str(error)


def forecast(calls: PlannedCalls, teacher: Respondent, run: Run, store_path: Path, kinds: set[str]) -> str:
    """``would ask 700 of 1000 (300 are in the store) of deepseek-r1; about 9.30 CNY, at the 0.0133 CNY of …``."""
    price, model = price_of(teacher, run), teacher.model
    with open_answers(store_path if store_path.exists() else Path(os.devnull)) as answers:
        teacher.read_aliases(answers, run)
        calls.draw_again(kinds, answers, run)
        plan = make_plan(calls.requests, answers, price)
        at_server = in_open_batches(calls.requests, answers)
    stored = plan.calls - plan.missing
    again = f", {len(calls.new_draws)} are drawn again" if kinds else ""
    waiting = f", {at_server.total()} at the server in {', '.join(sorted(at_server))}" if at_server else ""
    known = f"{stored} are in the store{waiting}{again}"
    text = f"distill: would ask {plan.missing} of {plan.calls} ({known}) of {model.model}"
    if batch := run.batch_of(teacher.role):
        text += f" in batches, at {batch.price_factor:g} of its price"
    if run.offline:
        return f"{text}; but run.offline is true, and nothing would be asked"
    if not price:
        return f"{text}; no price for it in run.prices, so no cost is known"
    if plan.stored:
        mean = plan.stored_cost / plan.stored
        about, each = (money(amount, run.currency) for amount in (plan.missing * mean, mean))
        return f"{text}; about {about}, at the {each} of an answer in the store"
    if model.max_tokens:
        most = money(max_cost(price, plan.prompt_bytes, model.max_tokens, plan.missing), run.currency)
        return f"{text}; at most {most}, with distill.teacher.max_tokens = {model.max_tokens}"
    return f"{text}; no answer in the store and no distill.teacher.max_tokens to estimate the cost from"


class NotStored(Exception):
    """The store lacks an answer."""


@dataclass(frozen=True)
class Writer:
    """Writes one row for each call, in the order of the questions: an answer, or why there is none."""

    calls: PlannedCalls
    store: AnswerStore
    params: Params
    distilled: Path
    failures: Path

    def write_stored(self, result: AskResult, tally: Tally) -> bool:
        """Write the rows where the store has every answer, with one reading of the questions; False where it lacks one.

        A run that was killed lacks the last ones, so the last call is looked up first.
        """
        last = self.calls.last_request()
        if last and request_key(last) not in self.store:
            return False
        try:
            self.write(result, tally, NotStored())
        except NotStored:
            return False
        except TeacherError:  # too many failed
            result.counts = RunCounts(total=tally.rows, from_store=tally.rows)
            raise
        result.counts = RunCounts(total=tally.rows, from_store=tally.rows)
        return True

    def write(self, result: AskResult, tally: Tally, lacking: Exception | None) -> None:
        """Write the rows. ``lacking`` is raised at a call that was neither received nor tried; None: a row says so."""
        refusal: TeacherError | None = None
        with writing_rows(self.failures, self.params.run.shard_rows) as failures:
            try:
                with writing_rows(self.distilled, self.params.run.shard_rows) as distilled:
                    for question, sample, request in self.calls:
                        row, usage = outcome(question, sample, request, self.store, result)
                        key = "" if isinstance(row, Distilled) else request_key(request)
                        received = not key or key in self.store
                        if lacking and not (received or key in result.failed):
                            raise lacking
                        tally.add(row, usage, received)
                        (distilled if isinstance(row, Distilled) else failures).add(row)
                    check_failures(tally, self.params.distill)
            except TeacherError as error:  # the failures are written, so that the user can read them
                refusal = error
        if refusal:
            raise refusal


def outcome(
    question: Question, sample: int, request: dict[str, Any], store: AnswerStore, result: AskResult
) -> tuple[Distilled | Failure, dict[str, Any]]:
    """The row of one call, and the usage of its received answer."""
    fields = vars(question) | {"sample": sample}
    try:
        answer = answer_that_counts(request, store)
    except KeyError:
        failed = result.failed.get(request_key(request), CallFailed(NOT_ASKED, status=None, attempts=0))
        row = Failure(
            **fields, reason=failed.reason, status=failed.status, attempts=failed.attempts, error=failed.message
        )
        return row, {}
    except BodyError as error:  # stored by an earlier version, whose reader was less strict
        message = error.server_message.text if error.server_message else ""
        attempts = 1 + last_draw(request, store)
        return Failure(**fields, reason=str(error), status=200, attempts=attempts, error=message), {}
    if answer.failure:
        attempts = 1 + last_draw(request, store)
        return Failure(**fields, reason=answer.failure, status=200, attempts=attempts), answer.usage
    return _distilled(fields, answer), answer.usage


def write_logprobs(calls: PlannedCalls, store: AnswerStore, params: Distill, path: Path) -> dict[str, Any]:
    """The probabilities of the tokens of all usable answers; the counts for the metrics, where they were asked for."""
    from stages.lib.logprobs.answers import writing_logprobs  # imports pyarrow

    without = 0
    with writing_logprobs(path) as file:
        for question, sample, request in calls if params.logprobs else ():
            row, _ = outcome(question, sample, request, store, AskResult())
            if isinstance(row, Distilled):
                without += not file.add(row, answer_that_counts(request, store).logprobs)
    if without:
        log.warning(
            "distill: %d of %d answers came without the probabilities that distill.logprobs asks for. Score them with "
            "a teacher of your own (docs/logprobs.md), or set distill.logprobs: null.",
            without,
            without + file.answers,
        )
    counts = {"answers": file.answers, "answers_without": without, "tokens": file.tokens}
    return {"logprobs": counts} if params.logprobs else {}


def _distilled(question: dict[str, Any], answer: Answer) -> Distilled:
    return Distilled(
        **question,
        reasoning=answer.reasoning,
        response=answer.response,
        finish_reason=answer.finish_reason,
        model=answer.model,
        usage=answer.usage,
        served_by=answer.served_by,
    )


def check_failures(tally: Tally, params: Distill) -> None:
    """Fail the stage where more rows failed than params allow; rows that were not asked for do not count."""
    failed = tally.failed - Counter({NOT_ASKED: tally.failed[NOT_ASKED]})
    if failed.total() > params.max_failed_share * tally.tried:
        raise TeacherError(
            f"distill: {failed.total()} of {tally.tried} answers failed ({_kinds(failed)}), more than "
            f"distill.max_failed_share = {params.max_failed_share:g} allows.{_most_often(tally)} Received answers are "
            f"kept. 'dvc repro' asks for the {tally.not_received} that were not received. Answers that are cut off or "
            "empty stay so until the prompt or distill.teacher changes, or 'make retry KINDS=cut_off,empty_response' "
            "draws them again."
        )
    if not tally.tried:
        raise TeacherError(
            f"distill: run.offline is true, and the store has no answer to these {tally.rows} calls. Set it to false, "
            "or add the answers with 'make store-import FILE=answers.jsonl'."
        )


def _most_often(tally: Tally) -> str:
    return "".join(f' The server said {count} times: "{error}"' for error, count in tally.errors.most_common(1))


def _kinds(failed: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in failed.most_common())


def summary(result: AskResult, tally: Tally, run: Run) -> str:
    """``981 answers to 1000 questions (300 from the store, 681 bought for 9.31 CNY), 19 failed (12 cut_off, …)``."""
    counts = result.counts
    paid = f" for {money(counts.cost, run.currency)}" if counts.cost else ""
    kinds = f" ({_kinds(tally.failed)})" if tally.failed else ""
    return (
        f"{tally.distilled} of {tally.rows} answered ({counts.from_store} from the store, {counts.bought} "
        f"bought{paid}), {tally.failed.total()} failed{kinds}"
    )


def remaining(calls: PlannedCalls, result: AskResult, tally: Tally) -> Iterator[str]:
    """What the user can do about rows that failed."""
    if tally.failed[NOT_ASKED]:
        yield f"{tally.failed[NOT_ASKED]} of them were not asked for; set run.offline: false and run 'make retry'"
    if tally.not_received:
        yield f"{tally.not_received} of them were not received; 'make retry' asks for them again"
    if calls.kinds:
        lost = len(calls.new_draws & result.failed.keys())
        more = f"; {lost} were not received, so the former ones stay" if lost else ""
        yield f"answers drawn again ({', '.join(sorted(calls.kinds))}): {len(calls.new_draws) - lost}{more}"


def write_run_facts(result: AskResult, tally: Tally, run: Run) -> None:
    """Write the facts that differ between runs; no stage depends on them. Nothing where no call was planned."""
    if result.counts.total:
        facts = result.counts.facts(tally.full_cost, run.currency) | {"seconds": round(result.seconds, 3)}
        facts |= {"servers": result.servers} if result.servers else {}
        facts |= {"hosts": result.hosts} if result.hosts > 1 else {}
        write_json(project_root() / "metrics" / "runs" / "distill.json", facts)


if __name__ == "__main__":
    main()
