"""People's verdicts on the teacher's answers: the rows of data/reviews.jsonl.

{"id": "gsm8k-train-7#0", "verdict": "wrong", "comment": "off by one week", "who": "li",
 "when": "2026-11-28T09:12:00+08:00", "text_sha256": "9f86d081…"}
"""

import codecs
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from stages.lib.rows import DataError, Row, parse_row
from stages.lib.rows.distilled import Distilled

CORRECT = "Correct that line, or remove it."


def _with_zone(moment: datetime) -> datetime:
    """A time without a zone is UTC: the machine's own zone would make the result depend on the machine."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


class Review(Row):
    """One person's verdict on one answer.

    ``id`` is the answer's key (the question's id, ``#``, the sample's number), or the question's id where that has one
    answer. ``text_sha256`` binds the verdict to the text that was read (``text_sha256()``); without it, the verdict
    applies to whatever answer has this key.
    """

    verdict: Literal["right", "wrong", "unsure"]
    when: Annotated[datetime, AfterValidator(_with_zone)]
    who: str | None = None
    comment: str | None = None
    text_sha256: str | None = None


def read_reviews(path: Path | None) -> Iterator[tuple[str, Review]]:
    """Each review with its place, FILE:LINE; none without a path. Empty lines and byte order marks are skipped.

    DataError, with file and line, on a line that is not a review.
    """
    if path is None:
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file. 'git checkout {path}' restores it; an empty file has no reviews.")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where, text = f"{path}:{number}", line.removeprefix(codecs.BOM_UTF8)
            if text.strip():
                yield where, parse_row(text, Review, where, CORRECT)


def text_sha256(row: Distilled) -> str:
    """The hash of what a person judges: all that was asked, the reasoning and the response, not the gold answer."""
    texts = (row.transcript, row.reasoning, row.response)
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in texts).encode()).hexdigest()
