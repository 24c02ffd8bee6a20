"""How far the asking of a benchmark is: lm-eval's own bar on a terminal, elsewhere a plain line now and then.

evaluate: filtered: gsm8k: 400 of 1319 answers, 2.1/s, 7 min left

How much time is left is said after the second batch: the first one loads and warms up, and is no measure of the rest.
"""

import logging
import sys
import time

log = logging.getLogger("distillery.evaluate")

LINE_EVERY_S = 30.0


class Progress:
    """Counts the answers of one kind of request; ``what`` names arm and benchmark, ``batch`` is the size of one.

    ``together``: a batch's answers come all at once, so a line is written at its end; from a server they come singly.
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
        """So many are asked now; those that were kept from before are not among them."""
        self._wanted, self._done = wanted, 0
        self._shown, self._batch_ends = time.monotonic(), []
        log.info("evaluate: %s: %d answers to ask for", self.what, wanted)

    def count(self) -> None:
        """One more is here."""
        self._done += 1
        ends = self._done % self._batch == 0
        if ends:
            self._batch_ends.append(time.monotonic())
        due = time.monotonic() - self._shown >= self._every_s
        if self.in_lines and due and (ends or not self._together):
            self._shown = time.monotonic()
            log.info("evaluate: %s: %d of %d answers, %s", self.what, self._done, self._wanted, self._forecast())

    def _forecast(self) -> str:
        """From the end of the first batch to that of the last whole one."""
        if len(self._batch_ends) < 2:
            return "no forecast yet"
        answers = (len(self._batch_ends) - 1) * self._batch
        rate = answers / max(self._batch_ends[-1] - self._batch_ends[0], 1e-9)
        return f"{rate:.1f}/s, {duration((self._wanted - self._done) / rate)} left"


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
