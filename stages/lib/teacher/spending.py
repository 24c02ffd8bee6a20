"""What a run's answers cost, and whether the budget has room for one more.

The budget is for all answers of the stage, those in the store included, so that running again spends no second one.
Room is kept for every call in flight at the price of the dearest answer so far (with ``max_tokens``: of the longest
that is possible); until one has come, calls go one at a time.
"""

import asyncio

from stages.lib.params import Price
from stages.lib.teacher.pricing import cost
from stages.lib.teacher.reading import Answer, BodyError, read_body


def body_cost(body: bytes, price: Price) -> float:
    """What a stored answer cost; nothing where it says of no tokens."""
    try:
        return cost(read_body(body).usage, price)
    except BodyError:
        return 0.0


class Spending:
    """The money of one run. Without a price nothing costs anything; without a budget there is always room."""

    def __init__(
        self, price: Price | None, budget: float | None, spent: float, dearest: float | None, max_tokens: int | None
    ) -> None:
        self.price = price
        self.in_flight = 0
        self._budget = budget
        self._spent = spent
        self._bought = 0.0
        self._answers = 0
        self._dearest = dearest
        if price and max_tokens:
            self._dearest = max(dearest or 0.0, max_tokens * price.output / 1e6)
        self._changed = asyncio.Event()

    def has_room(self) -> bool:
        """Whether one more call may begin without any chance of passing the budget, as far as one can tell."""
        if self._budget is None:
            return True
        if self._dearest is None:
            return self.in_flight == 0
        return self._spent + (self.in_flight + 1) * self._dearest <= self._budget

    def begun(self) -> None:
        """A call begins."""
        self.in_flight += 1

    def ended(self, answer: Answer | None) -> None:
        """A call has ended, with a paid answer or with none."""
        self.in_flight -= 1
        if answer:
            paid = self.cost(answer)
            self._spent += paid
            self._bought += paid
            self._answers += 1
            self._dearest = max(self._dearest or 0.0, paid)
        self.wake()

    def cost(self, answer: Answer) -> float:
        """What an answer cost."""
        return cost(answer.usage, self.price) if self.price else 0.0

    async def change(self) -> None:
        """Wait until a call has ended or the run is ending."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Let who waits look again."""
        self._changed.set()

    def reached(self, currency: str, wanted: int, done: int) -> str:
        """What to say when the budget is reached: what was spent, what the rest would cost."""
        missing = wanted - done
        mean = self._spent / done if done else self._dearest or 0.0
        enough = self._spent + missing * mean + (self._dearest or 0.0)
        return (
            f"run.budget = {self._budget:g} {currency} has no room for another answer: {self._spent:.4g} {currency} "
            f"went into {done} of {wanted}, those in the store included. The {missing} that are missing would cost "
            f"about {missing * mean:.4g} {currency}: set run.budget to {enough:.4g} and run the stage again; what was "
            "received is kept."
        )
