"""Leases: claims on keys among hosts whose kernel locks do not reach each other. Each is a file that one host can make.

    answers.hosts/leases/9f86d081….0    a hard link to the file of the process that asks for this key (presence.py)

A link is made by one process only, on network filesystems too. It shows its owner's heartbeat. Where the owner has
ended, the next one makes link 1, then 2, …: the highest number holds the key, so two processes that find the same ended
owner cannot both follow it.
"""

import os
from collections.abc import Callable
from pathlib import Path

from stages.lib.store.answer_file import StoreError


class Leases:
    """The leases of one process; ``own`` is its file, ``is_alive`` tells whether the owner of a link lives."""

    def __init__(self, folder: Path, own: Path, is_alive: Callable[[Path], bool]) -> None:
        self._folder = folder
        self._own = own
        self._is_alive = is_alive
        self._held: dict[bytes, int] = {}  # the number of the link
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, key: bytes) -> bool:
        """Claim a key; False where another process or this one has it."""
        if key in self._held:
            return False
        number = 0
        while not self._is_made(key, number):
            if self._is_alive(self._path(key, number)) or not self._path(key, number).exists():
                return False
            number += 1
        if number and (before := self._path(key, number - 1)) and (not before.exists() or self._is_alive(before)):
            self._path(key, number).unlink(missing_ok=True)  # meanwhile another one followed, and released the key
            return False
        self._held[key] = number
        return True

    def drop(self, key: bytes) -> None:
        """Release a key; nothing where this process does not have it."""
        number = self._held.pop(key, None)
        if number is None or self._path(key, number + 1).exists():  # another host took this process for ended
            return
        for each in range(number + 1):
            self._path(key, each).unlink(missing_ok=True)

    def close(self) -> None:
        """Release all keys."""
        for key in list(self._held):
            self.drop(key)

    def _is_made(self, key: bytes, number: int) -> bool:
        path = self._path(key, number)
        try:
            os.link(self._own, path)
        except FileExistsError:  # made by this call nevertheless, where the reply of a server was lost
            return path.exists() and path.samefile(self._own)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self._own}: removed by another host, which saw no heartbeat of this run. Run the stage again."
            ) from error
        except OSError as error:
            raise StoreError(
                f"{path}: {error.strerror}. Hosts whose locks do not reach each other need hard links here. Put the "
                "store on a filesystem with locks or with hard links (docs/hosts.md)."
            ) from error
        return True

    def _path(self, key: bytes, number: int) -> Path:
        return self._folder / f"{key.hex()}.{number}"
