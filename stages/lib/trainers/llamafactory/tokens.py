"""LLaMA-Factory's tokens: the length of each row, which rows fit, and the check that training equals evaluation."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from stages.lib.chat_template import prompt_ids
from stages.lib.command import project_root
from stages.lib.params import LlamaFactory
from stages.lib.tokens.length import FittingRows, fitting_rows
from stages.lib.tokens.tokenizer import check_end_is_trained
from stages.lib.trainers.llamafactory.inputs import samples, training_yaml
from stages.lib.training import Conversation, Job, TrainingError
from stages.lib.training.external import inherited
from stages.lib.training.external_inputs import settings_of
from stages.lib.training.launching import last_lines

ENCODE = Path(__file__).with_name("encode.py")
NO_LOSS = -100


class Encoded(BaseModel):
    """A row's tokens and labels as LLaMA-Factory would train on them, and whether it would cut nothing."""

    ids: list[int]
    labels: list[int]
    whole: bool


Encode = Callable[[list[Conversation]], list[Encoded]]


@dataclass(frozen=True)
class Row:
    """A conversation and the lengths that LLaMA-Factory gives it, in tokens."""

    conversation: Conversation
    tokens: int
    answer_tokens: int  # including what its template writes after the answer
    whole: bool

    def fits(self, _cutoff_len: int) -> bool:
        """Whether LLaMA-Factory leaves it uncut, at the cutoff_len of its YAML."""
        return self.whole


def measured_rows(job: Job, program: str, tokenizer: Any) -> FittingRows[Row]:
    """The conversations that LLaMA-Factory leaves uncut, some of them shortened; TrainingError if tokens differ."""
    with encoder(job, program) as encode:
        return fitting_rows(job, lambda conversations: _measured(job, conversations, tokenizer, encode))


@contextmanager
def encoder(job: Job, program: str) -> Iterator[Encode]:
    """A process in LLaMA-Factory's environment that tokenizes conversations."""
    python = Path(program).with_name("python")
    if not python.is_file():
        raise TrainingError(
            f"train.trainer: no python beside {program}, so its tokens cannot be counted. Name the "
            "llamafactory-cli of LLaMA-Factory's environment in LLAMAFACTORY_CLI."
        )
    log_path = project_root() / ".cache" / "training" / f"{job.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, log_path.open("wb") as log:
        process = subprocess.Popen(
            [python, "-P", ENCODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=inherited(program, job, Path(scratch)),
            text=True,
        )
        assert process.stdin
        assert process.stdout
        asked, said = process.stdin, process.stdout
        lines = json.dumps(training_yaml(job, Path(scratch))) + "\n"

        def encode(conversations: list[Conversation]) -> list[Encoded]:
            nonlocal lines
            lines += json.dumps(samples(job, conversations)) + "\n"
            try:
                asked.write(lines)
                asked.flush()
                answer = said.readline()
            except BrokenPipeError:
                answer = ""
            lines = ""
            if not answer:
                raise TrainingError(f"train: LLaMA-Factory cannot tokenize the rows. {last_lines(log_path)}")
            return TypeAdapter(list[Encoded]).validate_json(answer)

        try:
            yield encode
        finally:
            process.kill()
            process.communicate()


def _measured(job: Job, conversations: list[Conversation], tokenizer: Any, encode: Encode) -> list[Row]:
    prompts = prompt_ids(tokenizer, [each.messages()[:-1] for each in conversations])
    texts = [each.assistant for each in conversations]
    answers = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    encoded = encode(conversations)
    for row, conversation, prompt, answer in zip(encoded, conversations, prompts, answers, strict=True):
        start = len(prompt)
        _check_same(job, conversation, tokenizer, prompt, row.ids[:start])
        _check_same(job, conversation, tokenizer, answer, row.labels[start : start + len(answer)])
        if job.train.loss_on == "last" or not conversation.history:
            _check_same(job, conversation, tokenizer, [NO_LOSS] * start, row.labels[:start])
    check_end_is_trained(replace(job, conversations=conversations), [row.labels for row in encoded], tokenizer)
    trained = [sum(label != NO_LOSS for label in row.labels) for row in encoded]
    rows = zip(conversations, encoded, trained, strict=True)
    return [Row(conversation, len(row.ids), count, row.whole) for conversation, row, count in rows]


def _check_same(job: Job, conversation: Conversation, tokenizer: Any, ours: list[int], theirs: list[int]) -> None:
    """TrainingError if LLaMA-Factory trains on other tokens than evaluation uses."""
    if ours == theirs:
        return
    settings = settings_of(job)
    assert isinstance(settings, LlamaFactory)  # its kind selects this package
    pairs = enumerate(zip(ours, theirs, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), len(theirs))
    texts = [f"{tokenizer.decode([each for each in ids[same:] if each >= 0])!r:.60}" for ids in (ours, theirs)]
    raise TrainingError(
        f"train.trainer.template: {settings.template}: LLaMA-Factory would train on {texts[1]} where evaluation has "
        f"{texts[0]}, for the question {conversation.user[:40]!r}…. Name the template that fits the student's chat "
        "template, or set default_system in train.trainer.extra."
    )
