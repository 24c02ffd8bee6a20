"""Whether a served teacher and the same one loaded here give the same probabilities.

distance(served, loaded)    → Distance(mean=0.004, largest=0.02)
TOLERANCE["bfloat16"]       → 0.05, for the mean

The distance at a place is the total variation, half the sum of the differences of the tokens' probabilities: 0 for the
same, 1 for distributions that share nothing. A server that is off by one place, measures after sampling, or has other
weights is far beyond the tolerance; docs/logprobs.md has what was measured.
"""

from dataclasses import dataclass

import numpy as np

from stages.lib.logprobs import NO_TOKEN, Scored

TOLERANCE = {"float32": 0.001, "float16": 0.01, "bfloat16": 0.05}  # by the dtype of the arithmetic
# ordinary text, with numbers and letters outside ASCII
TEXT = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "she sell altogether? In May she sold 48/2 = 24 clips, so 48 + 24 = 72. 一共卖了 72 个夹子。"
)


@dataclass(frozen=True)
class Distance:
    """The mean distance of all places, and the largest."""

    mean: float
    largest: float


def distance(one: Scored, other: Scored) -> Distance:
    """How far the likeliest tokens of two are apart, at the same places; all other tokens count as one."""
    found = [_total_variation(*(_probabilities(each, place) for each in (one, other))) for place in range(len(one.ids))]
    return Distance(float(np.mean(found)), max(found))


def _total_variation(one: dict[int, float], other: dict[int, float]) -> float:
    # a token that is among the likeliest of one alone is in the rest of the other
    common = one.keys() & other.keys()
    differences = [abs(one[token] - other[token]) for token in common]
    rest = [1 - sum(each[token] for token in common) for each in (one, other)]
    return (sum(differences) + abs(rest[0] - rest[1])) / 2


def _probabilities(scored: Scored, place: int) -> dict[int, float]:
    pairs = zip(scored.ids[place].tolist(), np.exp(scored.logprobs[place].astype(np.float64)).tolist(), strict=True)
    return {token: probability for token, probability in pairs if token != NO_TOKEN}
