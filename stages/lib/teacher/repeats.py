"""When a server answers question after question in the same useless way, the run is to stop and say so.

What counts are different questions that met one kind of failure with no answer to any question between. How many are
enough depends on what the next one would cost:

    unread     a body that came and holds no answer: it may be paid for. A question counts that met it twice, so that a
               server that was restarted, and broke off all calls in flight at once, stops nothing
    refused    a 400 and its like: free, but as many may be in flight as ``run.concurrency`` allows
    passing    a 429, a 5xx, a time-out: it may pass, so the run bears more of it

A tenth of what is in the store already is borne in any case: what is missing then are perhaps the few questions that
the server refuses for good, and a run for these alone has to come to its end.
"""

import re
from typing import Literal

Group = Literal["unread", "refused", "passing"]

FEW = 5
FEWEST = 3
STORED_A_REPEAT = 10
VARYING = re.compile(
    r"[0-9a-f]{8,}|\d+", re.IGNORECASE
)  # ids and numbers: the same sentence otherwise is the same kind


class Repeats:
    """The questions that failed alike since the last answer."""

    def __init__(self, concurrency: int, stored: int) -> None:
        borne = 1 + stored // STORED_A_REPEAT
        self._limits: dict[Group, int] = {
            "unread": max(min(max(concurrency, FEWEST), FEW), borne),
            "refused": max(FEW, concurrency, borne),
            "passing": max(2 * max(FEW, concurrency), borne),
        }
        self._questions: dict[str, set[str]] = {}

    def answered(self) -> None:
        """An answer came: the server is well."""
        self._questions.clear()

    def failed(self, kind: str, key: str, group: Group) -> int:
        """Count a question; how many there are of the kind where that is enough to stop, else 0."""
        questions = self._questions.setdefault(kind, set())
        questions.add(key)
        return len(questions) if len(questions) >= self._limits[group] else 0


def kind_of(reason: str, words: str) -> str:
    """What makes two failures the same: the reason, and the server's sentence but for its numbers."""
    return f"{reason}: {VARYING.sub('#', words)}"
