"""How fast the teacher is asked: how many calls at once, how many and how many tokens a minute.

    pace = Pace(run, stopping)
    async with pace.turn(tokens=900) as turn:      # waits for its turn
        body = await send(…)
        turn.tokens = 1234                         # what it came to, as far as the window of tokens is concerned

``run.concurrency`` is the cap. A 429 or a time-out halves the number in flight, once for all calls that were begun
before it; each answer lets it creep back by one for a full round of answers (additive increase, multiplicative
decrease: Chiu and Jain, 1989). While a server cannot be reached the calls in flight keep their places and look whether
it is there again, and no other call begins.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stages.lib.params import Run

MINUTE_S = 60.0
FIRST_LOOK_S = 0.5  # after so long a call looks whether the server is there again, then after twice as long
LAST_LOOK_S = 10.0


class Stopped(Exception):
    """The run is ending: nothing new is begun."""


@dataclass(eq=False)
class Turn:
    """One call under way: the tokens that it is expected to come to (then: came to), and when it began."""

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
        self._places = 0  # taken: by the calls in flight, and by those that only a rate still holds
        self._interval_s = MINUTE_S / run.requests_per_minute if run.requests_per_minute else 0.0
        self._next_call = 0.0
        self._tokens = TokenWindow(run.tokens_per_minute) if run.tokens_per_minute else None
        self._room = asyncio.Condition()
        self._stopping = stopping

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[Turn]:
        """A place among the calls in flight, given when every rate allows it."""
        await self._enter()
        turn = Turn(tokens)
        try:
            await self.pass_rates(turn)
            self.in_flight += 1
            try:
                yield turn
            finally:
                self.in_flight -= 1
        finally:
            self._places -= 1
            async with self._room:
                self._room.notify(max(1, self.at_once() - self._places))

    async def pass_rates(self, turn: Turn) -> None:
        """Wait until the rates allow this call; again for one that the server has not seen."""
        if self._tokens:
            self._tokens.forget(turn)
        await self._space()
        if self._tokens:
            while wait_s := self._tokens.wait_s(turn.tokens):
                await self.rest(wait_s)
        turn.began = time.monotonic()
        if self._tokens:
            self._tokens.add(turn)

    async def rest(self, seconds: float) -> None:
        """Sleep, but no longer than the run goes on."""
        if self._stopping.is_set():
            raise Stopped
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    async def wake_all(self) -> None:
        """Let those who wait for a place see that the run is ending."""
        async with self._room:
            self._room.notify_all()

    def slow_down(self, turn: Turn) -> None:
        """A 429 or a time-out: half as many at once from now on."""
        if turn.began >= self._halved:  # those begun before the last halving say nothing new
            self._limit = max(1.0, self._limit / 2)
            self._halved = time.monotonic()

    def creep_back(self) -> None:
        """An answer: a little more at once, never above the cap."""
        self._limit = min(self._cap, self._limit + 1 / self._limit)

    def reached(self) -> None:
        """The server said something, whatever it was."""
        self.outage_began = None

    def not_reached(self) -> float:
        """Nobody there; return for how many seconds it has been so."""
        if self.outage_began is None:
            self.outage_began = time.monotonic()
        return time.monotonic() - self.outage_began

    async def look_again(self, turn: Turn, lost_s: float, within_s: float) -> None:
        """Wait in one's place for the next look, at most ``within_s``: the longer nobody is there, the longer."""
        await self.rest(min(max(lost_s, FIRST_LOOK_S), LAST_LOOK_S, within_s))
        await self.pass_rates(turn)

    def at_once(self) -> int:
        """How many calls may be in flight now."""
        return int(self._limit) if self.outage_began is None else 1

    async def _space(self) -> None:
        """Calls at even distances: no window of a minute, wherever it begins, sees more than the rate."""
        if self._interval_s:
            now = time.monotonic()
            at = self._next_call = max(now, self._next_call)
            self._next_call += self._interval_s
            if at > now:
                await self.rest(at - now)

    async def _enter(self) -> None:
        if self._places >= self.at_once() and not self._stopping.is_set():
            async with self._room:
                await self._room.wait_for(lambda: self._places < self.at_once() or self._stopping.is_set())
        if self._stopping.is_set():
            raise Stopped
        self._places += 1


class TokenWindow:
    """The tokens of the last minute. A call that alone is above the limit goes when nothing else is there."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._turns: deque[Turn] = deque()

    def wait_s(self, tokens: int) -> float:
        """Seconds until so many more tokens may have room; 0: now."""
        now = time.monotonic()
        while self._turns and self._turns[0].began <= now - MINUTE_S:
            self._turns.popleft()
        if not self._turns or sum(turn.tokens for turn in self._turns) + tokens <= self._limit:
            return 0.0
        return max(self._turns[0].began + MINUTE_S - now, 0.001)

    def add(self, turn: Turn) -> None:
        """A call begins; its ``tokens`` may still be corrected."""
        self._turns.append(turn)

    def forget(self, turn: Turn) -> None:
        """The call has not begun after all."""
        if turn in self._turns:
            self._turns.remove(turn)
