"""The progress of a benchmark: lm-eval's own bar on a terminal, otherwise a log line at most every 30 s.

evaluate: filtered: gsm8k: 400 of 1319 answers, 2.1/s, 7 min left

The time left is estimated from the second batch on: the first one includes loading and is slower than the rest.
"""

import logging
import sys
import time

log = logging.getLogger("distillery.evaluate")

LINE_EVERY_S = 30.0


class Progress:
    """Counts the answers to one kind of request; ``what`` names arm and benchmark, ``batch`` is the batch size.

    ``together``: the answers of a batch arrive together, so lines are logged at its end. A server's arrive one by one.
    """

    def __init__(self, batch: int, *, together: bool, what: str = "", every_s: float = LINE_EVERY_S) -> None:
        self.what = what
        self._batch, self._together = batch, together
        self._every_s = every_s
        self._wanted = self._done = 0
        self._shown = time.monotonic()
        self._batch_ends: list[float] = []
        self.in_lines = not sys.stderr.isatty()

    def begin(self, wanted: int) -> None:
        """Start with the number of requests to send; cached answers do not count."""
        self._wanted, self._done = wanted, 0
        self._shown, self._batch_ends = time.monotonic(), []
        log.info("evaluate: %s: %d answers to compute", self.what, wanted)

    def count(self) -> None:
        """Count one answer, and log a line if one is due."""
        self._done += 1
        ends = self._done % self._batch == 0
        if ends:
            self._batch_ends.append(time.monotonic())
        due = time.monotonic() - self._shown >= self._every_s
        if self.in_lines and due and (ends or not self._together):
            self._shown = time.monotonic()
            log.info("evaluate: %s: %d of %d answers, %s", self.what, self._done, self._wanted, self._estimate())

    def _estimate(self) -> str:
        """The rate from the end of the first batch to that of the last complete one."""
        if len(self._batch_ends) < 2:
            return "no estimate yet"
        answers = (len(self._batch_ends) - 1) * self._batch
        rate = answers / max(self._batch_ends[-1] - self._batch_ends[0], 1e-9)
        return f"{rate:.1f}/s, {duration((self._wanted - self._done) / rate)} left"


def duration(seconds: float) -> str:
    """In seconds, minutes or hours, by size."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
