"""Show how far the batches are: a bar on a terminal, otherwise a line when something has changed.

distill: 300 of 1000, 2 batches at the server with 120 of 700 done, next look in 60 s, 3.40 CNY
"""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence

from openai.types import Batch as RemoteBatch
from tqdm import tqdm

from stages.lib.teacher.pricing import money
from stages.lib.teacher.progress import RunCounts, duration

log = logging.getLogger("distillery.asking")

TICK_S = 1.0


class BatchProgress:
    """Shows ``counts``, and what the server says of the batches that it works on."""

    def __init__(self, stage: str, counts: RunCounts, currency: str | None) -> None:
        self._stage = stage
        self._counts = counts
        self._currency = currency
        self._there = ""
        self._done_there = 0
        self._next_look = 0.0
        self._said = ""
        self._bar = tqdm(
            total=counts.total, initial=counts.done, desc=stage, unit="answer", disable=not sys.stderr.isatty()
        )

    def waiting(self, remotes: Sequence[RemoteBatch], batches: int, wait_s: float) -> None:
        """The run waits for so many batches; ``remotes`` are those that were looked at."""
        counts = [remote.request_counts for remote in remotes if remote.request_counts]
        self._done_there = sum((each.completed or 0) + (each.failed or 0) for each in counts)
        total = sum(each.total or 0 for each in counts)
        done = f" with {self._done_there} of {total} done" if total else ""
        what = f"{batches} batch{'es' if batches != 1 else ''} at the server{done}"
        self._there = what if batches else "waiting for the answers of another run"
        self._next_look = time.monotonic() + wait_s
        text = f"{self._counts.done} of {self._counts.total}, {self._there}{self._cost()}"
        if self._bar.disable and text != self._said:
            log.info("%s: %s, next look in %s", self._stage, text, duration(wait_s))
        self._said = text

    async def tick(self) -> None:
        """Redraw the bar once a second: a person must see that something is waited for."""
        while not self._bar.disable:
            self._draw()
            await asyncio.sleep(TICK_S)

    def close(self) -> None:
        """Draw the last state and release the terminal."""
        self._there = ""
        self._done_there = 0
        if not self._bar.disable:
            self._draw()
        self._bar.close()

    def _draw(self) -> None:
        left_s = max(0.0, self._next_look - time.monotonic())
        there = f"{self._there}, next look in {duration(left_s)}" if self._there else ""
        self._bar.set_postfix_str(f"{there}{self._cost()}".removeprefix(", "), refresh=False)
        self._bar.update(self._counts.done + self._done_there - self._bar.n)

    def _cost(self) -> str:
        return f", {money(self._counts.cost, self._currency)}" if self._currency else ""
