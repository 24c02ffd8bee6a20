"""The processes that use one store now: each has a file there with a heartbeat, and looks at the others' files.

    answers.hosts/HOST.PID.abcdef.live    {"owner": "HOST.PID.abcdef", "host": "HOST", "beat": 17, "mode": "alone", …}

A process holds the kernel's lock on its own file. Another one tries to take that lock:

    refused    the process lives, and locks reach from its host to this one
    granted    on one host: it has ended. Between two hosts: it has ended, or locks do not reach. Where its heartbeat
               goes on, they do not reach

Only changes of the heartbeat are observed, by the observer's own clock: clocks of two hosts may differ.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.lib.command import LocksError
from stages.lib.store.answer_file import hosts_folder

HOST_VARIABLE = "DISTILLERY_HOST"  # names this host, in place of its host name and the kernel's boot id
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SUFFIX = ".live"
SIZE = 512  # bytes of a file: it is written in one piece
EXPIRES_S = 30.0  # a process of another host whose heartbeat stands still for so long has ended

Mode = Literal["alone", "locks", "leases"]


def host_name() -> str:
    """This host, as the files of the store name it: processes with one name see each other's kernel locks."""
    if named := os.environ.get(HOST_VARIABLE):
        return _plain(named)
    kernel = BOOT_ID.read_text().strip() if BOOT_ID.is_file() else str(uuid.getnode())
    return _plain(f"{socket.gethostname()[:40]}-{hashlib.sha256(kernel.encode()).hexdigest()[:8]}")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


@dataclass(frozen=True)
class Seen:
    """A process as its file shows it; ``reaches``: its kernel lock was refused here."""

    owner: str
    host: str
    mode: Mode
    reaches: bool
    beat: int
    asking: dict[str, list[float]] = field(default_factory=dict)


class Presence:
    """The file of this process: ``mode`` says how it shares the store, ``asking`` what it asks and has reserved."""

    def __init__(self, store: Path) -> None:
        self.host = host_name()
        self.owner = f"{self.host}.{os.getpid()}.{secrets.token_hex(3)}"
        self.folder = hosts_folder(store)
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / f"{self.owner}{SUFFIX}"
        self.mode: Mode = "alone"
        self._asking: dict[str, list[float]] = {}
        self._beat = 0
        self._writing = threading.Lock()
        temporary = self.path.with_suffix(".tmp")
        self._file = temporary.open("xb", buffering=0)
        try:
            self.beat()
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.rename(self.path)  # whoever sees the file sees it locked
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise LocksError(store, error) from error

    def is_there(self) -> bool:
        """Whether no other host has removed the file, as that of a process that has ended."""
        return self.path.exists()

    def beat(self) -> None:
        """Show that this process is alive."""
        self._beat += 1
        self._write(sync=True)

    def set_mode(self, mode: Mode) -> None:
        """Say how this process shares the store."""
        self.mode = mode
        self._write(sync=True)

    def set_asking(self, what: str, in_flight: int, reserved: float) -> None:
        """Say how many calls are in flight, and what they may cost."""
        self._asking[what] = [in_flight, reserved]
        self._write(sync=self.mode != "alone")  # on one host, all processes see one page cache

    def close(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, sync: bool) -> None:
        with self._writing:
            state = {"owner": self.owner, "host": self.host, "beat": self._beat, "mode": self.mode}
            line = json.dumps(state | {"asking": self._asking}).encode()
            os.pwrite(self._file.fileno(), line.ljust(SIZE - 1) + b"\n", 0)
        if sync:
            os.fdatasync(self._file.fileno())


class Observer:
    """What this process sees of the others."""

    def __init__(self, presence: Presence) -> None:
        self._own = presence
        self._changed: dict[str, tuple[int, float]] = {}  # by owner: the heartbeat, and when it was first seen here
        self._reached: set[str] = set()  # whose lock was refused here once
        self._looking = threading.Lock()

    def others(self) -> Iterator[Seen]:
        """The other processes that live; the files of those that have ended are removed."""
        for path in sorted(self._own.folder.glob(f"*{SUFFIX}")):
            if path != self._own.path and (seen := self.look(path)):
                yield seen
            elif path != self._own.path:
                path.unlink(missing_ok=True)

    def look(self, path: Path) -> Seen | None:
        """The process whose file this is, or a link to it; None where it has ended."""
        try:
            with path.open("rb") as file:
                text = file.read()
                reaches = not _is_granted(file.fileno())
        except FileNotFoundError:
            return None
        state = _parsed(text)
        owner, host = str(state.get("owner", path.stem)), str(state.get("host", path.name.partition(".")[0]))
        mode: Mode = state.get("mode", "alone")
        seen = Seen(owner, host, mode, reaches, int(state.get("beat", 0)), state.get("asking", {}))
        if reaches:
            self._reached.add(owner)
            return seen
        if host == self._own.host or owner in self._reached:
            return None  # the kernel has released its lock
        return seen if self._is_beating(seen) else None

    def _is_beating(self, seen: Seen) -> bool:
        now = time.monotonic()
        with self._looking:
            beat, since = self._changed.get(seen.owner, (-1, now))
            if beat != seen.beat:
                self._changed[seen.owner] = (seen.beat, now)
                return True
        return now - since < EXPIRES_S


def _is_granted(descriptor: int) -> bool:
    """Whether nobody holds the lock of a file; a shared lock, so that two observers do not see each other."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        state = json.loads(text)
    except ValueError:  # not written yet
        return {}
    return state if isinstance(state, dict) else {}
