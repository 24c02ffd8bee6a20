"""Statistics of a 2 × 2 table of independent pairs: McNemar's tests, and Tango's score interval of the difference.

mcnemar_exact_p(12, 2)         → 0.0129
tango_interval(9, 3, 32, 0.95) → (-0.027, 0.390)

McNemar's tests are those of statsmodels. Tango's interval (Statistics in Medicine 17, 1998, 891-908) is in neither
statsmodels nor scipy. It contains every difference that the score test does not reject. At a difference of 0 that test
is McNemar's without correction, so its p is below 1 - confidence exactly where the interval excludes 0.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.optimize import brentq
from statsmodels.stats.contingency_tables import mcnemar

# the score test's variance may be 0 at the observed difference, never next to it
EPSILON = 1e-9


def mcnemar_exact_p(only_first: int, only_second: int) -> float:
    """How often a fair coin splits this many discordant pairs at least as unevenly; 1 where there are none."""
    return float(mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue)


def mcnemar_score_p(only_first: int, only_second: int) -> float:
    """The p of McNemar's chi-squared test without correction; 1 where there are no discordant pairs."""
    if only_first == only_second:
        return 1.0
    return float(mcnemar([[0, only_first], [only_second, 0]], exact=False, correction=False).pvalue)


def tango_interval(only_first: int, only_second: int, n: int, confidence: float) -> tuple[float, float]:
    """Tango's score interval: the share that only the first got right, minus the share that only the second did."""
    limit = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    observed = (only_first - only_second) / n

    def rejected(difference: float) -> float:
        distance, variance = score_terms(only_first, only_second, n, difference)
        return float(distance**2 - limit * variance)

    low = -1.0 if only_second == n else _root(rejected, -1.0, observed - EPSILON)
    high = 1.0 if only_first == n else _root(rejected, observed + EPSILON, 1.0)
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(function, low, high, xtol=1e-12))


def score_terms(only_first: Any, only_second: Any, n: int, difference: float) -> tuple[Any, Any]:
    """Numerator and variance of the score statistic for a true difference, for numbers or for arrays of tables.

    The variance uses the most likely share, under that difference, that only the second got right: the larger root of
    2n q² + b q + c = 0.
    """
    b = (2 * n - only_first + only_second) * difference - only_first - only_second
    c = -only_second * difference * (1 - difference)
    share = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
    return only_first - only_second - n * difference, n * (2 * share + difference * (1 - difference))
