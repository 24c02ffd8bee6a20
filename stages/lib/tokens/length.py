"""Handle conversations longer than ``cutoff_len`` before the trainer, which would cut their markers off.

In:   a job's conversations, and the trainer's own count of their tokens
Out:  the rows that fit, how many of them were shortened, and the rows that are left out, each with its reason

``train.on_too_long`` chooses what happens to them:

- ``drop`` leaves them out;
- ``error`` refuses the dataset;
- ``shorten_reasoning`` ends the reasoning earlier, after a line or a sentence. It keeps the beginning, which is
  continuous text; removing a part of the middle would train a gap in the reasoning. All four markers, the solution
  and the end token are kept.

A conversation of several turns is one row: it is kept or left out as a whole, and only the reasoning of its last answer
is shortened. Without its earlier turns, its last question would be another question.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from stages.lib.params import Markers
from stages.lib.tokens import tokens_of
from stages.lib.training import Conversation, Job, TooLong, TrainingError

log = logging.getLogger("distillery.train")

# after a line or a sentence; the full stop in 3.5 does not end a sentence
_END = re.compile(r"\n|(?<=[.!?])\s|(?<=[.!?][\"')\]*])\s|[。！？]")


class Measured(Protocol):
    """A conversation with its length as its trainer counts it."""

    @property
    def conversation(self) -> Conversation:
        """The conversation that was measured."""

    @property
    def tokens(self) -> int:
        """Its length, including the template's tokens."""

    def fits(self, cutoff_len: int) -> bool:
        """Whether the trainer leaves it uncut."""


M = TypeVar("M", bound=Measured)
Measure = Callable[[list[Conversation]], list[M]]


@dataclass(frozen=True)
class Row:
    """A conversation and its number of tokens, including the chat template's."""

    conversation: Conversation
    tokens: int

    def fits(self, cutoff_len: int) -> bool:
        """Whether nothing of it would be cut."""
        return self.tokens <= cutoff_len


def measured(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[Row]:
    """The conversations with their lengths; TrainingError if evaluation would write a prompt differently."""
    rows = tokens_of(job, conversations, tokenizer)
    return [Row(conversation, len(row.ids)) for conversation, row in zip(conversations, rows, strict=True)]


@dataclass(frozen=True)
class FittingRows(Generic[M]):
    """The rows to train on, how many of them were shortened, and the rows that are left out."""

    rows: list[M]
    shortened: int
    left_out: list[TooLong]


def fitting_rows(job: Job, measure: Measure[M]) -> FittingRows[M]:
    """The conversations of a job that fit into its ``cutoff_len``; TrainingError if none does."""
    rows = measure(job.conversations)
    over = {place: row for place, row in enumerate(rows) if not row.fits(job.arm.cutoff_len)}
    if over and job.train.on_too_long == "error":
        raise TrainingError(_refusal(job, over))
    shorter: dict[int, M] = {}
    if job.train.on_too_long == "shorten_reasoning":
        shorter = shortened({place: row.conversation for place, row in over.items()}, job, measure)
    left_out = [_too_long(job, place, row) for place, row in over.items() if place not in shorter]
    fit = [shorter.get(place, row) for place, row in enumerate(rows) if place in shorter or place not in over]
    if over:
        counts = len(over), len(rows), len(shorter), len(left_out)
        log.warning("train: %d of %d rows are over cutoff_len: %d shortened, %d left out", *counts)
    if not fit:
        raise TrainingError(
            f"arms.{job.name}.cutoff_len: all {len(rows)} conversations are longer than {job.arm.cutoff_len} tokens "
            f"(the shortest has {min(row.tokens for row in rows)}). Raise it."
        )
    return FittingRows(fit, len(shorter), left_out)


def _refusal(job: Job, over: dict[int, M]) -> str:
    place, row = next(iter(over.items()))
    return (
        f"arms.{job.name}.cutoff_len: {len(over)} of {len(job.conversations)} conversations are longer than "
        f"{job.arm.cutoff_len} tokens, the first {job.arm.dataset}/{place} with {row.tokens}. Raise it, or set "
        "train.on_too_long: drop."
    )


def _too_long(job: Job, place: int, row: Measured) -> TooLong:
    tried = job.train.on_too_long == "shorten_reasoning"
    return TooLong(
        id=f"{job.arm.dataset}/{place}",
        reason="cannot_be_shortened" if tried else "too_long",
        tokens=row.tokens,
        cutoff_len=job.arm.cutoff_len,
        system=row.conversation.system,
        history=list(row.conversation.history),
        user=row.conversation.user,
        assistant=row.conversation.assistant,
    )


def shortened(over: dict[int, Conversation], job: Job, measure: Measure[M]) -> dict[int, M]:
    """Each row with as much of its reasoning as fits, by its position.

    Rows without markers are left out, and so are rows that are too long with any reasoning. Each round bisects the ends
    of lines and sentences of all rows together, because a tokenizer is fast on batches.
    """
    ends = {place: reasoning_ends(each.assistant, job.markers) for place, each in over.items()}
    fits, too_long = dict.fromkeys(ends, 0), {place: len(found) for place, found in ends.items()}
    best: dict[int, M] = {}
    while undecided := [place for place in ends if fits[place] < too_long[place]]:
        middles = {place: (fits[place] + too_long[place]) // 2 for place in undecided}
        tried = measure([cut(over[place], ends[place][middle], job.markers) for place, middle in middles.items()])
        for (place, middle), row in zip(middles.items(), tried, strict=True):
            if row.fits(job.arm.cutoff_len):
                best[place], fits[place] = row, middle + 1
            else:
                too_long[place] = middle
    return best


def reasoning_ends(answer: str, markers: Markers) -> list[int]:
    """The offsets in an answer where its reasoning may end earlier; empty if it has no reasoning."""
    start, stop = answer.find(markers.begin_of_thought), answer.find(markers.end_of_thought)
    if not 0 <= start < stop:
        return []
    start += len(markers.begin_of_thought)
    ends = [match.end() for match in _END.finditer(answer, start, stop)]
    return [end for end in ends if answer[start:end].strip() and answer[end:stop].strip()]


def cut(conversation: Conversation, end: int, markers: Markers) -> Conversation:
    """A copy of a conversation whose reasoning ends at this offset of its answer."""
    answer = conversation.assistant
    return replace(conversation, assistant=answer[:end].rstrip() + answer[answer.index(markers.end_of_thought) :])
