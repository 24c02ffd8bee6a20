"""Compare pseudo-pairs, Tango's score interval and McNemar's exact test: on 20 tables, and by their error rates.

    python -m benchmarks.intervals    # prints three tables of docs/comparison.md, in a few seconds

The first table is computed with the functions that ``compare`` uses. The other two are exact: sums over all tables of n
pairs, weighted by their probability. They need only whether an interval contains the true difference, and no random
draw.
"""

from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.measuring import table
from stages.lib.comparison.results import Interval
from stages.lib.comparison.table import p_value, points, signed
from stages.lib.statistics.paired import PSEUDO, PairedDifference, paired_difference
from stages.lib.statistics.two_by_two import score_terms

CONFIDENCE = 0.95
SIZES = (100, 250, 1319)
DISCORDANCES = (0.03, 0.1, 0.3)
SPLITS = {"all to one": 1.0, "90/10": 0.9, "70/30": 0.7, "even": 0.5}
NEGLIGIBLE = 1e-12  # the probability that is left out at either end of a population's tables
HEADS = ["first : second", "n", "points", "pseudo-pairs", "p", "Tango", "p (score)", "p (exact)", "table of"]
COVERAGE_HEADS = ["n", "discordant", *SPLITS]
FALSE_FINDING_HEADS = ["n", "discordant", "pseudo-pairs", "Tango", "McNemar exact"]


@dataclass(frozen=True)
class Pairs:
    """``n`` independent pairs: how many only the first and only the second got right, and the table's source."""

    only_first: int
    only_second: int
    n: int
    source: str = ""


TABLES = [
    Pairs(9, 3, 32, "Tango 1998"),
    Pairs(0, 1, 44, "Tango 1998"),
    Pairs(16, 8, 86, "Agresti and Min 2005"),
    Pairs(1, 7, 21, "Bentur 2009"),
    Pairs(6, 16, 161, "Cavo 2012"),
    Pairs(12, 2, 50, "Armitage and Berry 1994"),
    Pairs(150, 86, 1600, "Agresti 1990"),
    Pairs(0, 0, 100),
    Pairs(3, 0, 100),
    Pairs(5, 0, 100),
    Pairs(6, 0, 100),
    Pairs(8, 2, 100),
    Pairs(15, 5, 200),
    Pairs(20, 9, 200),
    Pairs(65, 2, 200),
    Pairs(30, 15, 250),
    Pairs(7, 0, 1319),
    Pairs(58, 38, 1319),
    Pairs(160, 120, 1319),
    Pairs(1480, 1370, 14042),
]


def compared(pairs: Pairs, interval: Interval) -> PairedDifference:
    """The result of ``compare`` for such pairs."""
    both = pairs.n - pairs.only_first - pairs.only_second
    first = [True] * (both + pairs.only_first) + [False] * pairs.only_second
    second = [True] * both + [False] * pairs.only_first + [True] * pairs.only_second
    return paired_difference(first, second, CONFIDENCE, interval=interval)


def rows() -> list[list[str]]:
    """The 20 tables: for each the difference, the two intervals with their p, and McNemar's exact p."""
    return [_row(pairs) for pairs in TABLES]


def _row(pairs: Pairs) -> list[str]:
    ours, tango = compared(pairs, "pseudo_pairs"), compared(pairs, "tango")
    return [
        f"{pairs.only_first} : {pairs.only_second}",
        str(pairs.n),
        signed(ours.difference),
        *(_interval(ours), p_value(ours.p)),
        *(_interval(tango), p_value(tango.p), p_value(tango.mcnemar_p)),
        pairs.source or "–",
    ]


def _interval(found: PairedDifference) -> str:
    return f"{signed(found.low)} – {signed(found.high)}"


@dataclass(frozen=True)
class AllTables:
    """All tables of n pairs that a population can produce, with their probabilities."""

    n: int
    only_first: NDArray[np.int64]
    only_second: NDArray[np.int64]
    probability: NDArray[np.float64]

    @classmethod
    def of(cls, n: int, discordance: float, split: float) -> "AllTables":
        """All tables of n pairs; ``discordance`` and ``split`` are the probabilities that a pair is discordant, and
        that a discordant pair falls to the first arm."""
        low, high = stats.binom.ppf([NEGLIGIBLE, 1 - NEGLIGIBLE], n, discordance).astype(int)
        discordant = np.repeat(np.arange(low, high + 1), np.arange(low, high + 1) + 1)
        starts = np.flatnonzero(np.diff(discordant, prepend=low - 1))
        only_first = np.arange(len(discordant)) - np.repeat(starts, np.arange(low, high + 1) + 1)
        chance = stats.binom.pmf(discordant, n, discordance) * stats.binom.pmf(only_first, discordant, split)
        likely = chance > NEGLIGIBLE / len(chance)
        return cls(n, only_first[likely], (discordant - only_first)[likely], chance[likely])

    def holds(self, interval: Interval, difference: float) -> NDArray[np.bool_]:
        """For each table, whether the interval contains that difference."""
        if interval == "tango":
            distance, variance = score_terms(self.only_first, self.only_second, self.n, difference)
            limit = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        else:
            size = self.n + 2 * PSEUDO
            mean = (self.only_first - self.only_second) / size
            square = (self.only_first + self.only_second + 2 * PSEUDO) / size - mean**2
            distance, variance = mean - difference, square / (size - 1)
            limit = float(stats.t.ppf((1 + CONFIDENCE) / 2, size - 1))
        found: NDArray[np.bool_] = distance**2 <= limit**2 * variance
        return found

    def exact_ps(self) -> NDArray[np.float64]:
        """McNemar's exact p of each table."""
        discordant, fewer = self.only_first + self.only_second, np.minimum(self.only_first, self.only_second)
        ps: NDArray[np.float64] = np.minimum(1, 2 * stats.binom.cdf(fewer, discordant, 0.5))
        return ps

    def share(self, which: NDArray[np.bool_]) -> float:
        """The probability of those tables."""
        return float(self.probability[which].sum() / self.probability.sum())


def coverages() -> dict[tuple[int, float, str], tuple[float, float]]:
    """By n, discordance and split: how often pseudo-pairs and Tango's interval contain the true difference."""
    found = {}
    for n, discordance, split in product(SIZES, DISCORDANCES, SPLITS):
        tables, difference = AllTables.of(n, discordance, SPLITS[split]), discordance * (2 * SPLITS[split] - 1)
        ours, tango = tables.holds("pseudo_pairs", difference), tables.holds("tango", difference)
        found[n, discordance, split] = (tables.share(ours), tables.share(tango))
    return found


def false_findings() -> dict[tuple[int, float], tuple[float, float, float]]:
    """By n and discordance: how often equal arms have p < 0.05, by our p, Tango's and McNemar's exact one."""
    found = {}
    for n, discordance in product(SIZES, DISCORDANCES):
        tables = AllTables.of(n, discordance, 0.5)
        intervals = (tables.share(~tables.holds("pseudo_pairs", 0)), tables.share(~tables.holds("tango", 0)))
        found[n, discordance] = (*intervals, tables.share(tables.exact_ps() < 1 - CONFIDENCE))
    return found


def coverage_rows() -> list[list[str]]:
    """For each n and discordance, the two coverages in per cent by split."""
    shown = {place: f"{points(ours)}, {points(tango)}" for place, (ours, tango) in coverages().items()}
    return [[str(n), f"{share * 100:g} %", *(shown[n, share, split] for split in SPLITS)] for n, share in _places()]


def false_finding_rows() -> list[list[str]]:
    """For each n and discordance, the shares of false findings in per cent."""
    shown = false_findings()
    return [[str(n), f"{share * 100:g} %", *map(points, shown[n, share])] for n, share in _places()]


def _places() -> list[tuple[int, float]]:
    return list(product(SIZES, DISCORDANCES))


if __name__ == "__main__":
    print(table(HEADS, rows()), end="\n\n")
    print(table(COVERAGE_HEADS, coverage_rows()), end="\n\n")
    print(table(FALSE_FINDING_HEADS, false_finding_rows()))
