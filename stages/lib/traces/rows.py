"""The rows that ``traces`` leaves out. Those that it keeps are distilled rows.

{"id": "openr1-4", "sample": 1, "row": 4, "place": "open-r1/OpenR1-Math-220k[4]", "reason": "cut_off", …}
"""

from stages.lib.rows import Row
from stages.lib.rows.question import BenchmarkHit


class LeftOutTrace(Row):
    """An answer that was left out, or a row of the table without one.

    ``row`` is its number in the table, from 0, ``place`` its file and line. Texts are empty where the row has none.
    ``same_as`` is the id of the kept or held-out question that it repeats.
    """

    sample: int
    row: int
    place: str
    reason: str
    question: str
    reasoning: str
    response: str
    same_as: str | None
    benchmark_hits: list[BenchmarkHit]

    @property
    def key(self) -> str:
        """The question's id and the sample's number."""
        return f"{self.id}#{self.sample}"
