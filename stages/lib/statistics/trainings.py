"""Read the differences between arms that were trained on several seeds (metrics/seeds.json, by ``make seeds``).

read_seeds(Path("metrics/seeds.json"), Path("metrics/eval"), arms).of("filtered", "base", "heldout")
→ [0.32, 0.462, 0.3]

One of the seeds is the run of params.yaml as it stands. The file names its scores by their hash. They count as long as
metrics/eval has the same scores: those of another run, whatever changed it, say nothing about this one.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.rows import DataError, read_json

DRAWN, SAME = "drawn again", "the same"  # a benchmark's questions on each seed
ADVICE = "Run 'make seeds' to rebuild it, or 'git checkout metrics/seeds.json'."


class Seeds(BaseModel):
    """metrics/seeds.json: for each pair and benchmark, one difference by seed, in the order of ``seeds``.

    varied       the keys of params.yaml that were the seed's
    own          by arm, the hash of its scores in the run of the params file as it was
    questions    by benchmark, whether each seed had questions of its own: "drawn again" or "the same"
    errors       as differences: the standard error of one training's difference by its questions, over all seeds;
                 0 where all have the same questions
    divergence   by on-policy arm, for each seed the divergence from its teacher at each step
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: list[str]
    varied: list[str]
    own: dict[str, str]
    questions: dict[str, str]
    scores: dict[str, dict[str, list[float]]]
    differences: dict[str, dict[str, list[float]]]
    errors: dict[str, dict[str, float]] = {}  # older files have neither
    divergence: dict[str, list[list[float]]] = {}


@dataclass(frozen=True)
class Repeated:
    """The seeds, and the arms whose scores today are those of the file's own run."""

    seeds: Seeds
    same: set[str]

    def of(self, first: str, second: str, benchmark: str) -> list[float]:
        """The difference on each seed; empty where it was not measured, or belongs to another run."""
        found = self.seeds.differences.get(f"{first}_vs_{second}", {}).get(benchmark, [])
        return found if {first, second} <= self.same else []

    def is_of_another_run(self, first: str, second: str) -> bool:
        """Whether the file has this pair, of arms with other scores."""
        return f"{first}_vs_{second}" in self.seeds.differences and not {first, second} <= self.same


def read_seeds(path: Path, eval_path: Path, arms: Iterable[str]) -> Repeated:
    """The file, checked and compared with today's scores of the arms."""
    try:
        seeds = Seeds.model_validate(read_json(path, ADVICE))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{path}: {where}: {error.errors()[0]['msg']}. {ADVICE}") from error
    return Repeated(seeds, {arm for arm in arms if seeds.own.get(arm) == scores_hash(eval_path, arm)})


def scores_hash(eval_path: Path, arm: str) -> str:
    """The first 12 hex digits of the SHA-256 of ARM.scores.csv: right or wrong, by question."""
    return hashlib.sha256((eval_path / f"{arm}.scores.csv").read_bytes()).hexdigest()[:12]
