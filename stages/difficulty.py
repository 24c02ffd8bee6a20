"""Keep the questions that the untrained student seldom answers right: the teacher is asked only these.

In:   data/collected.jsonl; with ``collect.keep_hard``: the untrained student, here or on a server
Out:  data/questions.jsonl      the kept rows + {"pass_rate": {"solved": 1, "unsure": 0, "samples": 4}}
      data/too_easy.jsonl       the others, with the same field
      metrics/difficulty.json   {"in": 1000, "asked": 1000, "kept": 640, "too_easy": 360, "by_solved": {"0": 310, …}, …}

With ``collect.keep_hard: null`` nobody is asked, and all rows are kept as they are. Otherwise the student gets each
question ``samples`` times, with the system text and through the chat template of the evaluation's base arm; the rule
decides which answers are right. A question is kept where at most ``max_solved`` are. An answer that the rule is unsure
of is not right. ``in = kept + too_easy``.

An answer goes to the store first (``--store``) and is never generated or asked for again, so a killed run resumes where
it stopped, and another ``max_solved`` asks nothing.

Alone:  python -m stages.difficulty --collected C.jsonl --questions Q.jsonl --too-easy E.jsonl --metrics M.json
        [--params P.yaml] [--store S.jsonl]
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.difficulty.calls import Calls, generated_tokens, pass_rate
from stages.lib.params import KeepHard, LoadedStudent, Params, load_params, prompt_text
from stages.lib.rows import UNPROTECT, DataError, RowsOf, write_json, writing_rows
from stages.lib.rows.question import Question
from stages.lib.store.answer_store import AnswerStore, default_path, open_store
from stages.lib.students import student_folder, student_tokenizer
from stages.lib.teacher.progress import RunCounts

if TYPE_CHECKING:
    from stages.lib.difficulty.loaded import Loaded
    from stages.lib.difficulty.served import Served

log = logging.getLogger("distillery.difficulty")

REBUILD = f"Run 'dvc repro collect' to rebuild it; or {UNPROTECT}, and correct the line."


@dataclass(frozen=True)
class Rated:
    """A question, whether the teacher is asked it, and the ``tokens`` that the student generated for it."""

    question: Question
    is_kept: bool = True
    tokens: int = 0


class Tally:
    """The counts of the questions so far: ``in = kept + too_easy``."""

    def __init__(self) -> None:
        self.kept = self.too_easy = self.tokens = self._unsure = 0
        self._solved: Counter[int] = Counter()  # the questions that were asked, by the number of right answers

    def add(self, rated: Rated) -> None:
        """Count a question."""
        self.kept += rated.is_kept
        self.too_easy += not rated.is_kept
        self.tokens += rated.tokens
        if rate := rated.question.pass_rate:
            self._solved[rate.solved] += 1
            self._unsure += rate.unsure

    def check(self, keep_hard: KeepHard | None, path: Path) -> None:
        """DataError where there were no questions, or none is left for the teacher."""
        if keep_hard is None and not self.kept:
            raise DataError(f"{path}: there is nothing in it. {REBUILD}")
        if keep_hard and not self.kept:
            raise DataError(
                f"difficulty: the student solves each of the {self.too_easy} questions more than "
                f"{keep_hard.max_solved} times in {keep_hard.samples}. Raise collect.keep_hard.max_solved, or collect "
                "harder questions."
            )

    def metrics(self, keep_hard: KeepHard | None) -> dict[str, Any]:
        """The counts; ``by_solved`` counts the questions by their number of right answers."""
        samples = keep_hard.samples if keep_hard else 0
        return {
            "in": self.kept + self.too_easy,
            "asked": self._solved.total(),
            "kept": self.kept,
            "too_easy": self.too_easy,
            "samples": samples,
            "max_solved": keep_hard.max_solved if keep_hard else None,
            "by_solved": {str(number): self._solved[number] for number in range(samples + 1)} if keep_hard else {},
            "unsure_answers": self._unsure,
            "completion_tokens": self.tokens,
        }


@click.command(help="Keep the questions that the untrained student seldom solves; all, with collect.keep_hard: null.")
@click.option("--collected", "collected_path", type=READ, required=True, help="Collected questions, read.")
@click.option("--questions", "questions_path", type=WRITE, required=True, help="Questions for the teacher, written.")
@click.option("--too-easy", "too_easy_path", type=WRITE, required=True, help="Questions left out, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--store", "store_path", type=WRITE, help="Received answers  [default: data/store/answers.jsonl]")
@params_option
@one_line_errors
def main(
    collected_path: Path,
    questions_path: Path,
    too_easy_path: Path,
    metrics_path: Path,
    store_path: Path | None,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    questions, tally = RowsOf(collected_path, Question, REBUILD), Tally()
    keep_hard, most = params.collect.keep_hard, params.run.shard_rows
    with ExitStack() as stack:
        if keep_hard is None:
            found: Iterator[Rated] = map(Rated, questions)
        else:
            check_answers(questions, collected_path)
            found = rated(questions, keep_hard, params, stack.enter_context(open_store(store_path or default_path())))
        kept, too_easy = (stack.enter_context(writing_rows(path, most)) for path in (questions_path, too_easy_path))
        for each in found:
            tally.add(each)
            (kept if each.is_kept else too_easy).add(each.question)
        tally.check(keep_hard, collected_path)
    write_json(metrics_path, tally.metrics(keep_hard))
    log.info("difficulty: %s", summary(tally, keep_hard))


def check_answers(questions: Iterable[Question], path: Path) -> None:
    """DataError where there are no questions, or on one without a gold answer: nothing says whether it is solved."""
    total, without, first = 0, 0, ""
    for question in questions:
        total += 1
        if not question.answer:
            without, first = without + 1, first or question.id
    if not total:
        raise DataError(f"{path}: there is nothing in it. {REBUILD}")
    if without:
        raise DataError(
            f"{path}: {without} questions have no gold answer ('{first}' is the first), so their difficulty "
            "cannot be measured. Set collect.keep_hard: null, or collect questions with answers."
        )


def rated(questions: Iterable[Question], keep_hard: KeepHard, params: Params, store: AnswerStore) -> Iterator[Rated]:
    """Ask the student; each question with its pass rate, in their order."""
    student = student_of(keep_hard, params)
    calls = Calls(student.settings, system_text(params), in_user_turn(params), keep_hard.samples)
    started = time.monotonic()
    try:
        student.ask(calls.requests(questions), store)
    finally:  # a run that was stopped states its cost, too
        write_run_facts(student.counts, time.monotonic() - started, params)
    for question in questions:
        answers = calls.answers(question, store)
        rate = pass_rate(question, answers)
        row = question.model_copy(update={"pass_rate": rate})
        yield Rated(row, rate.solved <= keep_hard.max_solved, sum(map(generated_tokens, answers)))


def student_of(keep_hard: KeepHard, params: Params) -> "Loaded | Served":
    """The untrained student, here or on a server."""
    backend = keep_hard.backend
    if isinstance(backend, LoadedStudent):
        from stages.lib.difficulty.loaded import Loaded

        student, name = params.train.student, PurePath(params.train.student.name).name
        student_tokenizer(student)  # StudentError, where it has no chat template
        return Loaded(backend, student_folder(student), name, system_text(params), in_user_turn(params), params.run)
    from stages.lib.difficulty.served import Served

    return Served(backend, params.run)


def system_text(params: Params) -> str | None:
    """The system text of the evaluation's base arm, or None."""
    return None if params.evaluate.base_prompt == "plain" else prompt_text(params.convert.system_prompt)


def in_user_turn(params: Params) -> bool:
    """Whether the system text stands before the question, in the user's turn."""
    return params.train.system_prompt == "in_user_turn"


def summary(tally: Tally, keep_hard: KeepHard | None) -> str:
    """``kept 640 of 1000 (360 solved more than 2 times in 4)``."""
    kept, too_easy = tally.kept, tally.too_easy
    if keep_hard is None:
        return f"kept all {kept} (collect.keep_hard is null)"
    often = f"solved more than {keep_hard.max_solved} times in {keep_hard.samples}"
    return f"kept {kept} of {kept + too_easy} ({too_easy} {often})"


def write_run_facts(counts: RunCounts, seconds: float, params: Params) -> None:
    """Write the facts that differ between runs; no stage depends on them."""
    facts = {
        "bought": counts.bought,
        "from_store": counts.from_store,
        "paid_now": round(counts.cost, 6),
        "currency": params.run.currency or None,
        "seconds": round(seconds, 3),
    }
    write_json(project_root() / "metrics" / "runs" / "difficulty.json", facts)


if __name__ == "__main__":
    main()
