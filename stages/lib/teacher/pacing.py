"""Limit the rate of calls to the teacher: calls in flight, calls per minute and tokens per minute.

    pace = Pace(run, stopping)
    async with pace.call(tokens=900) as call:      # waits until the call may begin
        body = await send(…)
        call.tokens = 1234                         # the tokens that it really took, for the token window

``run.concurrency`` is the most calls in flight. A 429 or a time-out halves the limit, once for all calls that began
before it. Each answer raises it a little, by one for a full round of answers (additive increase, multiplicative
decrease: Chiu and Jain, 1989). While a server cannot be reached, the calls in flight keep their slots and retry, and no
other call begins.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stages.lib.params import Run

MINUTE_S = 60.0
LATEST = 4096  # the latencies of so many answers are kept
FIRST_PROBE_S = 0.5  # the first wait before a retry of an unreachable server; each further wait is twice as long
LONGEST_PROBE_S = 10.0


class Stopped(Exception):
    """The run is ending: no new call begins."""


@dataclass(eq=False)
class Call:
    """One call in flight: its expected tokens (after the answer: its real ones), and when it began."""

    tokens: int
    began: float = 0.0


class Pace:
    """Lets calls begin. ``stopping``, once set, ends every wait with Stopped."""

    def __init__(self, run: Run, stopping: asyncio.Event) -> None:
        self.in_flight = 0
        self.outage_began: float | None = None
        self._cap = run.concurrency
        self._limit = float(run.concurrency)
        self._halved = 0.0
        self._slots = 0  # in use: by calls in flight, and by calls that only wait for a rate
        self._interval_s = MINUTE_S / run.requests_per_minute if run.requests_per_minute else 0.0
        self._next_call = 0.0
        self._tokens = TokenWindow(run.tokens_per_minute) if run.tokens_per_minute else None
        self._room = asyncio.Condition()
        self._stopping = stopping

    @asynccontextmanager
    async def call(self, tokens: int) -> AsyncIterator[Call]:
        """A slot among the calls in flight, available when every rate allows it."""
        await self._enter()
        call = Call(tokens)
        try:
            await self.wait_for_rates(call)
            self.in_flight += 1
            try:
                yield call
            finally:
                self.in_flight -= 1
        finally:
            self._slots -= 1
            async with self._room:
                self._room.notify(max(1, self.max_in_flight() - self._slots))

    async def wait_for_rates(self, call: Call) -> None:
        """Wait until the rates allow this call; repeat this for a call that did not reach the server."""
        if self._tokens:
            self._tokens.remove(call)
        await self._space_calls()
        if self._tokens:
            while wait_s := self._tokens.wait_s(call.tokens):
                await self.sleep(wait_s)
        call.began = time.monotonic()
        if self._tokens:
            self._tokens.add(call)

    async def sleep(self, seconds: float) -> None:
        """Sleep; raise Stopped as soon as the run is ending."""
        if self._stopping.is_set():
            raise Stopped
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    async def notify_all(self) -> None:
        """Wake the calls that wait for a slot, so that they see that the run is ending."""
        async with self._room:
            self._room.notify_all()

    def slow_down(self, call: Call) -> None:
        """After a 429 or a time-out: halve the limit of calls in flight."""
        if call.began >= self._halved:  # calls that began before the last halving give no new information
            self._limit = max(1.0, self._limit / 2)
            self._halved = time.monotonic()

    def speed_up(self) -> None:
        """After an answer: raise the limit of calls in flight a little, at most to ``run.concurrency``."""
        self._limit = min(self._cap, self._limit + 1 / self._limit)

    def mark_reached(self) -> None:
        """The server replied: an outage is over."""
        self.outage_began = None

    def mark_unreachable(self) -> float:
        """The server cannot be reached; return the seconds since the outage began."""
        if self.outage_began is None:
            self.outage_began = time.monotonic()
        return time.monotonic() - self.outage_began

    async def wait_for_retry(self, call: Call, outage_s: float, within_s: float) -> None:
        """Keep the slot and wait for the next try, at most ``within_s``; the wait grows with the outage."""
        await self.sleep(min(max(outage_s, FIRST_PROBE_S), LONGEST_PROBE_S, within_s))
        await self.wait_for_rates(call)

    def max_in_flight(self) -> int:
        """How many calls may be in flight now."""
        return int(self._limit) if self.outage_began is None else 1

    async def _space_calls(self) -> None:
        """Space calls evenly, so that no window of one minute has more calls than the rate."""
        if self._interval_s:
            now = time.monotonic()
            at = self._next_call = max(now, self._next_call)
            self._next_call += self._interval_s
            if at > now:
                await self.sleep(at - now)

    async def _enter(self) -> None:
        if self._slots >= self.max_in_flight() and not self._stopping.is_set():
            async with self._room:
                await self._room.wait_for(lambda: self._slots < self.max_in_flight() or self._stopping.is_set())
        if self._stopping.is_set():
            raise Stopped
        self._slots += 1


class TokenWindow:
    """The tokens of the last minute. A call that alone exceeds the limit begins when the window is empty."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: deque[Call] = deque()

    def wait_s(self, tokens: int) -> float:
        """Seconds until this many more tokens may fit; 0: now."""
        now = time.monotonic()
        while self._calls and self._calls[0].began <= now - MINUTE_S:
            self._calls.popleft()
        if not self._calls or sum(call.tokens for call in self._calls) + tokens <= self._limit:
            return 0.0
        return max(self._calls[0].began + MINUTE_S - now, 0.001)

    def add(self, call: Call) -> None:
        """Add a call; its ``tokens`` may change later."""
        self._calls.append(call)

    def remove(self, call: Call) -> None:
        """Remove a call that did not reach the server."""
        if call in self._calls:
            self._calls.remove(call)
