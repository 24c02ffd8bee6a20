"""The interval of one share.

wilson_interval(3, 35, 0.95) → (0.0296, 0.2238)
"""


def wilson_interval(count: float, of: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of ``count / of``; ``of`` is above 0 and may be an effective sample size."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, of, alpha=1 - confidence, method="wilson")
    return float(low), float(high)
