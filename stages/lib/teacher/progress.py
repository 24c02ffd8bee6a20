"""Show the progress of a run: a bar on a terminal, otherwise a plain line every 10 seconds.

distill: 300 of 1000, 120 of them from the store, 2 failed, 30 in flight, 210k tokens, 3.40 CNY of about 13.22 CNY,
1.8/s, 6 min left

The time left is shown from the second batch on, when there are more answers than calls in flight. With a model that
thinks for a minute, an estimate from the first of thirty answers would be thirty times too long.
"""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.lib.teacher.pricing import money

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("distillery.asking")

LINE_EVERY_S = 10.0  # between two lines, where stderr is no terminal
BAR_EVERY_S = 0.5  # between two updates of the figures after the bar
WITHOUT_TIME_LEFT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
UPDATE_EVERY_S = 0.1  # between two calls of ``update``


@dataclass
class RunCounts:
    """The counts of a run: the ``total`` of answers, and those ``from_store``, ``bought`` and ``failed``."""

    total: int = 0
    from_store: int = 0
    bought: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float = 0.0

    @property
    def done(self) -> int:
        """How many answers are not pending any more."""
        return self.from_store + self.bought + self.failed

    def facts(self, full_cost: float, currency: str) -> dict[str, Any]:
        """What this run bought, and what the store saved; ``full_cost`` is the cost of all the answers."""
        return {
            "bought": self.bought,
            "from_store": self.from_store,
            "paid_now": round(self.cost, 6),
            "saved_by_store": round(max(0.0, full_cost - self.cost), 6),
            "currency": currency or None,
        }


class Progress:
    """Shows ``counts``; ``in_flight`` returns a text on the open calls (``30 in flight, 2 waiting up to 60 s``)."""

    def __init__(
        self, stage: str, counts: RunCounts, currency: str | None, in_flight: Callable[[], str], concurrency: int
    ) -> None:
        self._stage = stage
        self._counts = counts
        self._currency = currency
        self._in_flight = in_flight
        self._at_start = counts.done
        self._first_batch = concurrency  # no rate can be estimated until there are more answers than this
        self._started = self._shown = time.monotonic()
        self._bar = self._new_bar() if counts.done < counts.total and sys.stderr.isatty() else None

    def update(self) -> None:
        """Show the figures, if enough time has passed."""
        now = time.monotonic()
        if now - self._shown < (LINE_EVERY_S if self._bar is None else BAR_EVERY_S):
            return
        self._shown = now
        if self._bar is not None:
            self._draw(self._bar)
        else:
            log.info("%s: %d of %d, %s, %s", self._stage, self._counts.done, self._counts.total, *self._figures())

    def close(self) -> None:
        """Draw the last state and release the terminal."""
        if self._bar is not None:
            self._draw(self._bar)
            self._bar.close()

    def _new_bar(self) -> "tqdm[Any]":
        from tqdm import tqdm

        return tqdm(
            total=self._counts.total,
            initial=self._counts.done,
            desc=self._stage,
            unit="answer",
            mininterval=BAR_EVERY_S,
            disable=False,  # whatever TQDM_DISABLE says, which libraries set for their own bars
        )

    def _draw(self, bar: "tqdm[Any]") -> None:
        bar.bar_format = None if self._has_rate() else WITHOUT_TIME_LEFT
        bar.set_postfix_str(self._figures()[0], refresh=False)
        bar.update(self._counts.done - bar.n)

    def _figures(self) -> tuple[str, str]:
        """Two texts: the figures that a bar does not show by itself, and those that it does (rate, time left)."""
        counts = self._counts
        parts = [f"{counts.from_store} of them from the store"] if counts.from_store else []
        parts += [f"{counts.failed} failed", self._in_flight(), f"{counts.tokens / 1000:.0f}k tokens"]
        if self._currency:
            parts.append(f"{money(counts.cost, self._currency)}{self._projected(self._currency)}")
        rate = (counts.done - self._at_start) / (time.monotonic() - self._started)
        left = f"{duration((counts.total - counts.done) / rate)} left" if self._has_rate() else "no forecast yet"
        return ", ".join(parts), f"{rate:.1f}/s, {left}"

    def _has_rate(self) -> bool:
        return self._counts.done - self._at_start > self._first_batch

    def _projected(self, currency: str) -> str:
        counts = self._counts
        missing = counts.total - counts.done
        if not counts.bought:
            return ""
        return f" of about {money(counts.cost * (1 + missing / counts.bought), currency)}"


def duration(seconds: float) -> str:
    """``95 s``, ``7 min`` or ``2.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
