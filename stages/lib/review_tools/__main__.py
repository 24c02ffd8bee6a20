"""Add a person's verdict on one answer to data/reviews.jsonl, bound to the text that the answer has now.

    python -m stages.lib.review_tools gsm8k-train-7#0 wrong --comment "off by one week"

In:   data/distilled.jsonl
Out:  data/reviews.jsonl, with one line more (stages/lib/reviews); an earlier verdict stays, and the later one counts
"""

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stages.lib.command import READ, WRITE, one_line_errors
from stages.lib.reviews import Review, read_reviews, text_sha256
from stages.lib.rows import DataError, read_rows
from stages.lib.rows.distilled import Distilled

REBUILD = "Run 'dvc repro distill' to rebuild it."


@click.command(help="Add VERDICT (right, wrong or unsure) on the answer KEY (the question's id, '#', the sample).")
@click.argument("key")
@click.argument("verdict", type=click.Choice(["right", "wrong", "unsure"]))
@click.option("--who", default=getpass.getuser, help="Whose verdict it is  [default: the user of this machine]")
@click.option("--comment", default="", help="Why.")
@click.option("--distilled", type=READ, default="data/distilled.jsonl", show_default=True, help="The answers.")
@click.option("--reviews", type=WRITE, default="data/reviews.jsonl", show_default=True, help="The verdicts.")
@one_line_errors
def main(key: str, verdict: Any, who: str, comment: str, distilled: Path, reviews: Path) -> None:
    row = answer(key, distilled)
    when = datetime.now(UTC).replace(microsecond=0)
    digest = text_sha256(row)
    review = Review(id=row.key, verdict=verdict, comment=comment, who=who, when=when, text_sha256=digest)
    if reviews.exists():
        for _ in read_reviews(reviews):  # a bad line is named before another one follows it
            pass
    append(reviews, review)
    click.echo(f"{reviews}: {row.key} is {verdict} ({who}). Run 'make repro' to apply it, and commit the file.")


def answer(key: str, path: Path) -> Distilled:
    """The answer that a key names, or the only answer to the question of that id; DataError where there is none."""
    found = [row for row in read_rows(path, Distilled, REBUILD) if key in (row.key, row.id)]
    exact = [row for row in found if row.key == key] or found
    if len(exact) != 1:
        known = f" Its answers are {', '.join(row.key for row in exact)}." if exact else ""
        raise DataError(
            f"{path}: '{key}' names {len(exact) or 'no'} answers.{known} Give an id, '#' and a sample's number."
        )
    return exact[0]


def append(path: Path, review: Review) -> None:
    """Append a line in one write, after the end of a last line that has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
        unfinished = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * unfinished + review.model_dump_json(exclude_none=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
