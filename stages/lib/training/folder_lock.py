"""The lock of a training's folder: a file in it, locked while a process uses the folder.

with (folder / "lock").open("w") as lock:
    if take(lock): …
"""

import fcntl
from pathlib import Path
from typing import TextIO

from stages.lib.command import LocksError


def take(lock: TextIO) -> bool:
    """Whether we got the lock. The kernel releases it when the process ends, for whatever reason."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise LocksError(Path(lock.name), error) from error
    return True


def held_by_another(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    try:
        with (folder / "lock").open("r+") as lock:
            return not take(lock)
    except FileNotFoundError:
        return False
