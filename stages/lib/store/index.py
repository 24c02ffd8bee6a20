"""The position of each answer in the store: 16 bytes of memory per record, whatever the answer's length.

The latest ones, up to an eighth, take 160 bytes each until they are merged: each merge copies all the others.

In:   keys (SHA-256) and the offsets of their records
Out:  the offsets where a key's record may be. Only the first 8 bytes of a key are kept in memory, so the caller reads
      the record and compares the whole key:

    index.add(bytes.fromhex("9f86d081…"), 4096)
    index.offsets(bytes.fromhex("9f86d081…"))     # [4096]
"""

from array import array
from bisect import bisect_left
from itertools import pairwise

RECENT = 16384  # records in the dict (160 bytes each) before they are merged into the arrays, or an eighth of these


class Index:
    """Offsets by key: two arrays, sorted by the keys' prefixes, and a dict of the latest records."""

    def __init__(self) -> None:
        self._prefixes = array("Q")
        self._offsets = array("Q")
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        """The number of records; a key that occurs twice in the store counts twice."""
        return len(self._offsets) + len(self._recent)

    def add(self, key: bytes, offset: int) -> None:
        """Add a record."""
        prefix = _prefix(key)
        if prefix in self._recent or len(self._recent) >= max(RECENT, len(self._offsets) // 8):
            self._merge_recent()
        self._recent[prefix] = offset

    def offsets(self, key: bytes) -> list[int]:
        """The offsets of records that may have this key, the one that was added first first."""
        prefix = _prefix(key)
        place = bisect_left(self._prefixes, prefix)
        found = []
        while place < len(self._prefixes) and self._prefixes[place] == prefix:  # seldom more than one
            found.append(self._offsets[place])
            place += 1
        recent = self._recent.get(prefix)
        return found if recent is None else [*found, recent]

    def neighbours(self) -> list[tuple[int, int]]:
        """Pairs of offsets, older and newer, whose keys share a prefix: a repeated key, or a rare coincidence."""
        self._merge_recent()
        alike = [place for place, (first, second) in enumerate(pairwise(self._prefixes)) if first == second]
        return [(self._offsets[place], self._offsets[place + 1]) for place in alike]

    def _merge_recent(self) -> None:
        import numpy as np  # 0.1 s, which a small store need not wait for

        prefixes = np.fromiter(self._recent, np.uint64, len(self._recent))
        offsets = np.fromiter(self._recent.values(), np.uint64, len(self._recent))
        order = np.argsort(prefixes)
        places = np.searchsorted(self._prefixes, prefixes[order], side="right")  # after the older ones
        self._prefixes = array("Q", np.insert(self._prefixes, places, prefixes[order]).tobytes())
        self._offsets = array("Q", np.insert(self._offsets, places, offsets[order]).tobytes())
        self._recent = {}


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")
