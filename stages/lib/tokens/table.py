"""The tokens of rows in an Arrow file, which ``datasets`` opens without reading it: memory does not grow with the rows.

    input_ids    the tokens of a row
    labels       the same where they have a loss, else -100

with writing_tokens(folder / TOKENS) as table:
    table.add(tokens)
datasets.Dataset.from_file(str(folder / TOKENS))       any row at once, through a memory map
for batch in read_tokens(folder / TOKENS): …           all rows in order, a record batch at a time
tokenized(job, tokenizer)                              the rows of a job that fit, with their tokens in its folder
"""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.lib.files import named_errors
from stages.lib.tokens import Tokens
from stages.lib.tokens.length import FittingRows, fitting_rows, measured
from stages.lib.training import Job

TOKENS = "tokens.arrow"
ROWS_A_BATCH = 1000
SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


class TokensTable:
    """The file while it is written."""

    def __init__(self, writer: pa.RecordBatchStreamWriter) -> None:
        self._writer = writer
        self._begin()

    def _begin(self) -> None:
        self._ends, self._ids, self._labels = array("i", [0]), array("i"), array("i")

    def add(self, row: Tokens) -> None:
        """Add a row."""
        self._ids.extend(row.ids)
        self._labels.extend(row.labels)
        self._ends.append(len(self._ids))
        if len(self._ends) > ROWS_A_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if len(self._ends) > 1:
            ends = np.frombuffer(self._ends, np.int32)
            columns = [
                pa.ListArray.from_arrays(ends, np.frombuffer(each, np.int32)) for each in (self._ids, self._labels)
            ]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._begin()


@contextmanager
def writing_tokens(path: Path) -> Iterator[TokensTable]:
    """A file of tokens in a folder that is removed with it."""
    with named_errors(path), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        table = TokensTable(writer)
        yield table
        table.flush()


def tokenized(job: Job, tokenizer: Any) -> FittingRows:
    """The rows of a job that fit into its ``cutoff_len``; their tokens are in ``job.rows``."""
    with writing_tokens(job.rows / TOKENS) as table:
        return fitting_rows(job, lambda rows: measured(job, rows, tokenizer), lambda row: table.add(row.read))


def read_tokens(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow file. Through a memory map, each page that was read would count as this process's memory."""
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as reader:
        yield from reader
