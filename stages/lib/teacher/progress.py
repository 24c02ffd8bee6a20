"""How far the asking is: a bar on a terminal, elsewhere a plain line now and then.

distill: 300 of 1000, 120 of them from the store, 2 failed, 30 in flight, 210k tokens, 3.40 CNY of about 13.22 CNY,
1.8/s, 6 min left

How much time is left is said from the second batch on, when more answers have come than were asked for at once: of a
model that thinks for a minute, the first of thirty answers would forecast thirty times too long.
"""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from stages.lib.teacher.pricing import money

log = logging.getLogger("distillery.asking")

LINE_EVERY_S = 10.0  # between two lines, where stderr is no terminal
BAR_EVERY_S = 0.5  # between two looks at the figures behind the bar
WITHOUT_TIME_LEFT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
LOOK_EVERY_S = 0.1  # between two calls of ``update``


@dataclass
class Standing:
    """The figures of a run: answers ``wanted``, those that came ``from_store``, were ``bought``, or ``failed``."""

    wanted: int = 0
    from_store: int = 0
    bought: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float = 0.0

    @property
    def done(self) -> int:
        """How many need nothing more."""
        return self.from_store + self.bought + self.failed

    def facts(self, worth: float, currency: str) -> dict[str, Any]:
        """What was bought now and what the store saved of all that the answers are ``worth``."""
        return {
            "bought": self.bought,
            "from_store": self.from_store,
            "paid_now": round(self.cost, 6),
            "saved_by_store": round(max(0.0, worth - self.cost), 6),
            "currency": currency or None,
        }


class Progress:
    """Shows a ``standing``; ``in_flight`` says what is under way (``30 in flight, 2 waiting up to 60 s``)."""

    def __init__(
        self, stage: str, standing: Standing, currency: str | None, in_flight: Callable[[], str], concurrency: int
    ) -> None:
        self._stage = stage
        self._standing = standing
        self._currency = currency
        self._in_flight = in_flight
        self._at_start = standing.done
        self._first_batch = concurrency  # until more have come than were asked for at once, no rate can be told
        self._started = self._shown = time.monotonic()
        idle = standing.done >= standing.wanted
        self._bar = tqdm(
            total=standing.wanted,
            initial=standing.done,
            desc=stage,
            unit="answer",
            mininterval=BAR_EVERY_S,
            disable=idle or not sys.stderr.isatty(),
        )

    def update(self) -> None:
        """Show the figures, if it is time to."""
        now = time.monotonic()
        if now - self._shown < (LINE_EVERY_S if self._bar.disable else BAR_EVERY_S):
            return
        self._shown = now
        if self._bar.disable:
            log.info("%s: %d of %d, %s, %s", self._stage, self._standing.done, self._standing.wanted, *self._figures())
        else:
            self._draw()

    def close(self) -> None:
        """Draw the last state and leave the terminal in order."""
        if not self._bar.disable:
            self._draw()
        self._bar.close()

    def _draw(self) -> None:
        self._bar.bar_format = None if self._has_rate() else WITHOUT_TIME_LEFT
        self._bar.set_postfix_str(self._figures()[0], refresh=False)
        self._bar.update(self._standing.done - self._bar.n)

    def _figures(self) -> tuple[str, str]:
        """What a bar does not show by itself, and what it does: rate and time left."""
        standing = self._standing
        parts = [f"{standing.from_store} of them from the store"] if standing.from_store else []
        parts += [f"{standing.failed} failed", self._in_flight(), f"{standing.tokens / 1000:.0f}k tokens"]
        if self._currency:
            parts.append(f"{money(standing.cost, self._currency)}{self._projected(self._currency)}")
        rate = (standing.done - self._at_start) / (time.monotonic() - self._started)
        left = f"{_duration((standing.wanted - standing.done) / rate)} left" if self._has_rate() else "no forecast yet"
        return ", ".join(parts), f"{rate:.1f}/s, {left}"

    def _has_rate(self) -> bool:
        return self._standing.done - self._at_start > self._first_batch

    def _projected(self, currency: str) -> str:
        standing = self._standing
        missing = standing.wanted - standing.done
        if not standing.bought:
            return ""
        return f" of about {money(standing.cost * (1 + missing / standing.bought), currency)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
