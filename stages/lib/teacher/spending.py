"""What a run's answers cost, and whether the budget has room for one more.

The budget is for all answers of the stage, those in the store included, so that running again spends no second one.
Room is kept for every call in flight: with ``max_tokens`` for the longest answer that is possible, so that the budget
is never passed; without, at the price of the dearest answer so far, and until one has come calls go one at a time.
"""

import asyncio
import math
from typing import Any

from stages.lib.params import Price
from stages.lib.replies.reading import Answer, BodyError, read_body
from stages.lib.replies.usage import Tokens, tokens
from stages.lib.teacher.pricing import cost, money

TEMPLATE_TOKENS = 64  # what a chat template may put around a message; a text itself has no more tokens than bytes


def body_cost(body: bytes, price: Price) -> float:
    """What a stored answer cost; nothing where it says of no tokens."""
    try:
        return cost(read_body(body).usage, price)
    except BodyError:
        return 0.0


def prompt_bytes(request: dict[str, Any]) -> int:
    """How long the messages of a request are."""
    return sum(len(message["content"].encode()) for message in request["messages"])


def most_cost(price: Price, length: int, max_tokens: int, calls: int = 1) -> float:
    """The most that calls can cost whose prompts have a ``length`` of so many bytes together."""
    prompt = length + calls * TEMPLATE_TOKENS
    return (prompt * max(price.input, price.cached_input) + calls * max_tokens * price.output) / 1_000_000


class Spending:
    """The money of one run. Without a price nothing costs anything; without a budget there is always room."""

    def __init__(
        self, price: Price | None, budget: float | None, spent: float, dearest: float | None, max_tokens: int | None
    ) -> None:
        self.price = price
        self._budget = budget
        self._spent = spent
        self._dearest = dearest
        self._max_tokens = max_tokens
        self._most: dict[str, float] = {}  # by key, of the calls in flight
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many calls are to be paid for, or may be."""
        return len(self._most)

    def has_room(self, request: dict[str, Any]) -> bool:
        """Whether this call may begin too without any chance of passing the budget, as far as one can tell."""
        if self._budget is None:
            return True
        most = self._most_of(request)
        if most is None:
            return not self._most
        # an answer dearer than its call allowed shows that max_tokens is not heeded
        kept = sum(max(each, self._dearest or 0.0) for each in self._most.values())
        return self._spent + kept + most <= self._budget

    def begun(self, key: str, request: dict[str, Any]) -> None:
        """A call begins."""
        self._most[key] = self._most_of(request) or 0.0 if self._budget is not None else 0.0

    def ended(self, key: str, answer: Answer | None) -> None:
        """A call has ended, with a paid answer or with none."""
        del self._most[key]
        if answer:
            paid = self.cost(answer)
            self._spent += paid
            self._dearest = max(self._dearest or 0.0, paid)
        self.wake()

    def cost(self, answer: Answer) -> float:
        """What an answer cost."""
        return cost(answer.usage, self.price) if self.price else 0.0

    def is_blind_to(self, answer: Answer) -> bool:
        """Whether there is a budget and the answer does not say what it takes from it."""
        costs = self.price and max(self.price.input, self.price.cached_input, self.price.output)
        return bool(self._budget and costs) and tokens(answer.usage) == Tokens()

    async def change(self) -> None:
        """Wait until a call has ended or the run is ending."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Let who waits look again."""
        self._changed.set()

    def reached(self, request: dict[str, Any], currency: str, wanted: int, done: int) -> str:
        """What to say when there is no room for this call: what was spent, what the rest would cost."""
        missing, most = wanted - done, self._most_of(request) or 0.0
        rest = missing * (self._spent / done if done else most)
        return (
            f"run.budget = {self._budget:g} {currency} has no room for another answer, which may cost "
            f"{money(most, currency)}: {money(self._spent, currency)} went into {done} of {wanted}, those in the store "
            f"included. The {missing} that are missing would cost about {money(rest, currency)}: set run.budget to "
            f"{_rounded_up(self._spent + rest + most)} and run the stage again; what was received is kept."
        )

    def _most_of(self, request: dict[str, Any]) -> float | None:
        """The most that an answer may cost; None where nothing is known yet."""
        if not self.price or not self._max_tokens:
            return self._dearest
        return max(self._dearest or 0.0, most_cost(self.price, prompt_bytes(request), self._max_tokens))


def _rounded_up(amount: float) -> str:
    digits = 2 if amount >= 1 else 4
    return f"{math.ceil(amount * 10**digits) / 10**digits:.{digits}f}"
