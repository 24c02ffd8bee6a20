"""How far the asking of a benchmark is: lm-eval's own bar on a terminal, elsewhere a plain line now and then.

evaluate: filtered: gsm8k: 400 of 1319 answers, 2.1/s, 7 min left
"""

import logging
import sys
import time

log = logging.getLogger("distillery.evaluate")

LINE_EVERY_S = 30.0


class Progress:
    """Counts the answers of one kind of request; ``what`` names arm and benchmark."""

    def __init__(self, what: str = "", every_s: float = LINE_EVERY_S) -> None:
        self.what = what
        self._every_s = every_s
        self._wanted = self._done = 0
        self._started = self._shown = self._last = time.monotonic()
        self.in_lines = not sys.stderr.isatty()

    def begin(self, wanted: int) -> None:
        """So many are asked now; those that were kept from before are not among them."""
        self._wanted, self._done = wanted, 0
        self._started = self._shown = self._last = time.monotonic()
        log.info("evaluate: %s: %d answers to ask for", self.what, wanted)

    def count(self) -> None:
        """One more is here. What is said is how far it was before, for a batch's answers come all at once."""
        now = time.monotonic()
        if self.in_lines and self._done and now - self._shown >= self._every_s:
            self._shown = now
            rate = self._done / max(self._last - self._started, 1e-9)
            left = duration((self._wanted - self._done) / rate)
            log.info("evaluate: %s: %d of %d answers, %.1f/s, %s left", self.what, self._done, self._wanted, rate, left)
        self._done += 1
        self._last = now


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
