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

import hashlib
import logging
import re
import unicodedata
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.hygiene.database import TemporaryDatabase
from stages.lib.params import NearDuplicateParams
from stages.lib.wording.scripts import MARKS, UNSPACED

log = logging.getLogger("distillery.collect")

MOST_IN_BAND = 128
MISSED = 0.001
TOKEN = re.compile(
    rf"\d+(?:[.,]\d+)*|[{UNSPACED}]|(?:[^\W\d_{UNSPACED}]|[{MARKS}])+"  # a number, a character, a word
    r"|[^\s\w.,;:!?'\"…‘’“”、。《》「」]"  # a symbol
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


class Sketches:
    """Computes the sketch of a text: half of the work, which needs no other text, so any process can do it."""

    def __init__(self, params: NearDuplicateParams) -> None:
        self._params = params
        self._empty = _minhash(params)
        self._bands, self._rows = banding(params.threshold, params.permutations)

    def __reduce__(self) -> tuple[type["Sketches"], tuple[NearDuplicateParams]]:
        return Sketches, (self._params,)

    def __call__(self, text: str) -> Sketch:
        """The bands of the text's MinHash values, and the hashes of its shingles."""
        hashes = np.sort(_hashes(shingle.encode() for shingle in shingles(text, self._params.ngram)))
        minhash = self._empty.copy()
        minhash.update_batch(hashes.view("<u4")[::2].tolist())  # the 32 bits that datasketch takes of a SHA-1
        values, rows = minhash.hashvalues.astype("<u4"), self._rows
        bands = _hashes(
            b"%d:%b" % (band, values[band * rows : (band + 1) * rows].tobytes()) for band in range(self._bands)
        )
        return Sketch(bands, hashes)


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
        added = self._database.change_many(
            f"INSERT INTO bands SELECT ?1, ?2 WHERE (SELECT count(*) FROM bands WHERE band = ?1) < {MOST_IN_BAND}",
            [(band, self._count) for band in sketch.bands.tolist()],
        )
        self._count += 1
        if added < len(sketch.bands) and not self._band_was_full:
            self._band_was_full = True
            log.warning(_FULL, id, MOST_IN_BAND)

    def nearest(self, sketch: Sketch) -> Near | None:
        """The most similar earlier text at or above the threshold, of equally similar ones the earliest."""
        best: Near | None = None
        own, bands = set(sketch.shingles.tolist()), sketch.bands.tolist()
        # a text with too many shingles or too few cannot be near, whichever they are
        candidates = self._database.rows(
            "SELECT id, shingles FROM texts "
            f"WHERE place IN (SELECT place FROM bands WHERE band IN ({','.join('?' * len(bands))})) "
            "AND 1.0 * min(length(shingles), ?) / max(length(shingles), ?) >= ? ORDER BY place",
            [*bands, sketch.shingles.nbytes, sketch.shingles.nbytes, self._threshold],
        )
        for id, blob in candidates:
            similarity = jaccard(own, set(np.frombuffer(blob, "<i8").tolist()))
            if similarity >= self._threshold and (best is None or similarity > best.similarity):
                best = Near(id, similarity)
        return best


_FULL = (
    "collect: near_duplicates: '%s' is like more than %d questions before it, though no near-duplicate of them. Of "
    "such questions not all pairs are compared, so a near-duplicate among them may stay."
)


def _hashes(texts: Iterable[bytes]) -> NDArray[np.int64]:
    """The first 64 bits of the SHA-1 of each text."""
    return np.frombuffer(b"".join(hashlib.sha1(text, usedforsecurity=False).digest()[:8] for text in texts), "<i8")


def _minhash(params: NearDuplicateParams) -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=params.permutations, seed=params.seed, scheme="affine32", hashfunc=int)


def shingles(text: str, n: int) -> frozenset[str]:
    """The runs of n tokens; a text of fewer tokens is one run."""
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(" ".join(tokens[start : start + n]) for start in range(max(1, len(tokens) - n + 1)))


def jaccard(first: Set[Any], second: Set[Any]) -> float:
    """The shared shingles divided by all shingles of the two."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def banding(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows of a band: the most rows, so the fewest candidates, that miss a pair at the threshold rarely.

    A pair of similarity s shares no band with a probability of (1 - s^rows)^bands.
    """
    fits = [rows for rows in range(1, permutations // 2 + 1) if _missed(threshold, permutations, rows) <= MISSED]
    rows = max(fits, default=1)
    return permutations // rows, rows


def _missed(similarity: float, permutations: int, rows: int) -> float:
    return float((1 - similarity**rows) ** (permutations // rows))
