"""What can be computed of each question by itself: the benchmarks that it shares wording with, and its MinHash.

    list(map_rows(Examining(indexes, params.near_duplicates), questions, params.run.engine))
    → [Examined([BenchmarkHit(benchmark="gsm8k", …)], array([…], dtype=uint32)), …]

That is half of collect's work, and any worker can do it; which of two questions stays is decided in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stages.lib.hygiene.contamination import BenchmarkIndex, benchmark_hits
from stages.lib.params import NearDuplicateParams
from stages.lib.rows.question import BenchmarkHit, Question
from stages.lib.wording.near_duplicates import Sketch, Sketches


@dataclass(frozen=True)
class Examined:
    """The benchmarks' questions that share n words with a question, and its sketch, if near-duplicates are searched."""

    hits: list[BenchmarkHit]
    sketch: Sketch | None


class Examining:
    """Examines one question; ``near`` None: without a sketch."""

    def __init__(self, indexes: Sequence[BenchmarkIndex], near: NearDuplicateParams | None) -> None:
        self._indexes = indexes
        self._sketches = Sketches(near) if near else None

    def __call__(self, question: Question) -> Examined:
        """All that the question alone tells."""
        text = question.user_text
        return Examined(benchmark_hits(text, self._indexes), self._sketches(text) if self._sketches else None)
