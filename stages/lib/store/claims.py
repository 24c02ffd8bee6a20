"""Claims: which keys this process is asking for now, so that no other process asks for them too.

A claim is a lock of one byte of a file that is always empty; which byte, the key says. The kernel keeps these locks
and drops them when the process ends, however it ends, so that no claim outlives the one who made it.
"""

import fcntl
from pathlib import Path

from stages.lib.command import LocksError


class Claims:
    """The claims of one process. It may open the file only once: closing it drops all the claims of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._places: set[int] = set()  # such locks never hold off the process that has them, hence this

    def take(self, key: bytes) -> bool:
        """Claim a key; False where it is claimed already, by another process or this one."""
        place = _place(key)
        if place in self._places:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two
            return False
        except OSError as error:
            raise LocksError(self._path, error) from error
        self._places.add(place)
        return True

    def drop(self, key: bytes) -> None:
        """Give a claim back; nothing where there is none."""
        place = _place(key)
        if place in self._places:
            self._places.remove(place)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give all claims back."""
        self._file.close()


def _place(key: bytes) -> int:
    """The byte that stands for a key: two keys on one byte wait for each other, and that is all."""
    return int.from_bytes(key[:8], "big") >> 2  # the end of a lock, too, must be below 2 ** 63
