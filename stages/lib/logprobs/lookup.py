"""Look up the probabilities that came with an answer: data/logprobs.parquet stays on the disk (answers.py writes it).

with LogprobsOf(path) as known:
    known.of(answer_hash(question, reasoning, response))    # the tokens of an answer; None where it has none
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.logprobs.answers import SCHEMA, TokenLogprobs
from stages.lib.logprobs.index import HashIndex, place_of
from stages.lib.rows import DataError

BATCH = 1024  # hashes that are read at once


class LogprobsOf:
    """The probabilities of each answer, by its hash. The file is read as they are asked for, a row group at a time.

    DataError where the file is missing or broken. Answers in the file's own order are read once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._named_errors():
            self._file = pq.ParquetFile(path)
            groups = (self._file.metadata.row_group(each).num_rows for each in range(self._file.num_row_groups))
            self._ends = np.cumsum(np.fromiter(groups, np.int64))
            batches = self._file.iter_batches(BATCH, columns=["answer"])
            self._index = HashIndex(each for batch in batches for each in batch.column(0).to_pylist())
        self._read: tuple[int, pa.Table] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def of(self, answer: str) -> list[TokenLogprobs] | None:
        """The tokens of an answer; None where the file has none. Of several, the last one's."""
        row = self._index.row(answer)
        if row is None:
            return None
        found = self._row(row)
        tops = zip(found["top_tokens"], found["top_logprobs"], strict=True)
        pairs = [list(zip(tokens, logprobs, strict=True)) for tokens, logprobs in tops]
        own = zip(found["tokens"], found["logprobs"], pairs, strict=True)
        return [TokenLogprobs(*each) for each in own]

    def _row(self, row: int) -> dict[str, Any]:
        group, place = place_of(row, self._ends)
        if self._read is None or self._read[0] != group:
            with self._named_errors():
                self._read = group, self._file.read_row_group(group, SCHEMA.names[3:])
        found: dict[str, Any] = self._read[1].slice(place, 1).to_pylist()[0]
        return found

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, pa.ArrowException) as error:
            line = f"{self._path}: not a file of probabilities ({error!s:.80}). Run 'dvc repro distill'."
            raise DataError(line) from error
