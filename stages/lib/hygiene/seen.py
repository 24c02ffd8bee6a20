"""Texts that came before, each with a value: on the disk, so memory does not grow with their number.

    seen = Seen()
    seen.add("how many?", "q0")
    seen.get("how many?")        # "q0"

A text is known by 16 bytes of its SHA-256.
"""

import hashlib

from stages.lib.database import TemporaryDatabase


class Seen:
    """Texts and their values; ``len`` is the number of texts."""

    def __init__(self) -> None:
        self._database = TemporaryDatabase(
            "CREATE TABLE seen (text BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
        )
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: str, value: str) -> None:
        """Remember a text; one that is there keeps its value."""
        self._count += self._database.change("INSERT OR IGNORE INTO seen VALUES (?, ?)", (_key(text), value))

    def get(self, text: str) -> str | None:
        """The value of a text; None where it did not come before."""
        found = next(self._database.rows("SELECT value FROM seen WHERE text = ?", (_key(text),)), None)
        return found[0] if found else None


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:16]
