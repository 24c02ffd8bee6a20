"""Find questions that share most of their wording with an earlier one.

    sketches, earlier = Sketches(params), NearDuplicates(params)
    earlier.add("q0", josie, sketches(josie))     # "Josie received $50 as a gift. She plans to buy two …"
    earlier.nearest(amanda, sketches(amanda))     # "Amanda received $50 as a gift. She …"  → Near("q0", 0.935)

A text is a set of shingles: ``ngram`` tokens in a row. A token is a word, a number, a symbol such as + or =, or, in a
script without spaces between words (Chinese, Japanese, Thai), a character. Case, width (NFKC) and the punctuation of
sentences make no difference. Two texts are near-duplicates if the Jaccard similarity of their sets is at least
``threshold``.

MinHash (Broder 1997) with locality-sensitive hashing proposes the pairs, so that not every pair is compared; the exact
similarity of the two sets then decides. So no collision of hashes makes a hit, and a pair at the threshold is missed
with a probability below ``MISSED``. The hashes are SHA-1 and the permutations those of the seed, so the result is the
same on every machine.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.params import NearDuplicateParams
from stages.lib.wording.scripts import MARKS, UNSPACED

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


Sketch = NDArray[np.uint32]  # the MinHash values of a text, one for each permutation


class Sketches:
    """Computes the sketch of a text: half of the work, which needs no other text, so any process can do it."""

    def __init__(self, params: NearDuplicateParams) -> None:
        self._params = params
        self._empty = _minhash(params)

    def __reduce__(self) -> tuple[type["Sketches"], tuple[NearDuplicateParams]]:
        return Sketches, (self._params,)

    def __call__(self, text: str) -> Sketch:
        """The MinHash values of the text's shingles."""
        minhash = self._empty.copy()
        minhash.update_batch([shingle.encode() for shingle in shingles(text, self._params.ngram)])
        values: Sketch = minhash.hashvalues
        return values


class NearDuplicates:
    """The texts so far, and a search for one that is nearly the same as a new one."""

    def __init__(self, params: NearDuplicateParams) -> None:
        from datasketch import MinHashLSH

        self._params = params
        self._minhash = _minhash(params)  # of the text that is added or searched
        bands = banding(params.threshold, params.permutations)
        self._index = MinHashLSH(num_perm=params.permutations, params=bands)
        self._texts: list[tuple[str, str]] = []

    def add(self, id: str, text: str, sketch: Sketch) -> None:
        """Remember a text under its id."""
        self._minhash.hashvalues = sketch
        self._index.insert(len(self._texts), self._minhash)
        self._texts.append((id, text))

    def nearest(self, text: str, sketch: Sketch) -> Near | None:
        """The most similar earlier text at or above the threshold, of equally similar ones the earliest."""
        self._minhash.hashvalues = sketch
        best: Near | None = None
        if places := sorted(self._index.query(self._minhash)):
            own = shingles(text, self._params.ngram)
        for place in places:
            id, other = self._texts[place]
            similarity = jaccard(own, shingles(other, self._params.ngram))
            if similarity >= self._params.threshold and (best is None or similarity > best.similarity):
                best = Near(id, similarity)
        return best


def _minhash(params: NearDuplicateParams) -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=params.permutations, seed=params.seed, scheme="affine32")


def shingles(text: str, n: int) -> frozenset[str]:
    """The runs of n tokens; a text of fewer tokens is one run."""
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(" ".join(tokens[start : start + n]) for start in range(max(1, len(tokens) - n + 1)))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
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
