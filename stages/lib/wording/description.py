"""Count the scripts and the lengths of questions.

described(["How many?", "几个？"])
→ {"scripts": {"han": 1, "latin": 1}, "characters": {"shortest": 3, "p50": 3, "p90": 9, "p99": 9, "longest": 9}}
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from stages.lib.ranks import ranked
from stages.lib.wording.scripts import script_of

PERCENTILES = (50, 90, 99)


def described(texts: Iterable[str]) -> dict[str, Any]:
    """How many texts each script has, and the percentiles of their lengths in characters; None without texts."""
    description = Description()
    for text in texts:
        description.add(text)
    return description.facts()


class Description:
    """The counts of the texts so far."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._scripts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count a text."""
        self._lengths[len(text)] += 1
        self._scripts[script_of(text)] += 1

    def facts(self) -> dict[str, Any]:
        """As ``described`` returns them."""
        percentiles = _percentiles(self._lengths) if self._lengths else None
        return {"scripts": dict(sorted(self._scripts.items())), "characters": percentiles}


def _percentiles(lengths: Counter[int]) -> dict[str, int]:
    """By nearest rank, so that each is the length of a text."""
    at, total = ranked(lengths), lengths.total()
    ranks = {f"p{percent}": at(math.ceil(percent / 100 * total) - 1) for percent in PERCENTILES}
    return {"shortest": at(0), **ranks, "longest": at(total - 1)}
