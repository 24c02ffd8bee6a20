"""Stop a run when question after question fails in the same way.

A failure counts once per question, and the count starts again after each answer. The limit depends on what the next
failure would cost:

    unread       a received body that holds no answer: it may be paid for. A question counts after its second one, so
                 that a restart of the server, which breaks all calls in flight, does not stop the run
    refused      a 400 and similar: free, but up to ``run.concurrency`` of them may be in flight
    transient    a 429, a 5xx, a time-out: it may pass, so the limit is higher

The limit is never below a tenth of the stored answers: the missing questions may be the few that the server always
refuses, and a run for these alone must finish.
"""

import re
from typing import Literal

Group = Literal["unread", "refused", "transient"]

DEFAULT_LIMIT = 5
SMALLEST_LIMIT = 3
STORED_PER_FAILURE = 10
VARYING = re.compile(r"[0-9a-f]{8,}|\d+", re.IGNORECASE)  # ids and numbers: they do not tell two kinds apart


class Repeats:
    """The questions that failed in the same way since the last answer."""

    def __init__(self, concurrency: int, stored: int) -> None:
        tolerated = 1 + stored // STORED_PER_FAILURE
        self._limits: dict[Group, int] = {
            "unread": max(min(max(concurrency, SMALLEST_LIMIT), DEFAULT_LIMIT), tolerated),
            "refused": max(DEFAULT_LIMIT, concurrency, tolerated),
            "transient": max(2 * max(DEFAULT_LIMIT, concurrency), tolerated),
        }
        self._questions: dict[str, set[str]] = {}

    def answered(self) -> None:
        """Count an answer: the server works, so earlier failures no longer count."""
        self._questions.clear()

    def failed(self, kind: str, key: str, group: Group) -> int:
        """Count a question; return the number of its kind where that reaches the limit, else 0."""
        questions = self._questions.setdefault(kind, set())
        questions.add(key)
        return len(questions) if len(questions) >= self._limits[group] else 0


def kind_of(reason: str, words: str) -> str:
    """The kind of a failure: its reason and the server's sentence without numbers."""
    return f"{reason}: {VARYING.sub('#', words)}"
