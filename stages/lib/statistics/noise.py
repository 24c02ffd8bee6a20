"""How large a difference is that no training made: churn, and other trainings of the same arms.

churn_alone(Churn(n=100, flipped=3, …), Churn(n=100, flipped=1, …), of=200, confidence=0.95)
→ ChurnOfPair(first=…, second=…, alone=0.0277, alone_at_most=0.0521)
over_trainings([0.09, 0.166, -0.005], 0.95)    → (0.0837, -0.1289, 0.2962)
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from statsmodels.stats.weightstats import DescrStatsW

from stages.lib.comparison.results import Churn, ChurnOfPair
from stages.lib.statistics.shares import wilson_interval


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


def over_trainings(differences: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The mean of one difference by training, and its Student's t interval; two trainings or more.

    Each training is one observation, so there are as many degrees of freedom as trainings, less one. With three, the
    half-width is 2.5 standard deviations of the differences, with two 9, with five 1.2, with ten 0.7.
    """
    sample = DescrStatsW(list(differences))
    low, high = sample.tconfint_mean(alpha=1 - confidence)
    return float(sample.mean), max(float(low), -1.0), min(float(high), 1.0)
