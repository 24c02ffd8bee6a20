"""The position of each answer in the store: 16 bytes of memory for each, or, above half a million, 20 of the disk.

In:   keys (SHA-256) and the offsets of their records
Out:  the offsets where a key's record may be. Only the first 8 bytes of a key are kept, so the caller reads the record
      and compares the whole key:

    index.add(bytes.fromhex("9f86d081…"), 4096)
    index.offsets(bytes.fromhex("9f86d081…"))     # [4096]

The latest ones, up to an eighth, take 160 bytes each until they are merged into the others. Above half a million
answers all but the latest 32,768 are in a temporary database with a cache of 16 MB.
"""

from array import array
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.lib.database import TemporaryDatabase

IN_MEMORY = 2**19  # records
RECENT = 2**14  # records in the dict before they are merged, or an eighth of those in memory, or twice as many
TABLE = "CREATE TABLE records (prefix INTEGER, offset INTEGER, PRIMARY KEY (prefix, offset)) WITHOUT ROWID"
INSERT = "INSERT INTO records VALUES (?, ?)"


class Index:
    """Offsets by key: two arrays, sorted by the keys' prefixes, or a database, and a dict of the latest records."""

    def __init__(self) -> None:
        self._prefixes = array("q")
        self._offsets = array("q")
        self._recent: dict[int, int] = {}
        self._database: TemporaryDatabase | None = None
        self._merged = 0

    def __len__(self) -> int:
        """The number of records; a key that occurs twice in the store counts twice."""
        return self._merged + len(self._recent)

    def add(self, key: bytes, offset: int) -> None:
        """Add a record."""
        prefix = _prefix(key)
        most = 2 * RECENT if self._database else max(RECENT, self._merged // 8)
        if prefix in self._recent or len(self._recent) >= most:
            self._merge_recent()
        self._recent[prefix] = offset

    def offsets(self, key: bytes) -> list[int]:
        """The offsets of records that may have this key, the first ones of the store first."""
        prefix = _prefix(key)
        found = self._in_database(prefix) if self._database else self._in_arrays(prefix)
        recent = self._recent.get(prefix)
        return found if recent is None else [*found, recent]

    def neighbours(self) -> list[tuple[int, int]]:
        """Pairs of offsets, older and newer, whose keys share a prefix: a repeated key, or a rare coincidence."""
        self._merge_recent()
        if self._database:
            alike = list(self._database.rows("SELECT prefix FROM records GROUP BY prefix HAVING count(*) > 1", ()))
            return [pair for (prefix,) in alike for pair in pairwise(self._in_database(prefix))]
        places = [place for place, (first, second) in enumerate(pairwise(self._prefixes)) if first == second]
        return [(self._offsets[place], self._offsets[place + 1]) for place in places]

    def _in_arrays(self, prefix: int) -> list[int]:
        place = bisect_left(self._prefixes, prefix)
        found = []
        while place < len(self._prefixes) and self._prefixes[place] == prefix:  # seldom more than one
            found.append(self._offsets[place])
            place += 1
        return found

    def _in_database(self, prefix: int) -> list[int]:
        assert self._database
        query = "SELECT offset FROM records WHERE prefix = ? ORDER BY offset"
        return [offset for (offset,) in self._database.rows(query, (prefix,))]

    def _merge_recent(self) -> None:
        if self._database is None and len(self) > IN_MEMORY:
            from stages.lib.database import TemporaryDatabase  # loads SQLite, which most stores do not need

            database = TemporaryDatabase(TABLE)
            database.change_many(INSERT, zip(self._prefixes, self._offsets, strict=True))
            self._database, self._prefixes, self._offsets = database, array("q"), array("q")
        if self._database:
            self._database.change_many(INSERT, sorted(self._recent.items()))
        else:
            self._merge_into_arrays()
        self._merged += len(self._recent)
        self._recent = {}

    def _merge_into_arrays(self) -> None:
        import numpy as np  # 0.1 s, which a small store need not wait for

        prefixes = np.fromiter(self._recent, np.int64, len(self._recent))
        offsets = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        order = np.argsort(prefixes)
        places = np.searchsorted(self._prefixes, prefixes[order], side="right")  # after the older ones
        self._prefixes = array("q", np.insert(self._prefixes, places, prefixes[order]).tobytes())
        self._offsets = array("q", np.insert(self._offsets, places, offsets[order]).tobytes())


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:8], "big", signed=True)
