"""Where in the store each answer stands: 16 bytes of memory a record, whatever the answer's length.

In go the keys (SHA-256) and the offsets of their records, out come the offsets that may be a key's. Only the first
8 bytes of a key are held, so who asks reads the record and compares the whole key:

    index.add(bytes.fromhex("9f86d081…"), 4096)
    index.offsets(bytes.fromhex("9f86d081…"))     # [4096]
"""

import numpy as np
from numpy.typing import NDArray

RECENT = 16384  # so many records wait in a dict (160 bytes each) before they are laid into the arrays


class Index:
    """Offsets by key: two arrays, sorted by the keys' beginnings, and a dict of what came last."""

    def __init__(self) -> None:
        self._beginnings: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._offsets: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        """How many records; a key that stands twice in the store counts twice."""
        return len(self._offsets) + len(self._recent)

    def add(self, key: bytes, offset: int) -> None:
        """A record more. Offsets only ever grow."""
        beginning = _beginning(key)
        if beginning in self._recent or len(self._recent) >= RECENT:
            self._settle()
        self._recent[beginning] = offset

    def offsets(self, key: bytes) -> list[int]:
        """Where records may stand that have this key, the oldest first."""
        beginning = _beginning(key)
        first, last = (self._beginnings.searchsorted(np.uint64(beginning), side) for side in ("left", "right"))
        found: list[int] = self._offsets[first:last].tolist()
        recent = self._recent.get(beginning)
        return found if recent is None else [*found, recent]

    def neighbours(self) -> list[tuple[int, int]]:
        """The pairs of offsets, older and newer, whose keys begin alike: the same key twice, or a rare accident."""
        self._settle()
        alike = np.flatnonzero(self._beginnings[1:] == self._beginnings[:-1])
        return [(int(self._offsets[position]), int(self._offsets[position + 1])) for position in alike]

    def _settle(self) -> None:
        beginnings = np.fromiter(self._recent, np.uint64, len(self._recent))
        offsets = np.fromiter(self._recent.values(), np.uint64, len(self._recent))
        order = np.argsort(beginnings)
        places = np.searchsorted(self._beginnings, beginnings[order], side="right")  # behind the older ones
        self._beginnings = np.insert(self._beginnings, places, beginnings[order])
        self._offsets = np.insert(self._offsets, places, offsets[order])
        self._recent = {}


def _beginning(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")
