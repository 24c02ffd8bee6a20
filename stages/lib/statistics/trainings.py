"""Read the differences between arms that were trained on several seeds (metrics/seeds.json, by ``make seeds``).

repeated_of(Path("metrics/seeds.json"), params).of("filtered", "base", "heldout")    → [0.32, 0.462, 0.3]

They count for an arm only as long as params.yaml says what it said then: a difference of other settings says nothing
about these. What may differ is what shapes no answer (``run``, ``report``, ``compare``, …) and the seeds themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.params import Params
from stages.lib.rows import DataError, read_json

ADVICE = "Run 'make seeds' to rebuild it, or 'git checkout metrics/seeds.json'."
SECTIONS = (
    "collect",
    "distill",
    "filter",
    "convert",
    "score",
    "train",
    "evaluate",
    "datasets",
    "arms",
)  # they shape an answer
APART = ("evaluate.churn",)  # this one does not


class Seeds(BaseModel):
    """metrics/seeds.json: for each pair and benchmark, one difference by seed, in the order of ``seeds``.

    varied       the keys of params.yaml that were the seed's
    params       the others, by key, as they were then
    questions    by benchmark, whether each seed had questions of its own
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: list[int]
    varied: list[str]
    params: dict[str, Any]
    questions: dict[str, str]
    scores: dict[str, dict[str, list[float]]]
    differences: dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Repeated:
    """The seeds, and the keys of params.yaml that are not as they were."""

    seeds: Seeds
    changed: list[str]

    def of(self, first: str, second: str, benchmark: str) -> list[float]:
        """The difference on each seed; empty where it was not measured, or with other params."""
        found = self.seeds.differences.get(f"{first}_vs_{second}", {}).get(benchmark, [])
        return [] if self.changed_for(first, second) else found

    def changed_for(self, *arms: str) -> list[str]:
        """The changed keys that these arms depend on: all but other arms'."""
        own = [f"arms.{arm}." for arm in arms]
        return [key for key in self.changed if not key.startswith("arms.") or any(key.startswith(arm) for arm in own)]


def repeated_of(path: Path, params: Params) -> Repeated:
    """The file, checked and compared with today's params."""
    try:
        seeds = Seeds.model_validate(read_json(path, ADVICE))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{path}: {where}: {error.errors()[0]['msg']}. {ADVICE}") from error
    now = shaping_params(params)
    return Repeated(seeds, [key for key, value in seeds.params.items() if now.get(key) != value])


def shaping_params(params: Params, varied: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every key that shapes an answer, such as ``train.finetuning.r``, with its value; without those in ``varied``."""
    every = params.model_dump(mode="json", include=set(SECTIONS))
    flat = {key: value for name in SECTIONS for key, value in _flat(every[name], name)}
    return {key: value for key, value in flat.items() if key not in varied and not key.startswith(APART)}


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}")
    else:
        yield key, value
