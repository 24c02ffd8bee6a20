"""Intervals for one arm, and for the difference of two arms on the same questions.

One arm: Wilson's score interval. Two arms: the mean of the paired differences after half a pair is added to each of
the four cells of the 2 × 2 table (Agresti and Min, Statistics in Medicine 24, 2005): unlike the plain paired
interval, it holds with few discordant pairs, and it never has zero width. Interval and p come from the same estimate.
"""

from dataclasses import dataclass

from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW


@dataclass(frozen=True)
class Proportion:
    """A share of right answers and its interval."""

    accuracy: float
    low: float
    high: float
    correct: int
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """``difference`` as observed, its interval and p; how many questions only one of the two arms got right."""

    difference: float
    low: float
    high: float
    p: float
    only_first: int
    only_second: int
    n: int


def proportion(correct: list[bool], confidence: float) -> Proportion:
    """The share of True and its Wilson interval; ``correct`` has at least one element."""
    low, high = proportion_confint(sum(correct), len(correct), alpha=1 - confidence, method="wilson")
    return Proportion(sum(correct) / len(correct), float(low), float(high), sum(correct), len(correct))


def paired_difference(first: list[bool], second: list[bool], confidence: float) -> PairedDifference:
    """First minus second over the same questions, in the same order; ValueError where the lengths differ."""
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    only_first = sum(one and not other for one, other in pairs)
    only_second = sum(other and not one for one, other in pairs)
    cells = DescrStatsW([1, -1, 0], weights=[only_first + 0.5, only_second + 0.5, n - only_first - only_second + 1])
    low, high = cells.zconfint_mean(alpha=1 - confidence)
    _, p = cells.ztest_mean(0)
    return PairedDifference(
        (only_first - only_second) / n, float(low), float(high), float(p), only_first, only_second, n
    )
