"""The probabilities of rows that a teacher has read, so that none is computed or paid for twice.

    data/store/scores.sqlite    next to the store of received answers, which 'make clean' keeps as well

A killed stage resumes, and arms with the same rows share them. The key has all that shapes the values: the teacher,
how it is asked, the row's tokens and the places.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.logprobs import Scored
from stages.lib.logprobs.scores import hash_of

WAIT_S = 60.0  # for another process that writes


class ScoreCache:
    """The rows of one teacher; ``shaping`` is what makes its values differ from those of another."""

    def __init__(self, database: sqlite3.Connection, shaping: dict[str, Any]) -> None:
        self._database = database
        self._teacher = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
        with database:
            database.execute(
                "create table if not exists scores (key text primary key, width integer, positions blob, ids blob, "
                "logprobs blob)"
            )

    def get(self, ids: list[int], positions: list[int]) -> Scored | None:
        """The values that are known; None where there are none."""
        query = "select width, positions, ids, logprobs from scores where key = ?"
        row = self._database.execute(query, [self._key(ids, positions)]).fetchone()
        if row is None:
            return None
        width, places, found, logprobs = row
        return Scored(
            np.frombuffer(places, "<i4"),
            np.frombuffer(found, "<i4").reshape(-1, width),
            np.frombuffer(logprobs, "<f4").reshape(-1, width),
        )

    def has(self, ids: list[int], positions: list[int]) -> bool:
        """Whether the values are known."""
        query = "select 1 from scores where key = ?"
        return self._database.execute(query, [self._key(ids, positions)]).fetchone() is not None

    def put(self, ids: list[int], positions: list[int], scored: Scored) -> None:
        """Keep the values of a row; they are on the disk when this returns."""
        blobs = [each.tobytes() for each in (scored.positions, scored.ids, scored.logprobs)]
        with self._database:
            self._database.execute(
                "insert or ignore into scores values (?, ?, ?, ?, ?)",
                [self._key(ids, positions), scored.ids.shape[1], *blobs],
            )

    def _key(self, ids: list[int], positions: list[int]) -> str:
        return f"{self._teacher}:{hash_of(ids)}:{hash_of(positions)}"


@contextmanager
def open_cache(path: Path, shaping: dict[str, Any]) -> Iterator[ScoreCache]:
    """The cache in a file, which other processes may use at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=WAIT_S)) as database:
        yield ScoreCache(database, shaping)
