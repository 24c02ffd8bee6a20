"""Handle conversations longer than ``cutoff_len`` before the trainer, which would cut their markers off.

In:   a job's conversations, and the trainer's own count of their tokens
Out:  in job.rows: conversations.jsonl, the rows that fit, and left_out.jsonl, the others, each with its reason

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
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

from stages.lib.params import Markers
from stages.lib.rows import writing_rows
from stages.lib.tokens import Tokens, tokens_of
from stages.lib.training import Conversation, Job, LeftOut, TooLong, TrainingError
from stages.lib.training.dataset import Stored, storing

log = logging.getLogger("distillery.train")

BATCH = 256  # conversations that are measured at once: a tokenizer is fast on batches
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

    @property
    def answer_tokens(self) -> int:
        """Those that have a loss, including the end token."""

    def fits(self, cutoff_len: int) -> bool:
        """Whether the trainer leaves it uncut."""


M = TypeVar("M", bound=Measured)
Measure = Callable[[list[Conversation]], list[M]]


@dataclass(frozen=True)
class Row:
    """A conversation and its number of tokens, including the chat template's, and those that have a loss."""

    conversation: Conversation
    tokens: int
    answer_tokens: int = 0

    def fits(self, cutoff_len: int) -> bool:
        """Whether nothing of it would be cut."""
        return self.tokens <= cutoff_len


@dataclass(frozen=True)
class TokenizedRow(Row):
    """A row with the tokens themselves."""

    read: Tokens = field(kw_only=True)


def measured(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[TokenizedRow]:
    """The conversations with their tokens; TrainingError if evaluation would write a prompt differently."""
    rows = zip(conversations, tokens_of(job, conversations, tokenizer), strict=True)
    return [
        TokenizedRow(each, len(row.ids), sum(end - begin for begin, end in row.trained), read=row) for each, row in rows
    ]


@dataclass(frozen=True)
class FittingRows:
    """The rows to train on, their tokens, how many of them were shortened, and the rows that are left out."""

    conversations: Stored
    tokens: int
    answer_tokens: int
    shortened: int
    left_out: LeftOut

    @property
    def rows(self) -> int:
        """How many are trained on."""
        return self.conversations.shape.rows


def fitting_rows(job: Job, measure: Measure[M], keep: Callable[[M], None] = lambda _: None) -> FittingRows:
    """The conversations of a job that fit into its ``cutoff_len``; TrainingError if none does.

    ``keep`` is called with each of them, in their order.
    """
    counts, left_out = _Counts(), job.rows / "left_out.jsonl"
    with storing(job.rows / "conversations.jsonl") as fitting, writing_rows(left_out) as others:
        for batch in _batches(job):
            for place, row, shorter in _each(job, batch, measure, counts):
                if shorter is None:
                    others.add(_too_long(job, place, row))
                    continue
                fitting.add(shorter.conversation)
                counts.tokens += shorter.tokens
                counts.answer_tokens += shorter.answer_tokens
                keep(shorter)
    if counts.over and job.train.on_too_long == "error":
        raise TrainingError(_refusal(job, counts))
    if counts.over:
        facts = counts.over, counts.rows, counts.shortened, others.count
        log.warning("train: %d of %d rows are over cutoff_len: %d shortened, %d left out", *facts)
    if others.count == counts.rows:
        raise TrainingError(
            f"arms.{job.name}.cutoff_len: all {counts.rows} conversations are longer than {job.arm.cutoff_len} tokens "
            f"(the shortest has {counts.shortest}). Raise it."
        )
    found = LeftOut(left_out, others.count)
    return FittingRows(fitting.stored(), counts.tokens, counts.answer_tokens, counts.shortened, found)


@dataclass
class _Counts:
    """Of the rows so far; ``tokens`` of those that fit. ``first``: place and length of the first too long one."""

    rows: int = 0
    over: int = 0
    shortened: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    shortest: float = math.inf
    first: tuple[int, int] = (0, 0)


def _batches(job: Job) -> Iterator[list[Conversation]]:
    conversations = iter(job.conversations)
    return iter(lambda: list(islice(conversations, BATCH)), [])


def _each(
    job: Job, batch: list[Conversation], measure: Measure[M], counts: _Counts
) -> Iterator[tuple[int, M, M | None]]:
    """Each row of a batch with its place in the dataset, and as it is trained on: itself, shortened, or None."""
    rows = dict(enumerate(measure(batch), start=counts.rows))
    over = {place: row for place, row in rows.items() if not row.fits(job.arm.cutoff_len)}
    shorter: dict[int, M] = {}
    if job.train.on_too_long == "shorten_reasoning":
        shorter = shortened({place: row.conversation for place, row in over.items()}, job, measure)
    if over and not counts.over:
        counts.first = next((place, row.tokens) for place, row in over.items())
    counts.rows += len(rows)
    counts.over += len(over)
    counts.shortened += len(shorter)
    counts.shortest = min(counts.shortest, *(row.tokens for row in rows.values()))
    for place, row in rows.items():
        yield place, row, shorter.get(place) if place in over else row


def _refusal(job: Job, counts: _Counts) -> str:
    place, tokens = counts.first
    return (
        f"arms.{job.name}.cutoff_len: {counts.over} of {counts.rows} conversations are longer than "
        f"{job.arm.cutoff_len} tokens, the first {job.arm.dataset}/{place} with {tokens}. Raise it, or set "
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
