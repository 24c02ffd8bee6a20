"""Ranges, and the unit costs of units.yaml.

units.take("answer_tokens", "gsm8k")    → Range(1000, 1140, 1500), of answer_tokens.gsm8k
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from ruamel.yaml import YAML

from stages.lib.params import Section

FILE = Path(__file__).with_name("units.yaml")


@dataclass(frozen=True)
class Range:
    """A low, a middle and a high value."""

    low: float
    mid: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        by = other if isinstance(other, Range) else exactly(other)
        return Range(self.low * by.low, self.mid * by.mid, self.high * by.high)

    def over(self, other: "Range | float") -> "Range":
        """The quotient: the low end is divided by the high one."""
        by = other if isinstance(other, Range) else exactly(other)
        return Range(self.low / by.high, self.mid / by.mid, self.high / by.low)

    def at_most(self, limit: "Range | float") -> "Range":
        """Nothing above the limit."""
        by = limit if isinstance(limit, Range) else exactly(limit)
        return Range(min(self.low, by.low), min(self.mid, by.mid), min(self.high, by.high))

    def at_least(self, limit: "Range | float") -> "Range":
        """Nothing below the limit."""
        by = limit if isinstance(limit, Range) else exactly(limit)
        return Range(max(self.low, by.low), max(self.mid, by.mid), max(self.high, by.high))


def exactly(value: float) -> Range:
    """A value that is known."""
    return Range(value, value, value)


NOTHING = exactly(0)


class Unit(Section):
    """A unit cost and its source."""

    low: Annotated[float, Field(ge=0)]
    mid: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]
    kind: Literal["measured", "vendor", "literature", "assumed"]
    source: Annotated[str, Field(min_length=10)]

    @property
    def range(self) -> Range:
        """Its values."""
        return Range(self.low, self.mid, self.high)

    @model_validator(mode="after")
    def _in_order(self) -> "Unit":
        if not self.low <= self.mid <= self.high:
            raise ValueError("low, mid and high are not in this order")
        return self


def load_units() -> dict[str, Unit]:
    """All units, by name."""
    return {name: Unit.model_validate(value) for name, value in YAML(typ="safe").load(FILE.read_bytes()).items()}


class Units:
    """The units of one plan; ``used`` are those that were taken, with the values that a run's metrics replaced."""

    def __init__(self, measured: Mapping[str, Unit]) -> None:
        self._measured = measured
        self._units = load_units() | dict(measured)
        self.used: dict[str, Unit] = {}

    def take(self, name: str, variants: Sequence[str] = ()) -> Range:
        """The value that a run measured, or that of the first variant there is, or the general one."""
        keys = [] if name in self._measured else [f"{name}.{each}" for each in variants]
        return self._used(next((key for key in keys if key in self._units), name))

    def measured(self, name: str) -> Range | None:
        """The value that a run measured; None without one."""
        return self._used(name) if name in self._measured else None

    def _used(self, key: str) -> Range:
        unit = self.used[key] = self._units[key]
        return unit.range
