"""Claims: the keys that this process is asking for now, so that no other process asks for them too.

A claim is a lock on one byte of an empty file; the key determines which byte. The kernel drops these locks when the
process ends, however it ends, so no claim outlives its process.
"""

import fcntl
from pathlib import Path

from stages.lib.command import LocksError


class Claims:
    """The claims of one process. It may open the file only once, because closing the file drops all its claims."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._places: set[int] = set()  # needed because such a lock does not block the process that holds it

    def take(self, key: bytes) -> bool:
        """Claim a key; False where it is claimed already, by another process or this one."""
        place = _place(key)
        if place in self._places:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # POSIX allows either of the two
            return False
        except OSError as error:
            raise LocksError(self._path, error) from error
        self._places.add(place)
        return True

    def drop(self, key: bytes) -> None:
        """Release a claim; nothing where there is none."""
        place = _place(key)
        if place in self._places:
            self._places.remove(place)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Release all claims."""
        self._file.close()


def _place(key: bytes) -> int:
    """The byte for a key. Two keys with the same byte only wait for each other."""
    return int.from_bytes(key[:8], "big") >> 2  # the end of the lock must be below 2 ** 63 as well
