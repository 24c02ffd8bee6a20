"""How large a difference is that no training made: churn, and other trainings of the same arms.

churn_alone(Churn(n=100, flipped=3, …), Churn(n=100, flipped=1, …), of=200, confidence=0.95)
→ ChurnOfPair(first=…, second=…, alone=0.0277, alone_at_most=0.0521)
over_trainings([0.09, 0.166, -0.005], 0.95)         → OverTrainings(mean=0.0837, low=-0.1289, high=0.2962, …)
over_trainings([0.1, 0.1, 0.1], 0.95)               → OverTrainings(mean=0.1, low=None, high=None, spread="none")
over_trainings([0.1, 0.1, 0.1], 0.95, error=0.034)  → OverTrainings(mean=0.1, low=0.0155, …, spread="questions")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from scipy.stats import t as student_t
from statsmodels.stats.weightstats import DescrStatsW

from stages.lib.comparison.results import Churn, ChurnOfPair, Spread
from stages.lib.statistics.shares import wilson_interval

SMALLEST = 1e-9  # a standard deviation below it is 0 but for rounding


def churn_alone(first: Churn, second: Churn, of: int, confidence: float) -> ChurnOfPair | None:
    """The churn of two arms, and how far it alone moves their difference on ``of`` questions; None without scores.

    A flip changes the score of its question by one, up or down. If a question flips with probability p, independently
    of the others, the score of ``of`` questions changes between two passes by a standard deviation of √(p / of), and
    the difference of two arms by √((p₁ + p₂) / of). ``alone`` is the normal quantile times that, with the observed
    shares as p; ``alone_at_most`` takes the upper ends of their Wilson intervals.
    """
    if first.flipped is None or second.flipped is None:
        return None
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    shares = first.flipped / first.n + second.flipped / second.n
    limits = sum(wilson_interval(each.flipped or 0, each.n, confidence)[1] for each in (first, second))
    return ChurnOfPair(
        first=first,
        second=second,
        alone=round(quantile * sqrt(shares / of), 4),
        alone_at_most=round(quantile * sqrt(limits / of), 4),
    )


@dataclass(frozen=True)
class OverTrainings:
    """The mean of one difference over several trainings, and its interval, None where no spread was seen.

    ``spread``: whether the trainings themselves give the width, the choice of their questions, or nothing.
    """

    mean: float
    low: float | None
    high: float | None
    spread: Spread


def over_trainings(differences: Sequence[float], confidence: float, error: float = 0.0) -> OverTrainings:
    """The mean of one difference by training, and its Student's t interval; two trainings or more.

    Each training is one observation, so there are as many degrees of freedom as trainings, less one. With three, the
    half-width is 2.5 standard deviations of the differences, with two 9, with five 1.2, with ten 0.7.

    ``error``: the standard error of one training's difference by the choice of its questions, where each training has
    questions of its own; else 0. The differences vary by that much at least, so where they happen to lie closer
    together, it replaces their standard deviation.
    """
    sample = DescrStatsW(list(differences))
    mean, seen = float(sample.mean), float(sample.std) * sqrt(sample.nobs / (sample.nobs - 1))
    if max(seen, error) < SMALLEST:
        return OverTrainings(mean, None, None, "none")
    half = float(student_t.ppf((1 + confidence) / 2, sample.nobs - 1)) * max(seen, error) / sqrt(sample.nobs)
    spread: Spread = "trainings" if seen >= error else "questions"
    return OverTrainings(mean, max(mean - half, -1.0), min(mean + half, 1.0), spread)


def error_of(difference: float, low: float, high: float, confidence: float) -> float:
    """The standard error of a difference by its interval, of which one end may have been cut at ±1."""
    return max(high - difference, difference - low) / NormalDist().inv_cdf((1 + confidence) / 2)
