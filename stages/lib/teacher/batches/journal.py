"""Keep on the disk which requests are in which batch, from before it is submitted until its answers are in the store.

A folder next to the store, with two files for each open batch:

    answers.batches/20261128T101500-9f86d081.jsonl    its requests: {"key": "9f…", "attempt": 1, "request": {…}}
    answers.batches/20261128T101500-9f86d081.json     how far it is: {"file_id": "file-…", "batch_id": "batch_…", …}

A step is written down as soon as it is done:

    neither id         the file was perhaps uploaded: upload it again, which costs nothing
    file_id            the batch was perhaps submitted: look for one with this file before you submit it
    batch_id           it is at the server

Both files are removed when every answer is in the store. Where processes share a store, the one that has claimed a
batch in the store (``claim_key``) works on it; a claim ends with its process, and another one takes the batch over
(worker.py). What an open batch may cost counts for the budget of its section, whether a process works on it or not.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.store.answer_file import AnswerFile
from stages.lib.store.answer_store import StoreError, request_key
from stages.lib.store.reserving import Reserved
from stages.lib.teacher.spending import prompt_bytes

HOUR_S = 3600


class Batch(BaseModel):
    """An open batch. ``created`` is in seconds since 1970, ``prompt_tokens`` an estimate."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    token: str
    stage: str
    section: str
    endpoint: str
    key_variable: str
    model: str
    created: int
    requests: int
    prompt_tokens: int
    file_id: str | None = None
    batch_id: str | None = None

    @property
    def name(self) -> str:
        """What a person calls it: its id at the server, before it has one its token."""
        return self.batch_id or self.token

    @property
    def size(self) -> str:
        """``1 request``, ``50000 requests``."""
        return f"{self.requests} request{'s' if self.requests != 1 else ''}"

    @property
    def claim_key(self) -> str:
        """The key under which the store has a process claim it."""
        return hashlib.sha256(f"batch {self.token}".encode()).hexdigest()


@dataclass(frozen=True)
class Item:
    """A request in a batch; ``attempt`` 2 is its second batch."""

    key: str
    request: dict[str, Any]
    attempt: int = 1


def prefix(key: str) -> int:
    """The first 8 bytes of a key, which tell keys apart in memory."""
    return int(key[:16], 16)


def in_hex(found: int) -> str:
    """A prefix as the key begins with it."""
    return f"{found:016x}"


class Journal:
    """The open batches of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store.with_suffix(".batches")

    def batches(self) -> list[Batch]:
        """All open batches, the oldest first; StoreError where a file is no entry."""
        return [batch for path in sorted(self.folder.glob("*.json")) if (batch := self._read(path))]

    def items(self, batch: Batch) -> Iterator[Item]:
        """The requests of a batch; none where another process has closed it. StoreError where a line is no request."""
        path = self.requests_path(batch)
        with suppress(FileNotFoundError), path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    item = Item(**orjson.loads(line))
                except (ValueError, TypeError) as error:
                    advice = self._advice(batch.token)
                    raise StoreError(f"{path}:{number}: not a request of a batch. {advice}") from error
                yield item

    def add(self, batch: Batch, items: Iterable[Item]) -> None:
        """Write a batch down before anything is sent: first its requests, then its entry."""
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.glob("*.*"):  # of a process that was killed between the two, or before
            with suppress(FileNotFoundError):
                token, is_old = path.name.partition(".")[0], path.stat().st_mtime < time.time() - HOUR_S
                if is_old and not (self.folder / f"{token}.json").exists():
                    path.unlink()
        lines = (orjson.dumps({"key": each.key, "attempt": each.attempt, "request": each.request}) for each in items)
        self._write(self.requests_path(batch), (line + b"\n" for line in lines))
        self.save(batch)

    def save(self, batch: Batch) -> None:
        """Write down how far a batch is."""
        self._write(self.folder / f"{batch.token}.json", [batch.model_dump_json().encode() + b"\n"])

    def close(self, batch: Batch) -> None:
        """Remove a batch: its answers are in the store, or it never will have any."""
        (self.folder / f"{batch.token}.json").unlink(missing_ok=True)
        for path in self.folder.glob(f"{batch.token}.*"):
            path.unlink(missing_ok=True)

    def entry(self, token: str) -> Batch | None:
        """A batch as it is now; None where another process has closed it."""
        return self._read(self.folder / f"{token}.json")

    def requests_path(self, batch: Batch) -> Path:
        """The file with its requests."""
        return self.folder / f"{batch.token}.jsonl"

    def scratch_path(self, batch: Batch, kind: str) -> Path:
        """A file that can be made again: what is uploaded, or what was downloaded."""
        return self.folder / f"{batch.token}.{kind}.tmp"

    def check(self, batches: Iterable[Batch]) -> None:
        """StoreError where the requests of an open batch are gone: nobody would know what it has, and buy it again."""
        for batch in batches:
            path = self.requests_path(batch)
            if not path.exists() and self.entry(batch.token):
                raise StoreError(f"{path}: missing. Put it back. If it is lost: {self._advice(batch.token)}")

    def ask_server(self) -> None:
        """Have a network filesystem list the folder anew: a change of a folder makes it forget the list that it has."""
        self.folder.mkdir(exist_ok=True)
        os.utime(self.folder)

    def _read(self, path: Path) -> Batch | None:
        try:
            return Batch.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StoreError(f"{path}: not an entry of a batch. {self._advice(path.stem)}") from error

    def _advice(self, token: str) -> str:
        return f"Move {token}.* from {self.folder} to another folder; answers of that batch are then bought again."

    def _write(self, path: Path, lines: Iterable[bytes]) -> None:
        """Write a file whole and to the disk, then give it its name."""
        part = path.with_name(f"{path.name}.tmp")
        try:
            with part.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreError(f"{path}: {error.strerror}. Free disk space, then run the stage again.") from error


@dataclass(frozen=True)
class Content:
    """What is in a batch: its keys, the ``pending`` requests without an answer, the ``length`` of their prompts."""

    prefixes: frozenset[int] = frozenset()
    pending: int = 0
    length: int = 0


File = tuple[str, int, int]  # its name, its number, its time


class OpenBatches:
    """The open batches of a store and what is in them, read again whenever the journal has changed."""

    def __init__(self, answers: AnswerFile) -> None:
        self.journal = Journal(answers.path)
        self._answers = answers
        self._seen: list[File] | None = None
        self._batches: dict[str, Batch] = {}  # by token
        self._contents: dict[File, Content] = {}  # by the file of the requests
        self._by_token: dict[str, Content] = {}
        self._keys: set[int] = set()

    def __contains__(self, key: str) -> bool:
        return prefix(key) in self.keys()

    def keys(self) -> set[int]:
        """The prefixes of all keys that are in a batch now; the set stays as it is."""
        self.refresh()
        return self._keys

    def batches(self) -> list[Batch]:
        """All open batches, the oldest first."""
        self.refresh()
        return list(self._batches.values())

    def content(self, batch: Batch) -> Content:
        """What is in a batch; nothing where it has been closed."""
        self.refresh()
        return self._by_token.get(batch.token, Content())

    def reserved(self, section: str, most: Callable[[int, int], float]) -> Reserved:
        """The pending requests of a section; ``most`` is what so many calls may cost, given the length of all prompts.

        What a batch may cost is not in its entry, because each reader counts at the price that it counts answers at.
        """
        self.refresh()
        of_section = [token for token, batch in self._batches.items() if batch.section == section]
        pending = [self._by_token.get(token, Content()) for token in of_section]
        calls = sum(content.pending for content in pending)
        return Reserved(calls, most(calls, sum(content.length for content in pending)) if calls else 0.0)

    def refresh(self) -> None:
        """Read what has changed."""
        files = self._files()
        if files == self._seen:
            return
        self._batches = {batch.token: batch for batch in self.journal.batches()}
        self.journal.check(self._batches.values())
        holders = {self.journal.requests_path(batch).name: batch for batch in self._batches.values()}
        found = [file for file in files if file[0] in holders]
        self._contents = {file: self._contents.get(file) or self._content(holders[file[0]]) for file in found}
        self._by_token = {holders[file[0]].token: content for file, content in self._contents.items()}
        self._keys = {key for content in self._contents.values() for key in content.prefixes}
        self._seen = files

    def _files(self) -> list[File]:
        if self._answers.reads_afresh:
            self.journal.ask_server()
        found: list[File] = []
        with suppress(FileNotFoundError), os.scandir(self.journal.folder) as files:  # no batch was ever made
            for each in files:
                with suppress(FileNotFoundError):  # it is being closed
                    found.append((each.name, each.inode(), each.stat().st_mtime_ns))
        return sorted(file for file in found if not file[0].endswith(".tmp"))

    def _content(self, batch: Batch) -> Content:
        found: set[int] = set()
        pending = length = 0
        for item in self.journal.items(batch):
            renamed = self._answers.renamed_key(item.request)  # where its endpoint has another name by now
            keys = [key for key in (item.key, renamed) if key]
            found.update(map(prefix, keys))
            if not any(key in self._answers for key in keys):
                pending += 1
                length += prompt_bytes(item.request)
        return Content(frozenset(found), pending, length)


def in_open_batches(requests: Callable[[], Iterable[dict[str, Any]]], answers: AnswerFile) -> Counter[str]:
    """How many of the missing answers are in which open batch."""
    open_ = OpenBatches(answers)
    holders = {key: batch.name for batch in open_.batches() for key in open_.content(batch).prefixes}
    keys = {key for request in requests() if (key := request_key(request)) not in answers} if holders else set()
    return Counter(holders[prefix(key)] for key in keys if prefix(key) in holders)
