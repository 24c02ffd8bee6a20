"""Conversations on the disk, read one at a time and as often as needed: their number takes no memory.

ShareGpt(Path("data/sharegpt/filtered"))             a dataset that ``convert`` wrote, in one file or in parts
with storing(folder / "conversations.jsonl") as file:    those that a training keeps of it, a JSON line each
    file.add(conversation)
file.stored()                                        → Stored

All have a ``Shape``: what must be known of all of them before one is trained on.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from stages.lib.files import named_errors
from stages.lib.files.shards import check_part, parts_of
from stages.lib.json_list import elements
from stages.lib.params import Tags
from stages.lib.rows import DataError, read_json


@dataclass(frozen=True)
class Conversation:
    """One training sample: its system text, the last question and its answer. ``history``: earlier ones, in pairs."""

    system: str
    user: str
    assistant: str
    history: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages, the answer last."""
        turns = [("system", self.system)] if self.system else []
        for question, answer in (*self.history, (self.user, self.assistant)):
            turns += [("user", question), ("assistant", answer)]
        return [{"role": role, "content": content} for role, content in turns]

    @property
    def answers(self) -> list[str]:
        """The texts of all answers, the last one at the end."""
        return [*(answer for _, answer in self.history), self.assistant]


@dataclass(frozen=True)
class Shape:
    """How many conversations there are, how many of them have several turns, and the answers of all turns.

    ``with_system``: whether some have a system text. ``first``: one of them. ``sha256``: of all of them in their order.
    """

    rows: int
    several: int
    answers: int
    with_system: bool
    first: Conversation
    sha256: str


class Tally:
    """The shape of the conversations so far."""

    def __init__(self) -> None:
        self._rows = self._several = self._answers = 0
        self._with_system = False
        self._first: Conversation | None = None
        self._hash = hashlib.sha256()

    def add(self, conversation: Conversation) -> bytes:
        """Count a conversation; the line that it is in a file."""
        line = orjson.dumps(conversation, option=orjson.OPT_APPEND_NEWLINE)
        self._rows += 1
        self._several += bool(conversation.history)
        self._answers += 1 + len(conversation.history)
        self._with_system |= bool(conversation.system)
        self._first = self._first or conversation
        self._hash.update(line)
        return line

    def shape(self) -> Shape:
        """The shape of them all, of which there must be one."""
        assert self._first
        counts = self._rows, self._several, self._answers
        return Shape(*counts, self._with_system, self._first, self._hash.hexdigest())


class _Sample(BaseModel):
    """One ShareGPT sample: a system text, and turns of a user and an assistant."""

    system: str = ""
    conversations: list[dict[str, str]] = Field(min_length=2)


class _Entry(BaseModel):
    """A dataset's entry in dataset_info.json: how its turns are named."""

    tags: Tags


@dataclass(frozen=True)
class ShareGpt:
    """The conversations of a ShareGPT folder, in order. DataError where one of them is broken, or there is none."""

    folder: Path

    @cached_property
    def shape(self) -> Shape:
        """What is known of them; reads them all once."""
        return _counted(self)

    def __iter__(self) -> Iterator[Conversation]:
        advice = f"Run 'dvc repro convert@{self.folder.name}' to rebuild it."
        path = self.folder / f"{self.folder.name}.json"
        files, first = parts_of(path, advice), 0
        tags = read_tags(self.folder, advice)
        for part, file in enumerate(files):
            number = 0
            for number, sample in enumerate(_samples(file, advice), start=1):
                yield _conversation(sample, tags, f"{file}: sample {number - 1}")
            first = first or number
            check_part(files, part, number, first, advice)
        if not first:
            raise DataError(f"{path}: there is nothing in it. {advice}")


def _samples(path: Path, advice: str) -> Iterator[_Sample]:
    number = 0
    try:
        with path.open("rb") as file:
            for value in elements(file):
                yield _Sample.model_validate(value)
                number += 1
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (number, *first["loc"]))
        raise DataError(f"{path}: sample {where}: {first['msg']}. {advice}") from error
    except ValueError as error:
        raise DataError(f"{path}: sample {number}: not a JSON list of samples ({error!s:.100}). {advice}") from error


def read_tags(folder: Path, advice: str) -> Tags:
    """The tags of a dataset's turns, from its dataset_info.json."""
    path = folder / "dataset_info.json"
    try:
        return TypeAdapter(dict[str, _Entry]).validate_python(read_json(path, advice))[folder.name].tags
    except (KeyError, ValidationError) as error:
        raise DataError(f"{path}: no entry '{folder.name}' with its tags. {advice}") from error


def _conversation(sample: _Sample, tags: Tags, where: str) -> Conversation:
    speakers = [turn.get(tags.role_tag) for turn in sample.conversations]
    texts = [turn.get(tags.content_tag) or "" for turn in sample.conversations]
    if speakers != [tags.user_tag, tags.assistant_tag] * (len(texts) // 2) or not all(text.strip() for text in texts):
        raise DataError(f"{where}: not user turns and assistant turns in alternation, with text. Fix or remove it.")
    try:
        "".join([sample.system, *texts]).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(f"{where}: {half!a} is half a character, not valid in UTF-8. Fix or remove it.") from error
    *history, (user, assistant) = zip(texts[::2], texts[1::2], strict=True)
    return Conversation(sample.system, user, assistant, tuple(history))


@dataclass(frozen=True)
class Stored:
    """Conversations in a file that ``storing`` wrote."""

    path: Path
    shape: Shape

    def __iter__(self) -> Iterator[Conversation]:
        with self.path.open("rb") as lines:
            for line in lines:
                fields: dict[str, Any] = orjson.loads(line)
                history = tuple((question, answer) for question, answer in fields.pop("history"))
                yield Conversation(**fields, history=history)


class Storing:
    """A file of conversations while it is written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._tally = Tally()

    def add(self, conversation: Conversation) -> None:
        """Add a conversation."""
        self._file.write(self._tally.add(conversation))

    def stored(self) -> Stored:
        """The file, once it is closed; there must be a conversation in it."""
        return Stored(self._path, self._tally.shape())


@contextmanager
def storing(path: Path) -> Iterator[Storing]:
    """A file of conversations in a folder that is removed with it."""
    with named_errors(path), path.open("wb") as file:
        yield Storing(path, file)


Conversations = list[Conversation] | ShareGpt | Stored


def shape_of(conversations: Conversations) -> Shape:
    """The shape of conversations; counts them, unless they know it."""
    return _counted(conversations) if isinstance(conversations, list) else conversations.shape


def _counted(conversations: Iterable[Conversation]) -> Shape:
    tally = Tally()
    for each in conversations:
        tally.add(each)
    return tally.shape()
