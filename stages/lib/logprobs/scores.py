"""The teacher's probabilities of an arm's rows, in a Parquet file, and their use in a training.

One row for each row that is trained, in that order:

    row             its number, from 0
    tokens_hash     a hash of its tokens (``hash_of``), by which the trainer finds it, wherever it puts the row
    reason          why it has no probabilities; null where it has some
    positions       places in the row's tokens
    top_ids         at each place, the k likeliest tokens, given all tokens before; -1 where there are fewer
    top_logprobs    the natural logarithms of their probabilities; -inf beside -1

``Targets`` reads an uncompressed copy through memory maps, which all processes of a training share.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.logprobs import Scored
from stages.lib.rows import DataError, writing

ROWS_A_GROUP = 64


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


def write_scores(path: Path, rows: Iterable[ScoredRow], width: int) -> None:
    """Write the file, completely or not at all."""
    columns = schema(width)
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
        raise DataError(f"{scores}: not a file of probabilities ({error!s:.80}). Run 'dvc repro score'.") from error


class Targets:
    """The probabilities by the tokens of a row; the values stay on the disk. ``width``: how many at each place."""

    def __init__(self, path: Path) -> None:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        self.width = file.schema.field("top_ids").type.value_type.list_size
        self._batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        self._places = {
            key: (number, place)
            for number, batch in enumerate(self._batches)
            for place, key in enumerate(batch.column("tokens_hash").to_pylist())
        }

    @property
    def tokens(self) -> int:
        """How many places of all rows have probabilities."""
        return sum(len(batch.column("positions").flatten()) for batch in self._batches)

    def of(self, ids: Iterable[int]) -> Scored:
        """The probabilities of a row; no places where it has none."""
        where = self._places.get(hash_of(ids))
        if where is None:
            empty = np.empty((0, self.width))
            return Scored(np.empty(0, np.int32), empty.astype(np.int32), empty.astype(np.float32))
        batch, place = self._batches[where[0]], where[1]
        positions, top_ids, top_logprobs = (batch.column(name)[place].values for name in schema(self.width).names[3:])
        flat = [each.flatten().to_numpy().reshape(-1, self.width) for each in (top_ids, top_logprobs)]
        return Scored(positions.to_numpy(), *flat)
