"""One budget of several processes: each reserves in its turn, and sees what the others have reserved.

    if reserving.take_turn():                          # no other process has its turn now
        elsewhere = reserving.elsewhere("distill.teacher")
        reserving.reserve("distill.teacher", Reserved(3, 0.42))
        reserving.end_turn()

A reservation stands in the file of its process (presence.py), so it ends with it. It is taken back after the answer is
in the store, so the others see one or both of them.
"""

import fcntl
from typing import NamedTuple

from stages.lib.store.claims import Claims
from stages.lib.store.hosts import Hosts
from stages.lib.store.leases import Leases

TURN = bytes(32)  # the lease of a turn: no request has this key
LOCK = "budget.lock"


class Reserved(NamedTuple):
    """The calls in flight, and the most that they may cost."""

    calls: int
    cost: float


NOTHING = Reserved(0, 0.0)


class Reserving:
    """The reservations of this process and of the others."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._lock = (hosts.presence.folder / LOCK).open("a")
        self._turn: Leases | None = None  # that holds the turn

    def take_turn(self, claims: Claims | Leases) -> bool:
        """Whether it is this process's turn; if not, try again later."""
        if not self._hosts.settled:
            return False
        if isinstance(claims, Leases):
            self._turn = claims if claims.take(TURN) else None
            return self._turn is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def end_turn(self) -> None:
        """Let the others have theirs."""
        if self._turn:
            self._turn.drop(TURN)
            self._turn = None
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def elsewhere(self, what: str) -> Reserved:
        """What the other processes have reserved for the same."""
        stated = [seen.asking[what] for seen in self._hosts.look() if what in seen.asking]
        return Reserved(sum(int(calls) for calls, _ in stated), sum(cost for _, cost in stated))

    def reserve(self, what: str, reserved: Reserved) -> None:
        """State what the calls of this process in flight may cost."""
        self._hosts.presence.set_asking(what, reserved.calls, reserved.cost)

    def close(self) -> None:
        """End the turn, if there is one."""
        self._lock.close()
