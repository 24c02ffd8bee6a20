"""The last row of a file that has a hash: on the disk, so that memory does not grow with the rows.

    index = HashIndex(hashes)      # in hexadecimal digits
    index.row("9f86d081…")         # 4096, from 0; None where no row has it

The store's index (lib/store/index.py) keeps all records of a key and is slow where keys are often repeated, as those of
rows may be.
"""

from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from stages.lib.database import TemporaryDatabase

AT_ONCE = 2**15  # hashes that are sorted in memory, for the disk is written in their order
TABLE = "CREATE TABLE hashes (hash BLOB PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID"


class HashIndex:
    """Rows by hash, in a database of which SQLite keeps some MB in memory. DataError where the disk is full."""

    def __init__(self, hashes: Iterable[str]) -> None:
        self._database = TemporaryDatabase(TABLE)
        rows = ((bytes.fromhex(each), row) for row, each in enumerate(hashes))
        while found := sorted(islice(rows, AT_ONCE)):
            self._database.change_many("INSERT OR REPLACE INTO hashes VALUES (?, ?)", found)

    def row(self, wanted: str) -> int | None:
        """The number of the last row with this hash."""
        rows = self._database.rows("SELECT row FROM hashes WHERE hash = ?", [bytes.fromhex(wanted)])
        return next((row for (row,) in rows), None)


def place_of(row: int, ends: NDArray[np.int64]) -> tuple[int, int]:
    """The batch of a row and its place there, of batches after which there are ``ends`` rows."""
    number = int(np.searchsorted(ends, row, "right"))
    return number, row - int(ends[number - 1] if number else 0)
