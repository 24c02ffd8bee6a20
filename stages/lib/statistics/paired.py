"""Intervals for one arm, and for the difference of two arms on the same questions.

There is one estimator of the difference: the mean of the paired differences over the clusters. A cluster is a question.
Where questions repeat a problem (MGSM in 11 languages), a cluster is the problem, with the mean over its questions. The
interval and p are those of Student's t (statsmodels' DescrStatsW), after one and a half pseudo-clusters were added for
each arm. So p < 1 - confidence exactly where the interval excludes 0. For single questions, Tango's score interval and
its test are available instead. McNemar's exact p is computed in both cases.

Pseudo-clusters are needed where there are few discordant pairs: with 3 questions against 0 of 100, the plain paired t
interval has a coverage of 80 % at a nominal 95 %. Agresti and Min (Statistics in Medicine 24, 2005) add half a pair for
each arm, Bonett and Price (Journal of Educational and Behavioral Statistics 37, 2012) a whole one. Where all discordant
pairs fall to one arm, the lowest exact coverage is:

    86.5 %    with half a pair and normal quantiles
    93.7 %    with a whole pair and t
    94.5 %    with one and a half pairs and t, as here

This is the minimum over 11 n from 40 to 500, 11 discordances from 1 to 50 % and three splits of them.

Where clusters repeat questions, the distance of a pseudo-cluster from 0 is the square root of the root mean square of
the clusters that differ at all. The root mean square itself is too small with few clusters (86 % with 9 of 11
questions), and a whole question more than doubles the width without need. With one question per cluster, all three are
1. docs/comparison.md has the table of the measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from stages.lib.comparison.results import Interval
from stages.lib.statistics.shares import wilson_interval
from stages.lib.statistics.two_by_two import mcnemar_exact_p, mcnemar_score_p, tango_interval

PSEUDO = 1.5  # clusters added for each arm
POWER = 0.8  # of the test at the detectable difference


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
    """``difference`` as observed, its interval and p; how many questions only one of the two arms got right.

    interval      the method of the interval and of p; always pseudo-pairs where clusters repeat questions
    mcnemar_p     McNemar's exact p, which needs independent pairs: None where clusters repeat questions
    detectable    the smallest difference that this many clusters, with this discordance, detect with a probability of
                  80 %; None where there is only one cluster
    """

    difference: float
    low: float
    high: float
    interval: Interval
    p: float
    mcnemar_p: float | None
    only_first: int
    only_second: int
    n: int
    clusters: int
    detectable: float | None


def proportion(correct: Sequence[bool], confidence: float, clusters: Sequence[str] | None = None) -> Proportion:
    """The share of True and its Wilson interval; ``correct`` has at least one element.

    Where ``clusters`` repeat, Wilson's n is the number of independent questions with the same standard error (Kish's
    effective sample size), at most the number of questions.
    """
    right = np.asarray(correct, float)
    size = float(len(right))
    if clusters is not None and len(set(clusters)) < size:
        size = _effective_size(cluster_means(right, clusters), size)
    low, high = wilson_interval(right.mean() * size, size, confidence)
    return Proportion(float(right.mean()), low, high, int(right.sum()), len(right))


def _effective_size(means: NDArray[np.float64], n: float) -> float:
    share, variance = means.mean(), np.var(means, ddof=1) / len(means) if len(means) > 1 else 0.0
    return min(n, share * (1 - share) / variance) if variance else len(means)


def paired_difference(
    first: Sequence[bool],
    second: Sequence[bool],
    confidence: float,
    clusters: Sequence[str] | None = None,
    interval: Interval = "pseudo_pairs",
) -> PairedDifference:
    """First minus second over the same questions, in the same order; ValueError where the lengths differ."""
    if not len(first) == len(second) == len(clusters if clusters is not None else first):
        raise ValueError(f"one list is shorter than another: {len(first)} and {len(second)} answers")
    signs = np.asarray(first, float) - np.asarray(second, float)
    differences = signs if clusters is None else cluster_means(signs, clusters)
    only_first, only_second, n = int((signs > 0).sum()), int((signs < 0).sum()), len(signs)
    is_independent = len(differences) == n
    used: Interval = interval if is_independent else "pseudo_pairs"
    if used == "tango":
        low, high = tango_interval(only_first, only_second, n, confidence)
        p = mcnemar_score_p(only_first, only_second)
    else:
        low, high, p = mean_difference(differences, confidence)
    return PairedDifference(
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        interval=used,
        p=float(p),
        mcnemar_p=mcnemar_exact_p(only_first, only_second) if is_independent else None,
        only_first=only_first,
        only_second=only_second,
        n=n,
        clusters=len(differences),
        detectable=detectable_difference(differences, confidence),
    )


def cluster_means(values: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.float64]:
    """The mean of the values of each cluster, in the order of the clusters' names."""
    _, places, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.bincount(places, weights=values) / sizes
    return means


def mean_difference(differences: NDArray[np.float64], confidence: float) -> tuple[Any, Any, Any]:
    """The interval and p of the clusters' mean difference; each further axis holds independent samples."""
    sample = _with_pseudo_clusters(differences)
    low, high = sample.tconfint_mean(alpha=1 - confidence)
    _, p, _ = sample.ttest_mean(0)
    return np.maximum(low, -1), np.minimum(high, 1), p


def _with_pseudo_clusters(differences: NDArray[np.float64]) -> DescrStatsW:
    differing = np.count_nonzero(differences, axis=0)
    squares = np.sum(differences**2, axis=0) / np.maximum(differing, 1)
    distance = np.where(differing, squares**0.25, 1.0)[np.newaxis]  # none differs: as far as a whole question
    weights = [*np.ones(len(differences)), PSEUDO, PSEUDO]
    return DescrStatsW(np.concatenate([differences, distance, -distance]), weights=weights)


def detectable_difference(differences: NDArray[np.float64], confidence: float) -> float | None:
    """The smallest difference d that a t-test of this many clusters detects with a probability of 80 %.

    None where there is only one cluster. statsmodels gives the effect e that this power needs, in standard deviations.
    s² is the observed mean square of the clusters' differences, pseudo-clusters included; for single questions it is
    the share of discordant ones. A difference of d leaves a standard deviation of √(s² - d²), so d = e s / √(1 + e²).
    """
    sample = _with_pseudo_clusters(differences)
    effect = float(np.squeeze(TTestPower().solve_power(nobs=sample.nobs, alpha=1 - confidence, power=POWER)))
    difference = float(effect * np.sqrt((sample.var + sample.mean**2) / (1 + effect**2)).item())
    return difference if len(differences) > 1 else None


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values with Holm's correction for multiple tests, in the same order."""
    return [float(p) for p in multipletests(ps, method="holm")[1]] if ps else []
