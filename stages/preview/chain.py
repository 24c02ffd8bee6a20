"""The stages on a few questions: each question with its requests, answers, verdicts and trained text.

The questions are a sample of those that the whole run asks: the first ones in the order of a hash of their ids. It does
not depend on their order in the source, a larger sample contains a smaller one, and every preview takes the same.
"""

import hashlib
import heapq
import importlib
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.convert import Dropped, converted, messages, refuse_control_tokens
from stages.distill import REBUILD, PlannedCalls, ask, outcome
from stages.filter import decide_rows
from stages.lib.chat_template import align, control_tokens, rendered
from stages.lib.deciders import Deciders
from stages.lib.params import OpenMind, Params, Run, prompt_text
from stages.lib.replies.reading import BodyError, read_body
from stages.lib.replies.usage import Tokens, tokens
from stages.lib.reviews.applying import Reviews
from stages.lib.rows import read_rows, write_rows
from stages.lib.rows.distilled import Distilled, Failure
from stages.lib.rows.filtered import Filtered
from stages.lib.rows.question import Question
from stages.lib.store.answer_file import open_answers
from stages.lib.store.answer_store import AnswerStore, open_store, request_key
from stages.lib.students import student_tokenizer
from stages.lib.teacher.asking import AskResult, Plan, Respondent, make_plan, price_of
from stages.lib.teacher.failures import TeacherError
from stages.lib.training import Conversation, Job

PIPELINE = Path(__file__).resolve().parents[2] / "dvc.yaml"
QUESTIONS = "data/questions.jsonl"
REVIEWS = Path("data/reviews.jsonl")
DOWNLOADED = Path("data/eval_data")  # the benchmarks' files, not downloaded again where they are


@dataclass(frozen=True)
class Call:
    """A request to the teacher and its row; ``usage`` are the tokens of a received answer, usable or not."""

    question: Question
    sample: int
    request: dict[str, Any]
    row: Distilled | Failure
    usage: Tokens | None


@dataclass(frozen=True)
class Part:
    """A part of a trained text, its tokens, and whether they have a loss."""

    text: str
    tokens: int
    has_loss: bool


@dataclass(frozen=True)
class Trained:
    """A row as it is trained; ``fits`` has for each arm whether its trainer leaves the row uncut."""

    parts: tuple[Part, ...]
    fits: dict[str, bool]

    @property
    def tokens(self) -> int:
        """All tokens of the row."""
        return sum(part.tokens for part in self.parts)


@dataclass
class Verdicts:
    """The rows with their verdicts, by key; for each row that a judge marked, the tokens of its replies."""

    rows: dict[str, Filtered] = field(default_factory=dict)
    replies: dict[str, list[Tokens]] = field(default_factory=dict)
    latencies: Sequence[float] = ()


@dataclass
class Preview:
    """The result: ``questions`` are the number of the whole run, ``plan`` its requests after this preview.

    ``trained`` has each row by key, or the reason why convert drops it. ``latencies`` are those of new answers.
    """

    questions: int
    plan: Plan
    calls: list[Call]
    latencies: Sequence[float]
    judged: Verdicts = field(default_factory=Verdicts)
    trained: dict[str, Trained | str] = field(default_factory=dict)


def collect(params_path: Path, store_path: Path, folder: Path) -> Path:
    """Run the stages that make the questions, as dvc.yaml does but into ``folder``; return the questions' file."""
    made: list[str] = []  # the files of these stages
    for stage in makers(YAML(typ="safe").load(PIPELINE.read_bytes())["stages"], QUESTIONS):
        if str(DOWNLOADED) in stage["outs"] and DOWNLOADED.is_dir():
            continue
        _, _, module, *words = shlex.split(stage["cmd"])  # python -m stages.collect …
        command = importlib.import_module(module).main
        options = {"--params": params_path, "--store": store_path}
        known = {option for each in command.params for option in each.opts}
        made += [*stage["outs"], *(next(iter(out)) for out in stage["metrics"])]
        words = [str(folder / word) if word in made else word for word in words]
        words += [str(word) for name, value in options.items() if name in known for word in (name, value)]
        command.main(words, standalone_mode=False)
    return folder / QUESTIONS


def makers(stages: dict[str, Any], file: str) -> list[dict[str, Any]]:
    """The stages that a file is made by, in the order in which they run."""
    stage = next((each for each in stages.values() if file in each.get("outs", [])), None)
    return [*(maker for dep in stage["deps"] for maker in makers(stages, dep)), stage] if stage else []


def distill(params: Params, questions_path: Path, count: int, store_path: Path, folder: Path) -> Preview:
    """Ask for the answers to ``count`` questions that the store lacks; TeacherError where none can have an answer."""
    teacher = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher")
    price = price_of(teacher, params.run)
    whole = PlannedCalls(questions_path, params.distill, teacher.identity(params.run))
    known = stored_ids(whole, teacher, params.run, store_path) if params.run.offline else None
    total, chosen = sample(questions_path, count, known)
    write_rows(folder / "preview.jsonl", chosen)
    few = PlannedCalls(folder / "preview.jsonl", params.distill, teacher.identity(params.run))
    result = AskResult()
    with open_store(store_path) as store:
        ask(few, teacher, one_by_one(params.run), store, result)
        calls = [_call(*planned, store, result) for planned in few]
        plan = make_plan(whole.requests, store, price)
    return Preview(total, plan, calls, result.latencies)


def one_by_one(run: Run) -> Run:
    """The same settings without batches, whose answers take hours: a preview asks its few questions at once."""
    return run.model_copy(update={"batch": None})


def sample(path: Path, count: int, among: set[str] | None) -> tuple[int, list[Question]]:
    """The number of questions in a file, and ``count`` of them in its order; with ``among`` only of these ids."""
    ids = (question.id for question in read_rows(path, Question, REBUILD))
    known = (each for each in ids if among is None or each in among)
    chosen = set(heapq.nsmallest(count, known, key=lambda each: hashlib.sha256(each.encode()).digest()))
    total = sum(1 for _ in read_rows(path, Question, REBUILD))
    return total, [question for question in read_rows(path, Question, REBUILD) if question.id in chosen]


def stored_ids(calls: PlannedCalls, teacher: Respondent, run: Run, store_path: Path) -> set[str]:
    """The ids of the questions with an answer in the store; TeacherError if there are none."""
    with open_answers(store_path if store_path.exists() else Path(os.devnull)) as answers:
        teacher.read_aliases(answers, run)
        found = {question.id for question, _, request in calls if request_key(request) in answers}
    if not found:
        raise TeacherError(
            "preview: run.offline is true, and the store has no answer to these questions. Set it to false, or add the "
            "answers with 'make store-import FILE=answers.jsonl'."
        )
    return found


def _call(question: Question, number: int, request: dict[str, Any], store: AnswerStore, result: AskResult) -> Call:
    row, usage = outcome(question, number, request, store, result)
    received = request_key(request) in store
    return Call(question, number, request, row, tokens(usage) if received else None)


def judge(params: Params, rows: list[Distilled], store_path: Path) -> Verdicts:
    """The verdict of every row; TeacherError where a judge's mark was not received."""
    deciders = Deciders(params.filter, params.train.student)
    with ExitStack() as stack:
        if deciders.judge:
            store = stack.enter_context(open_store(store_path))
            deciders.ask_judge(rows, one_by_one(params.run), store)
        reviews = Reviews.of(REVIEWS if REVIEWS.is_file() else None)
        judged = Verdicts({row.key: row for row in decide_rows(rows, deciders, reviews, params.filter)})
        if deciders.judge and (judging := deciders.judge.judging):
            judged.latencies = judging.latencies
            for key, row in judged.rows.items():
                if row.judge_verdict is not None:
                    judged.replies[key] = [_usage(body) for body in judging.replies(row, store)]
    return judged


def _usage(body: bytes) -> Tokens:
    try:
        return tokens(read_body(body).usage)
    except BodyError:
        return Tokens()


def train_texts(params: Params, rows: list[Distilled]) -> dict[str, Trained | str]:
    """Each row, by key, as the trainer would read it, or the reason why convert drops it.

    Prompt and loss are those of the trainer's own code.
    """
    system = prompt_text(params.convert.system_prompt)
    tokenizer = student_tokenizer(params.train.student)
    control = control_tokens(tokenizer, params.convert.markers)
    refuse_control_tokens(system, control, params.convert.system_prompt)
    found = dict(zip([row.key for row in rows], converted(rows, system, params.convert, control), strict=True))
    reasons: dict[str, Trained | str] = {key: row.reason for key, row in found.items() if isinstance(row, Dropped)}
    keys = [key for key in found if key not in reasons]
    turns = [messages(row, params.convert.tags) for row in found.values() if not isinstance(row, Dropped)]
    return reasons | dict(zip(keys, _trained(turns, tokenizer, params), strict=True))


def _trained(rows: list[list[dict[str, str]]], tokenizer: Any, params: Params) -> list[Trained]:
    """The conversations as the trainer reads them; DistilleryError where it would refuse one."""
    conversations = [conversation(turns) for turns in rows]
    job = Job(
        name=next(iter(params.arms), ""),
        conversations=conversations,
        student=Path(tokenizer.name_or_path),
        train=params.train,
        arm=next(iter(params.arms.values())),
        run=params.run,
        markers=params.convert.markers,
        out=Path(),
        rows=Path(os.devnull),  # nothing is trained, and nothing can be written under it
    )
    return list((_by_openmind if isinstance(params.train.trainer, OpenMind) else _by_trl)(job, tokenizer, params))


def conversation(turns: list[dict[str, str]]) -> Conversation:
    """Chat messages as a conversation of the training."""
    system = turns[0]["content"] if turns and turns[0]["role"] == "system" else ""
    texts = [turn["content"] for turn in turns if turn["role"] != "system"]
    *history, (user, assistant) = zip(texts[::2], texts[1::2], strict=True)
    return Conversation(system, user, assistant, tuple(history))


def _by_trl(job: Job, tokenizer: Any, params: Params) -> Iterator[Trained]:
    from stages.lib.tokens import tokens_of

    rows = list(job.conversations)
    with_system, with_history = (any(getattr(row, name) for row in rows) for name in ("system", "history"))
    align(tokenizer, job.markers, job.train.system_prompt, with_system, with_history)
    for row in tokens_of(job, rows, tokenizer):
        labelled = zip(row.ids, (label >= 0 for label in row.labels), strict=True)
        spans = [(has_loss, [each for each, _ in group]) for has_loss, group in groupby(labelled, key=itemgetter(1))]
        parts = tuple(Part(_decoded(tokenizer, ids), len(ids), has_loss) for has_loss, ids in spans)
        yield Trained(parts, {name: len(row.ids) <= arm.cutoff_len for name, arm in params.arms.items()})


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _by_openmind(job: Job, tokenizer: Any, params: Params) -> Iterator[Trained]:
    from stages.lib.trainers.openmind import check_loss_on
    from stages.lib.trainers.openmind.tokens import TURN, Row, chat_template

    check_loss_on(job)
    tokenizer.chat_template = chat_template(job.train.system_prompt)
    for each in job.conversations:
        prompt = rendered(tokenizer, each.messages()[:-1], opened=True)
        # openMind tokenizes prompt and answer apart, and adds the end token
        texts = tokenizer([prompt, each.assistant], add_special_tokens=False, verbose=False)["input_ids"]
        row = Row(each, len(texts[0]), len(texts[1]) + 1)
        answer = Part(each.assistant + TURN[1], row.answer_tokens, True)
        fits = {name: row.fits(arm.cutoff_len) for name, arm in params.arms.items()}
        yield Trained((Part(prompt, row.prompt_tokens, False), answer), fits)
