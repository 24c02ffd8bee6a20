"""Measure the coverage and width of the comparison's interval, next to those of the plain paired t.

Each cell is 2,000 samples with one seed, through the function that the comparison uses. A share of the questions is
discordant:

    one-sided    all of them fall to one arm
    mixed        they fall to either arm equally often
    70/30        between the two

Clustered means 11 questions per problem. A problem's share of discordant questions is drawn from a beta distribution
(correlation RHO within a problem), and all of them fall to one arm, which is the hardest case. ``clustered`` has n
problems; ``few`` has so few problems that they have n questions.

    python -m benchmarks.coverage    # prints the tables of docs/comparison.md, in half a minute
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks.measuring import table
from stages.lib.statistics.paired import mean_difference

CONFIDENCE = 0.95
DRAWS = 2000
SIZES = (100, 250, 1319)
DISCORDANCES = (0.03, 0.1, 0.3)
SPLITS = {"one-sided": 1.0, "70/30": 0.7, "mixed": 0.5}  # the share that falls to the first arm
QUESTIONS = 11  # per problem: the languages of MGSM
RHO = 0.3
SEED = 3


@dataclass(frozen=True)
class Cell:
    """A population: the clusters, the questions in each, the share of discordant ones, and how these split."""

    clusters: int
    questions: int
    discordance: float
    split: str
    rho: float = RHO

    @property
    def difference(self) -> float:
        """The true difference."""
        return self.discordance * (2 * SPLITS[self.split] - 1)


@dataclass(frozen=True)
class Measured:
    """The result of a cell: the share of samples whose interval contains the true difference, and the mean widths."""

    coverage: float
    width: float
    plain_coverage: float
    plain_width: float


def cells(kind: str) -> Iterator[Cell]:
    """The 27 cells of a kind: ``single`` questions, ``clustered`` (n problems) or ``few`` (n questions in all)."""
    for n, discordance, split in product(SIZES, DISCORDANCES, SPLITS):
        clusters = round(n / QUESTIONS) if kind == "few" else n
        yield Cell(clusters, 1 if kind == "single" else QUESTIONS, discordance, split)


def measure(cell: Cell, draws: int = DRAWS, seed: int = SEED) -> Measured:
    """Draw samples of the cell and compute the interval of each."""
    sample = draw(cell, draws, np.random.default_rng(seed))
    low, high, _ = mean_difference(sample, CONFIDENCE)
    plain_low, plain_high = DescrStatsW(sample).tconfint_mean(alpha=1 - CONFIDENCE)
    return Measured(
        coverage=float(np.mean((low <= cell.difference) & (cell.difference <= high))),
        width=float(np.mean(high - low)),
        plain_coverage=float(np.mean((plain_low <= cell.difference) & (cell.difference <= plain_high))),
        plain_width=float(np.mean(plain_high - plain_low)),
    )


def draw(cell: Cell, draws: int, random: np.random.Generator) -> NDArray[np.float64]:
    """The clusters' mean differences, one column per sample."""
    shape = (cell.clusters, draws)
    shares = np.full(shape, cell.discordance)
    if cell.questions > 1 and cell.rho:
        spread = (1 - cell.rho) / cell.rho
        shares = random.beta(cell.discordance * spread, (1 - cell.discordance) * spread, shape)
    signs = np.where(random.random(shape) < SPLITS[cell.split], 1, -1)
    means: NDArray[np.float64] = signs * random.binomial(cell.questions, shares) / cell.questions
    return means


def rows(kind: str) -> list[list[str]]:
    """For each n and discordance: coverage (mean width in points) by split, ours and then the plain t's."""
    measured = {(cell.clusters, cell.discordance, cell.split): measure(cell) for cell in cells(kind)}
    places = dict.fromkeys((clusters, discordance) for clusters, discordance, _ in measured)
    return [
        [str(n), f"{share * 100:g} %", *(_shown(measured[n, share, split]) for split in SPLITS)] for n, share in places
    ]


def _shown(cell: Measured) -> str:
    ours = f"**{cell.coverage * 100:.1f}** ({cell.width * 100:.1f})"
    return f"{ours}, {cell.plain_coverage * 100:.1f} ({cell.plain_width * 100:.1f})"


if __name__ == "__main__":
    for kind in ("single", "clustered", "few"):
        print(f"{kind}\n\n{table(['n', 'discordant', *SPLITS], rows(kind))}\n")
