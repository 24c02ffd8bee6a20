"""Which rows of a file have a hash: 12 bytes of memory for each row.

index = HashIndex(hashes)              # in hexadecimal digits, of at least 64 bits
for row in index.rows(wanted): …       # the last one first; other hashes may have the same 64 bits, so compare
"""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np

DIGITS = 16  # of 64 bits


class HashIndex:
    """The rows by the first 64 bits of their hashes."""

    def __init__(self, hashes: Iterable[str]) -> None:
        found = np.frombuffer(array("Q", (_bits(each) for each in hashes)), np.uint64)
        order = np.argsort(found, kind="stable")
        self._rows, self._hashes = order.astype(np.uint32), found[order]

    def rows(self, wanted: str) -> Iterator[int]:
        """The numbers of the rows that may have this hash, from 0; the last one first."""
        bits = np.uint64(_bits(wanted))
        begin, end = (int(np.searchsorted(self._hashes, bits, side)) for side in ("left", "right"))
        yield from self._rows[begin:end][::-1].tolist()


def _bits(text: str) -> int:
    return int(text[:DIGITS], 16)
