"""A database on the disk for what would grow in memory with the number of rows; it goes with its process.

    database = TemporaryDatabase("CREATE TABLE seen (text BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    database.change("INSERT OR IGNORE INTO seen VALUES (?, ?)", [key, "q0"])      # 1, the number of rows
    next(database.rows("SELECT value FROM seen WHERE text = ?", [key]), None)     # ("q0",)

SQLite makes a file without a name in SQLITE_TMPDIR, TMPDIR or /var/tmp, once the CACHE_KIB are full.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stages.lib.files import DataError

CACHE_KIB = 16_384  # of a database in memory


class TemporaryDatabase:
    """A database of this process alone. DataError where the disk is full, at this call and at each later one."""

    def __init__(self, *tables: str) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)  # no two threads may use it at once
        self._error: DataError | None = None
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        for table in tables:
            self._database.execute(table)

    def change(self, statement: str, values: Sequence[Any]) -> int:
        """Run a statement; the number of rows that it changed."""
        with self._one_line_errors():
            return self._database.execute(statement, values).rowcount

    def change_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of the values."""
        with self._one_line_errors():
            self._database.executemany(statement, values)

    def rows(self, query: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, as they are read."""
        with self._one_line_errors():
            yield from self._database.execute(query, values)

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        if self._error:  # without a journal, a statement that failed leaves a broken database
            raise self._error
        try:
            yield
        except sqlite3.DatabaseError as error:
            self._error = DataError(
                f"temporary database: {error}. Free space in the folder for temporary files (SQLITE_TMPDIR, else "
                "TMPDIR, else /var/tmp), then run the stage again."
            )
            raise self._error from error
