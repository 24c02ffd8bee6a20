"""Texts that came before, each with a value: on the disk, so memory does not grow with their number.

    seen = Seen()
    seen.add("how many?", "q0")
    seen.get("how many?")        # "q0"

The database has no name and goes with its process. A text is known by 16 bytes of its SHA-256.
"""

import hashlib
import sqlite3

CACHE_KIB = 16_384  # of the database in memory


class Seen:
    """Texts and their values; ``len`` is the number of texts."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # SQLite's temporary file
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE seen (text BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: str, value: str) -> None:
        """Remember a text; one that is there keeps its value."""
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (_key(text), value))
        self._count += added.rowcount

    def get(self, text: str) -> str | None:
        """The value of a text; None where it did not come before."""
        found = self._database.execute("SELECT value FROM seen WHERE text = ?", (_key(text),)).fetchone()
        return found[0] if found else None


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:16]
