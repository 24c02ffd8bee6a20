"""How this process shares the store with others, found out and not assumed: the three modes.

    alone     no process of another host uses the store: one file, the kernel's locks (claims.py)
    locks     there are some, and their locks reach here: the same
    leases    the locks of one do not reach here, or one says so: a file for each host, and leases (leases.py)

A process that begins to use the store looks for others (presence.py) and waits until each of another host has seen it,
so that all of them share the store in one way. Where a mode is entered later, no key is claimed until all have entered
it (``settled``). A mode never changes back.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from stages.lib.command import DistilleryError
from stages.lib.store.presence import EXPIRES_S, Mode, Observer, Presence, Seen

log = logging.getLogger("distillery.store")

BEAT_S = 2.0  # between two heartbeats, and two looks at the others
POLL_S = 0.1  # while a process waits to be seen
LONGEST_WAIT_S = 2 * EXPIRES_S
NOTICE_AFTER_S = 3.0  # before a line says what it waits for
LEASES = "leases"  # the folder of all leases
ORDER: tuple[Mode, ...] = ("alone", "locks", "leases")


class Hosts:
    """The processes that use the store; ``switch`` is called, once for each, before this process enters a mode."""

    def __init__(self, store: Path, switch: Callable[[Mode], None]) -> None:
        self.presence = Presence(store)
        self._observer = Observer(self.presence)
        self._switch = switch
        self._store = store
        self._changing = threading.Lock()
        self._end = threading.Event()
        self._looked = time.monotonic()
        self._error: DistilleryError | None = None
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.count = 1  # the hosts that use the store now, as the last look saw them
        self.settled = True
        self._entered = 0.0  # when the mode of leases was entered

    def join(self) -> None:
        """Find out the mode, and wait until the others know it too."""
        try:
            self._wait_until_seen()
        except BaseException:
            self.presence.close()
            raise
        if self.presence.mode == "alone":  # what killed processes of hosts left is not needed any more
            for lease in (self.presence.folder / LEASES).glob("*"):
                lease.unlink(missing_ok=True)
        self._beating.start()

    def look(self) -> list[Seen]:
        """Look at the others, and enter the mode that they call for."""
        with self._changing:
            others = list(self._observer.others())
            elsewhere = [seen for seen in others if seen.host != self.presence.host]
            self.count = 1 + len({seen.host for seen in elsewhere})
            unreached = any(not seen.reaches for seen in elsewhere) or any(seen.mode == "leases" for seen in others)
            if not self.presence.is_there():
                unreached = True  # another host took this process for ended, such as one that was suspended
            wanted: Mode = "leases" if unreached else "locks" if elsewhere else "alone"
            if ORDER.index(wanted) > ORDER.index(self.presence.mode):
                if wanted == "leases":
                    log.info("store: locks do not reach all hosts that use %s; it uses leases", self._store)
                    self.settled, self._entered = False, time.monotonic()
                self._switch(wanted)
                self.presence.set_mode(wanted)
            if not self.settled:
                # not for ever: a stopped process holds its lock and does nothing
                late = time.monotonic() - self._entered > LONGEST_WAIT_S
                self.settled = late or all(seen.mode == "leases" for seen in others)
            self._looked = time.monotonic()
            return others

    def check_heartbeat(self) -> None:
        """Look at the others if there was no heartbeat for long: this process may have been suspended.

        Raises the error that ended the heartbeat.
        """
        if self._error:
            raise self._error
        if time.monotonic() - self._looked > EXPIRES_S / 2:
            self.look()

    def is_alive(self, path: Path) -> bool:
        """Whether the process lives whose file this is, or a link to it."""
        return self._observer.look(path) is not None

    def close(self) -> None:
        """Leave the store to the others."""
        self._end.set()
        if self._beating.is_alive():
            self._beating.join()
        self.presence.close()

    def _wait_until_seen(self) -> None:
        began = time.monotonic()
        noticed = beaten = began
        while pending := [seen for seen in self.look() if not self._has_seen_this(seen)]:
            now = time.monotonic()
            if now - began > LONGEST_WAIT_S:
                return
            if noticed and now - noticed > NOTICE_AFTER_S:
                names = ", ".join(sorted({seen.host for seen in pending}))
                log.info("store: up to %.0f s for a heartbeat of %s, which was killed or is slow", EXPIRES_S, names)
                noticed = 0.0
            if now - beaten > BEAT_S:
                self.presence.beat()
                beaten = now
            time.sleep(POLL_S)

    def _has_seen_this(self, seen: Seen) -> bool:
        here = seen.host == self.presence.host and self.presence.mode != "leases"
        return here or ORDER.index(seen.mode) >= ORDER.index(self.presence.mode)

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S if self.settled else POLL_S):
            try:
                self.presence.beat()
                self.look()
            except DistilleryError as error:
                self._error = error
                return
            except OSError as error:
                log.warning("store: no heartbeat in %s: %s", self.presence.folder, error.strerror)
