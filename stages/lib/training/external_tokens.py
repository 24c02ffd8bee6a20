"""A trainer's own tokens: the length of each row, which rows fit, and the check that training equals evaluation.

    TOKENS = OwnTokens(PROGRAM, Path("…/encode.py"), training_yaml, samples, "set system in train.trainer.extra")
    rows, tokenizer = measured(TOKENS, job)

The rows are tokenized in the trainer's environment, by its own code (external_encode.py). Each row must begin with the
tokens of its prompt in evaluation, with a loss on the answer and the end token.
"""

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from stages.lib.chat_template import prompt_ids
from stages.lib.command import project_root
from stages.lib.params import TemplateTrainer
from stages.lib.tokens import NO_LOSS
from stages.lib.tokens.length import FittingRows, fitting_rows
from stages.lib.tokens.tokenizer import Ends, aligned_tokenizer, check_end_is_trained, end_of_turn
from stages.lib.training import Conversation, Job, TrainingError
from stages.lib.training.external import Program, inherited
from stages.lib.training.external_inputs import settings_of
from stages.lib.training.launching import last_lines
from stages.lib.training.resources import check_weights_there

ENCODE = Path(__file__).with_name("external_encode.py")


@dataclass(frozen=True)
class OwnTokens:
    """How a trainer tokenizes: its program, its file for external_encode.py, the keys of its YAML and its samples.

    ``advice``: what else to do where a template writes another text, after "Name the template that fits".
    """

    program: Program
    encode: Path
    keys: Callable[[Job, Path], dict[str, Any]]
    samples: Callable[[Job, Iterable[Conversation]], Iterator[dict[str, Any]]]
    advice: str


class Encoded(BaseModel):
    """A row's tokens and labels as the trainer would train on them, and whether it keeps all of them."""

    ids: list[int]
    labels: list[int]
    whole: bool


Encode = Callable[[list[Conversation]], list[Encoded]]


@dataclass(frozen=True)
class Row:
    """A conversation and the lengths that the trainer gives it, in tokens."""

    conversation: Conversation
    tokens: int
    answer_tokens: int  # including what its template writes after the answer
    ends: int  # end tokens with a loss
    whole: bool

    def fits(self, _cutoff_len: int) -> bool:
        """Whether the trainer leaves it uncut, at the length of its YAML."""
        return self.whole


def measured(own: OwnTokens, job: Job) -> tuple[FittingRows, Any]:
    """The rows that the trainer leaves uncut, and the tokenizer with the chat template of the training."""
    program, _ = own.program.find(settings_of(job))
    own.program.check_trackers(job, program)
    check_weights_there(job.student)
    tokenizer = aligned_tokenizer(job)
    tokenizer.eos_token = end_of_turn(job, tokenizer)
    return measured_rows(own, job, program, tokenizer), tokenizer


def measured_rows(own: OwnTokens, job: Job, program: str, tokenizer: Any) -> FittingRows:
    """The conversations that the trainer leaves uncut, some of them shortened; TrainingError if tokens differ."""
    rows_with: Counter[int] = Counter()  # so many end tokens
    with encoder(own, job, program) as encode:
        measure = partial(_measured, own, job, tokenizer, encode)
        found = fitting_rows(job, measure, keep=lambda row: rows_with.update([row.ends]))
    ends = Ends(found.rows, rows_with[0], sum(number * rows for number, rows in rows_with.items()))
    check_end_is_trained(job, ends, found.conversations.shape.answers, tokenizer)
    return found


@contextmanager
def encoder(own: OwnTokens, job: Job, program: str) -> Iterator[Encode]:
    """A process in the trainer's environment that tokenizes conversations."""
    python = Path(program).with_name("python")
    if not python.is_file():
        raise TrainingError(
            f"train.trainer: no python beside {program}, so its tokens cannot be counted. Name the "
            f"{own.program.usual} of {own.program.name}'s environment in {own.program.variable}."
        )
    log_path = project_root() / ".cache" / "training" / f"{job.name}.tokens.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, log_path.open("wb") as log:
        process = subprocess.Popen(
            [python, "-c", ENCODE.read_text(encoding="utf-8"), own.encode],  # as a file, its folder would be importable
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=inherited(program, job, Path(scratch)),
            text=True,
        )
        assert process.stdin
        assert process.stdout
        asked, said = process.stdin, process.stdout
        lines = json.dumps(own.keys(job, Path(scratch))) + "\n"

        def encode(conversations: list[Conversation]) -> list[Encoded]:
            nonlocal lines
            lines += json.dumps(list(own.samples(job, conversations))) + "\n"
            try:
                asked.write(lines)
                asked.flush()
                answer = said.readline()
            except BrokenPipeError:
                answer = ""
            lines = ""
            if not answer:
                raise TrainingError(f"train: {own.program.name} cannot tokenize the rows. {last_lines(log_path)}")
            return TypeAdapter(list[Encoded]).validate_json(answer)

        try:
            yield encode
        finally:
            process.kill()
            process.communicate()


def _measured(own: OwnTokens, job: Job, tokenizer: Any, encode: Encode, conversations: list[Conversation]) -> list[Row]:
    prompts = prompt_ids(tokenizer, [each.messages()[:-1] for each in conversations])
    texts = [each.assistant for each in conversations]
    answers = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    encoded = encode(conversations)
    for row, conversation, prompt, answer in zip(encoded, conversations, prompts, answers, strict=True):
        start = len(prompt)
        _check_same(own, job, conversation, tokenizer, prompt, row.ids[:start])
        _check_same(own, job, conversation, tokenizer, answer, row.labels[start : start + len(answer)])
        if job.train.loss_on == "last" or not conversation.history:
            _check_same(own, job, conversation, tokenizer, [NO_LOSS] * start, row.labels[:start])
    return [
        Row(
            conversation,
            tokens=len(row.ids),
            answer_tokens=sum(label != NO_LOSS for label in row.labels),
            ends=row.labels.count(tokenizer.eos_token_id),
            whole=row.whole,
        )
        for conversation, row in zip(conversations, encoded, strict=True)
    ]


def _check_same(
    own: OwnTokens, job: Job, conversation: Conversation, tokenizer: Any, ours: list[int], theirs: list[int]
) -> None:
    """TrainingError if the trainer trains on other tokens than evaluation uses."""
    if ours == theirs:
        return
    settings = settings_of(job)
    assert isinstance(settings, TemplateTrainer)  # its kind selects the package that calls this
    pairs = enumerate(zip(ours, theirs, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), len(theirs))
    texts = [f"{tokenizer.decode([each for each in ids[same:] if each >= 0])!r:.60}" for ids in (ours, theirs)]
    raise TrainingError(
        f"train.trainer.template: {settings.template}: {own.program.name} would train on {texts[1]} where evaluation "
        f"has {texts[0]}, for the question {conversation.user[:40]!r}…. Name the template that fits the student's chat "
        f"template, or {own.advice}."
    )
