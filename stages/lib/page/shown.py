"""The rows of the data files that the page shows: all, or a random sample of what is more than a browser searches.

    lines = draw_lines([7_500_000, 2_500_000], most=100_000, seed=3)   # of two files
    kept = read_shown(Path("data/filtered.jsonl"), Filtered, advice, lines[0])
    kept.total, list(kept)                                             → 7_500_000, [Filtered(…), …]

One sample is drawn from the rows of all files together, so each row is as likely in it as any other, and its shares
(of rejected answers, of reasons) are those of the run. The same files and the same seed are the same sample.
"""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Generic, TypeVar

from stages.lib.files.shards import numbered_lines
from stages.lib.rows import Row, parse_row, read_rows
from stages.lib.rows.question import Question

R = TypeVar("R", bound=Row)


@dataclass
class Shown(Generic[R]):
    """The shown rows of a data file, which each iteration reads again: only these are held, by their keys.

    ``keys`` has the number of each one's line, from 0. ``total`` counts all rows, ``solved`` those of each pass rate.
    """

    path: Path
    model: type[R]
    advice: str
    keys: dict[str, int] = field(default_factory=dict)
    total: int = 0
    solved: Counter[int] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[R]:
        return self._at(self.keys.values())

    def drawn(self, seed: int, most: int) -> list[R]:
        """At most so many of the rows, in a random order that depends only on the seed and on the keys."""
        order = sorted(self.keys)
        random.Random(seed).shuffle(order)
        found = {row.key: row for row in self._at(sorted(self.keys[key] for key in order[:most]))}
        return [found[key] for key in order[:most]]

    def _at(self, lines: Iterable[int]) -> Iterator[R]:
        """The rows of these lines, in ascending order."""
        wanted = iter(lines)
        line = next(wanted, None)
        for number, (where, text) in enumerate(numbered_lines(self.path, self.advice)):
            if line is None:
                return
            if number == line:
                yield parse_row(text, self.model, where, self.advice)
                line = next(wanted, None)


def draw_lines(totals: Sequence[int], most: int, seed: int) -> list[Container[int]]:
    """The numbers of the shown lines of files with so many lines: all, or ``most`` of all lines, drawn at random."""
    if sum(totals) <= most:
        return [range(total) for total in totals]
    drawn = sorted(random.Random(seed).sample(range(sum(totals)), most))
    return [
        frozenset(line - first for line in drawn[bisect_left(drawn, first) : bisect_left(drawn, end)])
        for first, end in pairwise(accumulate(totals, initial=0))
    ]


def read_shown(path: Path, model: type[R], advice: str, lines: Container[int]) -> Shown[R]:
    """Read and count all rows of a data file, of which these lines are shown; DataError as of ``read_rows``."""
    shown = Shown(path, model, advice)
    for line, row in enumerate(read_rows(path, model, advice)):
        shown.total += 1
        if line in lines:
            shown.keys[row.key] = line
        if isinstance(row, Question) and row.pass_rate:
            shown.solved[row.pass_rate.solved] += 1
    return shown


def count_lines(path: Path, advice: str) -> int:
    """The number of lines of a data file, one file or a folder of parts."""
    return sum(1 for _ in numbered_lines(path, advice))
