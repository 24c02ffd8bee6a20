"""The geometry of the page's charts, in per cent of the plot's width and height; template.html draws it.

Scale.around([0.0, 31.4])  → 0 to 40, ticks at 0, 10, 20, 30, 40
Scale.around([…]).at(20)   → 50.0
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from stages.lib.page.metrics import LengthPoint, LossPoint

NICE_STEPS = (1, 2, 5, 10)
MOST_POWERS = 8  # of two, as ticks: more have no room on a telephone
MOST_FINE_POINTS = 4000  # of a curve with a zoom
MOST_POINTS = 240  # of a curve: a screen cannot show more


@dataclass(frozen=True)
class Tick:
    """A labelled position on a scale."""

    at: float
    label: str
    is_zero: bool


@dataclass(frozen=True)
class Scale:
    """A linear scale between two round numbers."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float], most_steps: int = 5) -> "Scale":
        """The scale that holds all values, in at most ``most_steps`` (or one more) steps of 1, 2 or 5 times 10ⁿ."""
        span = max(values) - min(values)
        rough = (span or abs(values[0]) or 1) / most_steps
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(nice for nice in NICE_STEPS if nice * power >= rough * (1 - 1e-9))
        low, high = math.floor(min(values) / step + 1e-9) * step, math.ceil(max(values) / step - 1e-9) * step
        return cls(low, high if high > low else low + step, step)

    def at(self, value: float) -> float:
        """The position of a value, in per cent from the low end."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[Tick]:
        """One for each step, labelled with the decimals that the step needs."""
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        values = [self.low + index * self.step for index in range(round((self.high - self.low) / self.step) + 1)]
        return [Tick(self.at(value), _number(value, decimals), abs(value) < self.step / 2) for value in values]


@dataclass(frozen=True)
class Whisker:
    """A dot with its interval, in per cent from the left."""

    low: float
    dot: float
    high: float


@dataclass(frozen=True)
class IntervalChart:
    """One whisker for each row of a table, and their common scale."""

    scale: Scale
    whiskers: list[Whisker]


def interval_chart(intervals: Sequence[tuple[float, float, float]], with_zero: bool = False) -> IntervalChart:
    """The chart of shares ``(low, value, high)``, shown in per cent; ``with_zero`` includes 0 in the scale."""
    percents = [[100 * number for number in interval] for interval in intervals]
    scale = Scale.around([*(number for interval in percents for number in interval), *([0.0] if with_zero else [])])
    return IntervalChart(scale, [Whisker(*(scale.at(number) for number in interval)) for interval in percents])


@dataclass(frozen=True)
class Curve:
    """An arm's line as an SVG path in a box of 100 × 100, and where it ends."""

    path: str
    end_x: float
    end_y: float


@dataclass(frozen=True)
class LossChart:
    """The arms' curves in one plot; an arm without a finite loss has no curve."""

    x: Scale
    y: Scale
    curves: dict[str, Curve]
    is_thinned: bool


def loss_chart(losses: Mapping[str, Sequence[LossPoint]]) -> LossChart | None:
    """The chart of all arms' losses by step, starting at 0; None where there is nothing to draw."""
    finite = {name: [point for point in points if math.isfinite(point.loss)] for name, points in losses.items()}
    lines = {name: _thinned(points) for name, points in finite.items() if points}
    if not lines:
        return None
    x = Scale.around([0, *(step for line in lines.values() for step, _ in line)])
    y = Scale.around([0, *(loss for line in lines.values() for _, loss in line)])
    is_thinned = any(len(line) < len(finite[name]) for name, line in lines.items())
    return LossChart(x, y, {name: _curve(line, x, y) for name, line in lines.items()}, is_thinned)


@dataclass(frozen=True)
class Cutoff:
    """A cutoff_len, the arms that have it, and its position."""

    tokens: int
    arms: list[str]
    at: float


@dataclass(frozen=True)
class LengthChart:
    """The share of each dataset's conversations up to a length, on a scale of powers of two, and the cutoffs."""

    x: list[Tick]
    y: Scale
    curves: dict[str, str]
    cutoffs: list[Cutoff]


def length_chart(lengths: Mapping[str, Sequence[LengthPoint]], cutoffs: Mapping[int, list[str]]) -> LengthChart | None:
    """The chart of the lengths against each cutoff_len; None where there is nothing to draw."""
    if not lengths:
        return None
    tokens = [max(1, point.tokens) for points in lengths.values() for point in points]
    low, high = math.floor(math.log2(min([*tokens, *cutoffs]))), math.ceil(math.log2(max([*tokens, *cutoffs])))
    high = max(high, low + 1)

    def at(value: int) -> float:
        return round(100 * (math.log2(max(1, value)) - low) / (high - low), 2)

    stride = math.ceil((high - low) / MOST_POWERS)
    ticks = [Tick(at(2**power), f"{2**power:,}", False) for power in range(low, high + 1, stride)]
    curves = {name: _steps([(at(point.tokens), point.share) for point in points]) for name, points in lengths.items()}
    shown = [Cutoff(value, arms, at(value)) for value, arms in cutoffs.items()]
    return LengthChart(ticks, Scale(0, 100, 25), curves, shown)


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """The line from 0 % through the points and along 100 %."""
    places = [
        (0.0, 100.0),
        (points[0][0], 100.0),
        *((x, round(100 * (1 - share), 2)) for x, share in points),
        (100.0, 0.0),
    ]
    return "M" + "L".join(f"{across:g},{down:g}" for across, down in places)


def fine_curve(points: Sequence[LossPoint]) -> list[tuple[float, float]]:
    """Step and loss of a curve into which a reader can zoom."""
    found = _thinned([point for point in points if math.isfinite(point.loss)], MOST_FINE_POINTS)
    return [(step, round(loss, 6)) for step, loss in found]


def _thinned(points: Sequence[LossPoint], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Step and loss; a curve with too many points is reduced to the means of adjacent ones."""
    stride = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(fmean(point.step for point in group), fmean(point.loss for point in group)) for group in groups]


def _curve(line: Sequence[tuple[float, float]], x: Scale, y: Scale) -> Curve:
    places = [(x.at(step), round(100 - y.at(loss), 2)) for step, loss in line]
    return Curve("M" + "L".join(f"{across:g},{down:g}" for across, down in places), *places[-1])


def _number(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")
