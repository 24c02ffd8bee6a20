"""The probabilities that came with the teacher's answers, in a Parquet file: one row for each answer that has them.

    id, sample      the question and the number of the answer
    answer          a hash of question, reasoning and response, by which convert's conversations find it
    tokens          the tokens of the answer in order, each as bytes; what the server counts as its thought first
    logprobs        the natural logarithm of the probability of each
    top_tokens      at each place, the likeliest tokens, as bytes
    top_logprobs    and their logarithms

with writing_logprobs(path) as file:
    file.add(row, answer.logprobs)      # False where the answer has none
with LogprobsOf(path) as known:         # lookup.py
    known.of(answer_hash(question, reasoning, response))
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.rows import writing
from stages.lib.rows.distilled import Distilled

NONE = -1000.0  # DeepSeek writes -9999 for a probability that it does not give
ROWS_A_GROUP = 64
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("answer", pa.string()),
        ("tokens", pa.list_(pa.binary())),
        ("logprobs", pa.list_(pa.float32())),
        ("top_tokens", pa.list_(pa.list_(pa.binary()))),
        ("top_logprobs", pa.list_(pa.list_(pa.float32()))),
    ]
)


@dataclass(frozen=True)
class TokenLogprobs:
    """One token that the teacher wrote, its logarithm, and the likeliest tokens in its place, all as bytes."""

    token: bytes
    logprob: float
    top: list[tuple[bytes, float]]


def token_logprobs(entries: list[Any]) -> list[TokenLogprobs]:
    """The entries of an answer's ``logprobs.content``; empty where one of them has another shape."""
    try:
        return [_entry(each) for each in entries]
    except (KeyError, TypeError, ValueError):
        return []


def _entry(entry: dict[str, Any]) -> TokenLogprobs:
    top = [(_bytes(each), float(each["logprob"])) for each in entry.get("top_logprobs") or ()]
    return TokenLogprobs(_bytes(entry), float(entry["logprob"]), [each for each in top if each[1] > NONE])


def _bytes(entry: dict[str, Any]) -> bytes:
    """A token's bytes; of a server that sends none, those of its text."""
    found = entry.get("bytes")
    return bytes(found) if found is not None else str(entry["token"]).encode()


def answer_hash(question: str, reasoning: str, response: str) -> str:
    """What identifies an answer in a conversation, which has no id."""
    return hashlib.sha256(json.dumps([question, reasoning, response]).encode()).hexdigest()


class LogprobsFile:
    """The file while it is written; ``answers`` and ``tokens`` count what it holds."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.answers = 0
        self.tokens = 0
        self._writer = writer
        self._rows: list[dict[str, Any]] = []

    def add(self, row: Distilled, entries: list[Any]) -> bool:
        """Add an answer with its tokens; False where they have no probabilities."""
        found = token_logprobs(entries)
        if not found:
            return False
        self.answers += 1
        self.tokens += len(found)
        self._rows.append(
            {
                "id": row.id,
                "sample": row.sample,
                "answer": answer_hash(row.question, row.reasoning, row.response),
                "tokens": [each.token for each in found],
                "logprobs": [each.logprob for each in found],
                "top_tokens": [[token for token, _ in each.top] for each in found],
                "top_logprobs": [[logprob for _, logprob in each.top] for each in found],
            }
        )
        if len(self._rows) == ROWS_A_GROUP:
            self.flush()
        return True

    def flush(self) -> None:
        """Write the rows that wait."""
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []


@contextmanager
def writing_logprobs(path: Path) -> Iterator[LogprobsFile]:
    """The file, which takes its name when it is complete."""
    with writing(path) as sink, pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        file = LogprobsFile(writer)
        yield file
        file.flush()
