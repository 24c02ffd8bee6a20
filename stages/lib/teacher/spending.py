"""Add up what a run's answers cost, and check whether the budget has room for one more.

The budget covers all answers of the stage, those in the store included, so that a second run does not spend it again.
Each call in flight reserves a part of it:

    with max_tokens       the cost of the longest possible answer, so that the budget is never exceeded
    without max_tokens    the highest cost of an answer so far; until there is one, calls are made one at a time

Several processes that ask for the same share one budget: each states what it has reserved (store/reserving.py).
"""

import asyncio
import math
from typing import Any

from stages.lib.params import Price
from stages.lib.replies.reading import Answer, BodyError, read_body
from stages.lib.replies.usage import Tokens
from stages.lib.store.reserving import NOTHING, Reserved
from stages.lib.teacher.pricing import money, tokens_cost

NO_USAGE = (
    "the server's answers state no tokens ('usage'), so their cost is unknown and run.budget cannot be kept. "
    "Set run.stream to false if it is true, else run.budget to null; received answers are kept."
)
TEMPLATE_TOKENS = 64  # that a chat template may add to a message; the text itself has at most one token per byte


def body_cost(body: bytes, price: Price) -> float:
    """What a stored answer cost; 0 where it states no tokens."""
    try:
        return tokens_cost(read_body(body).tokens, price)
    except BodyError:
        return 0.0


def prompt_bytes(request: dict[str, Any]) -> int:
    """The length of a request's messages in bytes."""
    return sum(len(message["content"].encode()) for message in request["messages"])


def max_cost(price: Price, length: int, max_tokens: int, calls: int = 1) -> float:
    """The most that ``calls`` can cost; ``length`` is the length of all their prompts in bytes."""
    prompt = length + calls * TEMPLATE_TOKENS
    return (prompt * max(price.input, price.cached_input) + calls * max_tokens * price.output) / 1_000_000


class Spending:
    """The cost of one run. Without a price every cost is 0; without a budget there is always room."""

    def __init__(
        self,
        price: Price | None,
        budget: float | None,
        spent: float,
        highest_cost: float | None,
        max_tokens: int | None,
    ) -> None:
        self.price = price
        self._budget = budget
        self._spent = spent
        self._highest_cost = highest_cost
        self._max_tokens = max_tokens
        self._reserved: dict[str, float] = {}  # by key of a call in flight
        self._reserved_sum = 0.0
        self._changed = asyncio.Event()

    @property
    def has_budget(self) -> bool:
        """Whether the cost is limited."""
        return self._budget is not None

    @property
    def in_flight(self) -> int:
        """How many calls are in flight."""
        return len(self._reserved)

    @property
    def reserved(self) -> float:
        """What the calls in flight may cost."""
        return self._reserved_sum

    def has_room(self, request: dict[str, Any], elsewhere: Reserved = NOTHING) -> bool:
        """Whether the budget has room for this call as well, as far as its cost can be estimated.

        ``elsewhere``: the calls of other processes in flight.
        """
        if self._budget is None:
            return True
        most = self._max_cost(request)
        if most is None:
            return not (self._reserved or elsewhere.calls)
        theirs = max(elsewhere.cost, elsewhere.calls * (self._highest_cost or 0.0))
        return self._spent + self._reserved_sum + theirs + most <= self._budget

    def most(self, calls: int, length: int) -> float:
        """The most that calls may cost with ``max_tokens``; ``length`` is that of all their prompts in bytes."""
        return max_cost(self.price, length, self._max_tokens, calls) if self.price and self._max_tokens else 0.0

    def add_stored(self, body: bytes) -> None:
        """Add the cost of an answer that was not asked for by a call of this run."""
        if self.price:
            self._add(body_cost(body, self.price))

    @property
    def can_estimate(self) -> bool:
        """Whether the most that a call may cost is known, or does not matter."""
        return self._budget is None or bool(self._max_tokens) or self._highest_cost is not None

    def begin(self, key: str, request: dict[str, Any]) -> None:
        """Reserve the cost of a call that begins."""
        self._reserved[key] = self._max_cost(request) or 0.0 if self._budget is not None else 0.0
        self._reserved_sum += self._reserved[key]

    def end(self, key: str, answer: Answer | None) -> None:
        """Release a call that has ended, and add the cost of its answer, where it has one."""
        self._reserved_sum -= self._reserved.pop(key)
        self._reserved_sum *= bool(self._reserved)  # no rounding error is left over
        if answer:
            self.add(answer)
        self.notify()

    def add(self, answer: Answer) -> None:
        """Add the cost of an answer."""
        self._add(self.cost(answer))

    def cost(self, answer: Answer) -> float:
        """The cost of an answer."""
        return tokens_cost(answer.tokens, self.price) if self.price else 0.0

    def lacks_usage(self, answer: Answer) -> bool:
        """Whether there is a budget and the answer states no tokens, so that its cost is unknown."""
        costs = self.price and max(self.price.input, self.price.cached_input, self.price.output)
        return bool(self._budget and costs) and answer.tokens == Tokens()

    async def wait_for_change(self) -> None:
        """Wait until a call has ended or the run is ending."""
        self._changed.clear()
        await self._changed.wait()

    def notify(self) -> None:
        """Wake the task that waits in ``wait_for_change``."""
        self._changed.set()

    def budget_message(self, request: dict[str, Any], currency: str, total: int, done: int) -> str:
        """The error where there is no room for this call: what was spent, and what the rest would cost."""
        missing, most = total - done, self._max_cost(request) or 0.0
        rest = missing * (self._spent / done if done else most)
        return (
            f"run.budget = {self._budget:g} {currency} has no room for another answer, which may cost "
            f"{money(most, currency)}. {money(self._spent, currency)} was spent on {done} of {total} answers, the "
            f"stored ones included. The {missing} missing ones would cost about {money(rest, currency)}. Set "
            f"run.budget to {_round_up(self._spent + rest + most)} and run the stage again; received answers are kept."
        )

    def _add(self, paid: float) -> None:
        self._spent += paid
        if paid > (self._highest_cost or 0.0):
            self._raise_reserves(paid)
        self._highest_cost = max(self._highest_cost or 0.0, paid)

    def _raise_reserves(self, paid: float) -> None:
        """An answer that costs more than its call reserved shows that the server ignores max_tokens."""
        if self._budget is not None:
            self._reserved = {key: max(each, paid) for key, each in self._reserved.items()}
            self._reserved_sum = sum(self._reserved.values())

    def _max_cost(self, request: dict[str, Any]) -> float | None:
        """The most that an answer may cost; None where that is unknown."""
        if not self.price or not self._max_tokens:
            return self._highest_cost
        return max(self._highest_cost or 0.0, max_cost(self.price, prompt_bytes(request), self._max_tokens))


def _round_up(amount: float) -> str:
    digits = 2 if amount >= 1 else 4
    return f"{math.ceil(amount * 10**digits) / 10**digits:.{digits}f}"
