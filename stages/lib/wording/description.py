"""Count the scripts and the lengths of questions.

described(["How many?", "几个？"])
→ {"scripts": {"han": 1, "latin": 1}, "characters": {"shortest": 3, "p50": 3, "p90": 9, "p99": 9, "longest": 9}}
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from stages.lib.wording.scripts import script_of

PERCENTILES = (50, 90, 99)


def described(texts: Iterable[str]) -> dict[str, Any]:
    """How many texts each script has, and the percentiles of their lengths in characters; None without texts."""
    lengths: list[int] = []
    scripts: Counter[str] = Counter()
    for text in texts:
        lengths.append(len(text))
        scripts[script_of(text)] += 1
    return {"scripts": dict(sorted(scripts.items())), "characters": _percentiles(sorted(lengths)) if lengths else None}


def _percentiles(ordered: Sequence[int]) -> dict[str, int]:
    """By nearest rank, so that each is the length of a text."""
    ranks = {f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in PERCENTILES}
    return {"shortest": ordered[0], **ranks, "longest": ordered[-1]}
