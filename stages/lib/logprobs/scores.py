"""The teacher's probabilities of an arm's rows, in a Parquet file, and their use in a training.

One row for each row that is trained, in that order:

    row             its number, from 0
    tokens_hash     a hash of its tokens (``hash_of``), by which the trainer finds it, wherever it puts the row
    reason          why it has no probabilities; null where it has some
    positions       places in the row's tokens
    top_ids         at each place, the k likeliest tokens, given all tokens before; -1 where there are fewer
    top_logprobs    the natural logarithms of their probabilities; -inf beside -1

The file's metadata says who scored them (``origin_of``). ``check_origin`` compares that with params and the student's
vocabulary, so that no training takes the probabilities of another teacher.

``Targets`` reads an uncompressed copy through memory maps, which all processes of a training share.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.logprobs import Scored
from stages.lib.logprobs.index import HashIndex, place_of
from stages.lib.params import FromTeacher, Score
from stages.lib.rows import DataError, writing

ROWS_A_GROUP = 64
ORIGIN = b"scored_by"


@dataclass(frozen=True)
class ScoredRow:
    """The tokens of a row, and its probabilities or the reason why it has none."""

    ids: list[int]
    scored: Scored | str


def hash_of(ids: Iterable[int]) -> str:
    """A hash of a row's tokens."""
    return hashlib.sha256(np.fromiter(ids, "<i4").tobytes()).hexdigest()


def schema(width: int) -> pa.Schema:
    """The columns, with ``width`` tokens at each place."""
    return pa.schema(
        [
            ("row", pa.int32()),
            ("tokens_hash", pa.string()),
            ("reason", pa.string()),
            ("positions", pa.list_(pa.int32())),
            ("top_ids", pa.list_(pa.list_(pa.int32(), width))),
            ("top_logprobs", pa.list_(pa.list_(pa.float32(), width))),
        ]
    )


def origin_of(score: Score | None, vocabulary: str) -> dict[str, Any]:
    """Who gives the probabilities, and the hash of the vocabulary that their tokens have; no server's address."""
    if isinstance(score, FromTeacher):
        named = {"teacher": score.teacher.name, "revision": score.teacher.revision, "top_k": score.top_k}
        return named | {"served": score.served.model if score.served else None, "vocabulary": vocabulary}
    return {"teacher": score.kind if score else None, "vocabulary": vocabulary}


def check_origin(path: Path, arm: str, score: Score | None, vocabulary: str) -> None:
    """DataError unless the file was scored by the teacher of params, in the student's vocabulary."""
    try:
        text = (pq.read_schema(path).metadata or {}).get(ORIGIN)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise _broken(path, error) from error
    if text is None:
        return  # no rows, or of an older version
    found, wanted = json.loads(text), origin_of(score, vocabulary)
    if differing := [name for name in found | wanted if found.get(name) != wanted.get(name)]:
        name = differing[0]
        raise DataError(
            f"{path}: scored with {name} {found.get(name)!s:.60}, and params.yaml has {wanted.get(name)!s:.60}. Run "
            f"'dvc repro score@{arm}'."
        )


def write_scores(path: Path, rows: Iterable[ScoredRow], width: int, origin: dict[str, Any] | None) -> None:
    """Write the file, completely or not at all. ``origin`` None: a file without rows, which nobody scored."""
    columns = schema(width)
    if origin:
        columns = columns.with_metadata({ORIGIN: json.dumps(origin)})
    with writing(path) as sink, pq.ParquetWriter(sink, columns, compression="zstd") as writer:
        waiting: list[dict[str, Any]] = []
        for number, row in enumerate(rows):
            waiting.append(_fields(number, row))
            if len(waiting) == ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, columns))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, columns))


def _fields(number: int, row: ScoredRow) -> dict[str, Any]:
    found = {"row": number, "tokens_hash": hash_of(row.ids), "reason": None}
    if isinstance(row.scored, str):
        return found | {"reason": row.scored, "positions": [], "top_ids": [], "top_logprobs": []}
    scored = row.scored
    return found | {
        "positions": scored.positions.tolist(),
        "top_ids": scored.ids.tolist(),
        "top_logprobs": scored.logprobs.tolist(),
    }


def uncompressed(scores: Path, copy: Path) -> None:
    """Write the copy that ``Targets`` reads; DataError where the file is missing or broken."""
    try:
        with pq.ParquetFile(scores) as file, writing(copy) as sink, pa.ipc.new_file(sink, file.schema_arrow) as writer:
            for batch in file.iter_batches(ROWS_A_GROUP):
                writer.write_batch(batch)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise _broken(scores, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a file of probabilities ({error!s:.80}). Run 'dvc repro score'.")


class Targets:
    """The probabilities by the tokens of a row; the values stay on the disk. ``width``: how many at each place."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        self.width = self._file.schema.field("top_ids").type.value_type.list_size
        self._ends = np.cumsum([len(batch) for batch in self._batches()])
        self._index = HashIndex(each for batch in self._batches() for each in batch.column("tokens_hash").to_pylist())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        return map(self._file.get_batch, range(self._file.num_record_batches))

    @property
    def tokens(self) -> int:
        """How many places of all rows have probabilities."""
        return sum(len(batch.column("positions").flatten()) for batch in self._batches())

    def of(self, ids: Iterable[int]) -> Scored:
        """The probabilities of a row; no places where it has none."""
        row = self._index.row(hash_of(ids))
        if row is None:
            empty = np.empty((0, self.width))
            return Scored(np.empty(0, np.int32), empty.astype(np.int32), empty.astype(np.float32))
        number, place = place_of(row, self._ends)
        batch = self._file.get_batch(number)
        names = schema(self.width).names[3:]
        positions, top_ids, top_logprobs = (batch.column(name)[place].values for name in names)
        flat = [each.flatten().to_numpy().reshape(-1, self.width) for each in (top_ids, top_logprobs)]
        return Scored(positions.to_numpy(), *flat)
