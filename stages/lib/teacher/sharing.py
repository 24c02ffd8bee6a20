"""One budget of all that is asked for the same: what other processes and open batches have reserved counts.

async with budget.turn(asyncio.sleep) as elsewhere:    # nobody else reserves meanwhile
    if spending.has_room(request, elsewhere): …
budget.state()                                         # the others see what this process has reserved
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from stages.lib.store.answer_store import AnswerStore
from stages.lib.store.reserving import NOTHING, Reserved
from stages.lib.teacher.batches.journal import OpenBatches
from stages.lib.teacher.spending import Spending

TURN_POLL_S = 0.01  # between two tries to have one's turn


class SharedBudget:
    """The part of one run; ``section`` names what it asks for, ``is_missing`` the keys whose answers it lacked.

    ``arrived`` is called for each of these answers that no call of this run asked for.
    """

    def __init__(
        self,
        store: AnswerStore,
        batches: OpenBatches,
        spending: Spending,
        section: str,
        is_missing: Callable[[str], bool],
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._batches = batches
        self._spending = spending
        self._section = section
        self._is_missing = is_missing
        self._arrived = arrived

    @asynccontextmanager
    async def turn(self, sleep: Callable[[float], Awaitable[None]]) -> AsyncIterator[Reserved]:
        """What the others and all open batches have reserved; without a budget nothing, and no turn is waited for."""
        if not self._spending.has_budget:
            yield NOTHING
            return
        while not self._store.take_turn():
            await sleep(TURN_POLL_S)
        try:
            # in this order: what becomes a batch or an answer meanwhile counts twice, the other way round not at all
            elsewhere = self._store.reserving.elsewhere(self._section)
            in_batches = self._batches.reserved(self._section, self._spending.most)
            self._store.refresh()
            self.count_arrived()
            yield Reserved(elsewhere.calls + in_batches.calls, elsewhere.cost + in_batches.cost)
        finally:
            self._store.reserving.end_turn()

    def count_arrived(self) -> None:
        """Count the answers that the others have received since the last call."""
        for key in self._store.arrived():
            self.count(key)

    def count(self, key: str) -> None:
        """Count a stored answer that no call of this run asked for."""
        if self._is_missing(key):
            self._arrived()
            self._spending.add_stored(self._store.body(key))

    def state(self) -> None:
        """Tell the others what this process has reserved."""
        if self._spending.has_budget:
            self._store.reserving.reserve(self._section, Reserved(self._spending.in_flight, self._spending.reserved))
