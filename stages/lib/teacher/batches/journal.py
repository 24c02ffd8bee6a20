"""Keep on the disk which requests are in which batch, from before it is submitted until its answers are in the store.

A folder next to the store, with two files for each open batch:

    answers.batches/20261128T101500-9f86d081.jsonl    its requests: {"key": "9f…", "attempt": 1, "request": {…}}
    answers.batches/20261128T101500-9f86d081.json     how far it is: {"file_id": "file-…", "batch_id": "batch_…", …}

A step is written down as soon as it is done:

    neither id         the file was perhaps uploaded: upload it again, which costs nothing
    file_id            the batch was perhaps submitted: look for one with this file before you submit it
    batch_id           it is at the server

Both files are removed when every answer is in the store. Where two processes share a store, the one that has claimed a
batch in the store (``claim_key``) works on it; a claim ends with its process.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.store.answer_file import AnswerFile
from stages.lib.store.answer_store import StoreError, request_key
from stages.lib.teacher.failures import TeacherError

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


class Journal:
    """The open batches of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store.with_suffix(".batches")

    def batches(self) -> list[Batch]:
        """All open batches, the oldest first; StoreError where a file is no entry."""
        return [batch for path in sorted(self.folder.glob("*.json")) if (batch := self._read(path))]

    def items(self, batch: Batch) -> Iterator[Item]:
        """The requests of a batch; none where another process has closed it."""
        try:
            with self.requests_path(batch).open("rb") as lines:
                for line in lines:
                    yield Item(**orjson.loads(line))
        except FileNotFoundError:
            return

    def prefixes(self, batch: Batch, answers: AnswerFile) -> set[int]:
        """The prefixes of its keys; where their endpoint has another name by now, also of those under the name."""
        found = ((item.key, answers.renamed_key(item.request)) for item in self.items(batch))
        return {prefix(key) for keys in found for key in keys if key}

    def add(self, batch: Batch, items: Iterable[Item]) -> None:
        """Write a batch down before anything is sent: first its requests, then its entry."""
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.glob("*.jsonl"):  # of a process that was killed between the two
            if not path.with_suffix(".json").exists() and path.stat().st_mtime < time.time() - HOUR_S:
                path.unlink(missing_ok=True)
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

    def _read(self, path: Path) -> Batch | None:
        try:
            return Batch.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StoreError(
                f"{path}: not an entry of a batch. Move it and the file of its requests to another folder; answers of "
                "that batch are then bought again."
            ) from error

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


class OpenKeys:
    """The keys in open batches, read again whenever the journal has changed."""

    def __init__(self, answers: AnswerFile) -> None:
        self._answers = answers
        self._journal = Journal(answers.path)
        self._stamp: list[tuple[str, int]] = []
        self._prefixes: set[int] = set()

    def __contains__(self, key: str) -> bool:
        try:
            with os.scandir(self._journal.folder) as files:
                stamp = sorted((each.name, each.stat().st_mtime_ns) for each in files if not each.name.endswith(".tmp"))
        except FileNotFoundError:  # no batch was ever made, or one is being closed
            stamp = []
        if stamp != self._stamp:
            self._stamp = stamp
            batches = self._journal.batches()
            self._prefixes = {key for batch in batches for key in self._journal.prefixes(batch, self._answers)}
        return prefix(key) in self._prefixes


def in_open_batches(requests: Callable[[], Iterable[dict[str, Any]]], answers: AnswerFile) -> Counter[str]:
    """How many of the missing answers are in which open batch."""
    journal = Journal(answers.path)
    holders = {key: batch.name for batch in journal.batches() for key in journal.prefixes(batch, answers)}
    keys = {key for request in requests() if (key := request_key(request)) not in answers} if holders else set()
    return Counter(holders[prefix(key)] for key in keys if prefix(key) in holders)


def refuse_what_is_in_batches(
    stage: str, requests: Callable[[], Iterable[dict[str, Any]]], answers: AnswerFile
) -> None:
    """TeacherError where a missing answer is in an open batch: it would be bought twice if it were asked for singly."""
    found = in_open_batches(requests, answers)
    if found:
        raise TeacherError(
            f"{stage}: {found.total()} of the missing answers are in {', '.join(sorted(found))}, at the server. "
            f"'make batches' receives what has ended, 'make batches CANCEL={min(found)}' ends a batch. Then run the "
            "stage again, or write the entry into run.batch again."
        )
