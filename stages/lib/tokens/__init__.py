"""The tokens of each row and which of them have a loss. A row starts with the tokens of its prompt in evaluation.

tokens_of(job, conversations, tokenizer)    → the tokens of each row; TrainingError for the first that differs

A loss is on the answers alone, each with its end: on all of them, or with ``train.loss_on: last`` on the last one. The
other tokens are as they would be without a loss on them: what a trained answer follows is its prompt in evaluation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.chat_template import Messages, prompt_ids, row_ids
from stages.lib.training import Conversation, Job, TrainingError

NO_LOSS = -100  # the label of a token without a loss, for transformers


@dataclass(frozen=True)
class Tokens:
    """The tokens of a row, and the begin and end of each answer that has a loss."""

    ids: list[int]
    trained: list[tuple[int, int]]

    @property
    def labels(self) -> list[int]:
        """The tokens that have a loss, in their places."""
        labels = [NO_LOSS] * len(self.ids)
        for begin, end in self.trained:
            labels[begin:end] = self.ids[begin:end]
        return labels


def tokens_of(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[Tokens]:
    """The rows; TrainingError if a trained answer does not follow its prompt, or if a row lacks part of an answer."""
    messages = [conversation.messages() for conversation in conversations]
    rows = row_ids(tokenizer, messages)
    places = [_answers(turns)[-1:] if job.train.loss_on == "last" else _answers(turns) for turns in messages]
    prompts = iter(prompt_ids(tokenizer, _each(messages, places)))
    # an earlier answer ends where the row and the conversation up to it are no longer the same
    closed = iter(row_ids(tokenizer, _each(messages, [each[:-1] for each in places], answered=True)))
    found = []
    for number, (row, answers) in enumerate(zip(rows, places, strict=True)):
        begins = [_begin(job, conversations[number], row, next(prompts), tokenizer) for _ in answers]
        ends = [*(_same(next(closed), row) for _ in answers[:-1]), len(row)]
        found.append(Tokens(row, list(zip(begins, ends, strict=True))))
    _check_answers(job, conversations, messages, tokenizer)
    return found


def _answers(turns: Messages) -> list[int]:
    return [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]


def _each(messages: list[Messages], places: list[list[int]], answered: bool = False) -> Iterator[Messages]:
    """The conversations up to each of these answers, with the answer or without it."""
    for turns, answers in zip(messages, places, strict=True):
        yield from (turns[: place + answered] for place in answers)


def _begin(job: Job, conversation: Conversation, row: list[int], prompt: list[int], tokenizer: Any) -> int:
    same = _same(prompt, row)
    if same < len(prompt):
        raise _differs(job, conversation, f"{tokenizer.decode(prompt[same:])!r:.60}")
    return same


def _same(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _check_answers(job: Job, conversations: list[Conversation], messages: list[Messages], tokenizer: Any) -> None:
    for conversation, turns in zip(conversations, messages, strict=True):
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        for answer in conversation.answers:
            if answer.strip() not in text:
                raise TrainingError(
                    f"{job.student}: its chat template leaves out part of the answer ({answer[:40]!r}…). "
                    "Choose other convert.markers, or another student."
                )


def _differs(job: Job, conversation: Conversation, at: str) -> TrainingError:
    return TrainingError(
        f"train: {job.name}: the tokens of evaluation's prompt and of the trained row differ from {at} on, for the "
        f"question {conversation.user[:40]!r}…. Choose other convert.markers, or another student."
    )
