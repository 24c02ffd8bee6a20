"""Find questions that share most of their wording with an earlier one.

    sketches, earlier = Sketches(params), NearDuplicates(params)
    earlier.add("q0", sketches(josie))     # "Josie received $50 as a gift. She plans to buy two …"
    earlier.nearest(sketches(amanda))      # "Amanda received $50 as a gift. She …"  → Near("q0", 0.935)

A text is a set of shingles: ``ngram`` tokens in a row. A token is a word, a number, a symbol such as + or =, or, in a
script without spaces between words (Chinese, Japanese, Thai), a character. Case, width (NFKC) and the punctuation of
sentences make no difference. Two texts are near-duplicates if the Jaccard similarity of their sets is at least
``threshold``.

MinHash (Broder 1997) with locality-sensitive hashing proposes the pairs, so that not every pair is compared; the exact
similarity of the two sets then decides. So no collision of MinHash values makes a hit, and a pair at the threshold is
missed with a probability below ``MISSED``. A shingle is known by 64 bits of its SHA-1, and the permutations are those
of the seed, so the result is the same on every machine.

Sketches and bands are on the disk, so memory does not grow with the number of texts. Of texts that share a band and
are not near-duplicates, as thousands of one template with other numbers, the first ``MOST_IN_BAND`` are compared with
later ones: the time for a text does not grow with their number, and of near-duplicates among them some are missed.
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.database import TemporaryDatabase
from stages.lib.params import NearDuplicateParams
from stages.lib.wording.scripts import MARKS, UNSPACED

log = logging.getLogger("distillery.collect")

MOST_IN_BAND = 64
COMPARED_AT_ONCE = 256
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio (Knuth, volume 3, 6.4), odd
MISSED = 0.001
TOKEN = re.compile(
    rf"\d+(?:[.,]\d+)*|[{UNSPACED}]|(?:[^\W\d_{UNSPACED}]|[{MARKS}])+"  # a number, a character, a word
    r"|[^\s\w.,;:!?'\"…‘’“”、。《》「」]"  # a symbol
)
_FULL = (
    "collect: near_duplicates: '%s' is like more than %d questions before it, though no near-duplicate of them. Of "
    "such questions not all pairs are compared, so a near-duplicate among them may stay."
)


@dataclass(frozen=True)
class Near:
    """The id of an earlier text, and the exact Jaccard similarity to it."""

    id: str
    similarity: float


@dataclass(frozen=True)
class Sketch:
    """What is compared of a text: a hash of each band of its MinHash, and its shingles by their hashes, sorted."""

    bands: NDArray[np.int64]
    shingles: NDArray[np.int64]

    @property
    def bands_as_json(self) -> str:
        """The bands for SQLite's json_each."""
        return str(self.bands.tolist())


class Sketches:
    """Computes the sketch of a text: half of the work, which needs no other text, so any process can do it."""

    def __init__(self, params: NearDuplicateParams) -> None:
        self._params = params
        self._empty = _minhash(params)
        self._bands, self._rows = banding(params.threshold, params.permutations)
        self._powers = np.array([pow(GOLDEN, power, 2**64) for power in range(1, self._rows + 2)], np.uint64)

    def __reduce__(self) -> tuple[type["Sketches"], tuple[NearDuplicateParams]]:
        return Sketches, (self._params,)

    def __call__(self, text: str) -> Sketch:
        """The bands of the text's MinHash values, and the hashes of its shingles."""
        found = [sha1(each.encode()).digest()[:8] for each in shingles(text, self._params.ngram)]
        hashes = np.sort(np.frombuffer(b"".join(found), "<i8"))
        minhash = self._empty.copy()
        minhash.update_batch(hashes.view("<u4")[::2].tolist())  # the 32 bits that datasketch takes of a SHA-1
        return Sketch(self._hashed_bands(minhash.hashvalues), hashes)

    def _hashed_bands(self, values: NDArray[np.uint32]) -> NDArray[np.int64]:
        """64 bits of each band and its number: the value of a polynomial, modulo 2^64, whose coefficients they are."""
        rows = values[: self._bands * self._rows].reshape(self._bands, self._rows)
        numbers = np.arange(self._bands)
        return (np.column_stack([rows, numbers]).astype(np.uint64) @ self._powers).view(np.int64)


class NearDuplicates:
    """The texts so far, and a search for one that is nearly the same as a new one."""

    def __init__(self, params: NearDuplicateParams) -> None:
        self._threshold = params.threshold
        self._count = 0
        self._band_was_full = False
        self._database = TemporaryDatabase(
            "CREATE TABLE texts (place INTEGER PRIMARY KEY, id TEXT NOT NULL, shingles BLOB NOT NULL)",
            "CREATE TABLE bands (band INTEGER, place INTEGER, PRIMARY KEY (band, place)) WITHOUT ROWID",
        )

    def add(self, id: str, sketch: Sketch) -> None:
        """Remember a text under its id."""
        self._database.change("INSERT INTO texts VALUES (?, ?, ?)", (self._count, id, sketch.shingles.tobytes()))
        added = self._database.change(
            "INSERT INTO bands SELECT value, ?2 FROM json_each(?1) "
            "WHERE (SELECT count(*) FROM bands WHERE band = value) < ?3",
            (sketch.bands_as_json, self._count, MOST_IN_BAND),
        )
        self._count += 1
        if added < len(sketch.bands) and not self._band_was_full:
            self._band_was_full = True
            log.warning(_FULL, id, MOST_IN_BAND)

    def nearest(self, sketch: Sketch) -> Near | None:
        """The most similar earlier text at or above the threshold, of equally similar ones the earliest."""
        best = Near("", 0.0)
        # a text with too many shingles or too few cannot be near, whichever they are
        candidates = self._database.rows(
            "SELECT id, shingles FROM texts "
            "WHERE place IN (SELECT place FROM bands WHERE band IN (SELECT value FROM json_each(?1))) "
            "AND 1.0 * min(length(shingles), ?2) / max(length(shingles), ?2) >= ?3 ORDER BY place",
            (sketch.bands_as_json, sketch.shingles.nbytes, self._threshold),
        )
        while batch := list(islice(candidates, COMPARED_AT_ONCE)):
            similarities = jaccard(sketch.shingles, [shingles for _, shingles in batch])
            first = int(similarities.argmax())
            best = max(best, Near(batch[first][0], float(similarities[first])), key=lambda near: near.similarity)
        return best if best.similarity >= self._threshold else None


def _minhash(params: NearDuplicateParams) -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=params.permutations, seed=params.seed, scheme="affine32", hashfunc=int)


def shingles(text: str, n: int) -> frozenset[str]:
    """The runs of n tokens; a text of fewer tokens is one run."""
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(" ".join(tokens[start : start + n]) for start in range(max(1, len(tokens) - n + 1)))


def jaccard(own: NDArray[np.int64], others: Sequence[bytes]) -> NDArray[np.float64]:
    """The similarity of a sorted set of hashes to each of the others: the shared ones divided by all of the two."""
    hashes = np.frombuffer(b"".join(others), "<i8")
    is_shared = own.take(np.searchsorted(own, hashes), mode="clip") == hashes
    sizes = np.array([len(other) // 8 for other in others])
    shared = np.add.reduceat(is_shared, np.cumsum(sizes) - sizes, dtype=np.int64)
    similarities: NDArray[np.float64] = shared / (len(own) + sizes - shared)
    return similarities


def banding(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows of a band: the most rows, so the fewest candidates, that miss a pair at the threshold rarely.

    A pair of similarity s shares no band with a probability of (1 - s^rows)^bands.
    """
    fits = [rows for rows in range(1, permutations // 2 + 1) if _missed(threshold, permutations, rows) <= MISSED]
    rows = max(fits, default=1)
    return permutations // rows, rows


def _missed(similarity: float, permutations: int, rows: int) -> float:
    return float((1 - similarity**rows) ** (permutations // rows))
