"""``collect`` and ``eval_data``: the questions, and the sources of public data."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.lib.params.base import Count, FilePath, Section, Seed, Text
from stages.lib.params.tables import Gold, InFile, InHub, InModelScope, InPreset, Published, Where

PublicBenchmark = Literal["gsm8k", "mgsm", "mmlu"]  # those whose files we read


class ChainSum(Section):
    """Generated sums and differences (reasoning-gym ``chain_sum``). The seed of a question is ``seed + index``."""

    kind: Literal["chain_sum"]
    seed: Seed
    heldout_seed: Seed
    min_terms: Annotated[int, Field(ge=2)]
    max_terms: Annotated[int, Field(ge=2)]
    min_digits: Count
    max_digits: Count

    @model_validator(mode="after")
    def _smallest_first(self) -> "ChainSum":
        if self.min_terms > self.max_terms or self.min_digits > self.max_digits:
            raise ValueError("a minimum is above its maximum. Swap them")
        return self


class Columns(Section):
    """Which column holds what; ``messages.0.content`` is a path into one. ``id`` null: the rows are numbered."""

    question: Text
    answer: Text
    solution: Text | None
    id: Text | None


class _Rows(Section):
    """Which rows are taken: those whose columns hold the values of ``where``; shuffled where there is a seed."""

    where: Where
    shuffle_seed: Seed | None


class _Table(_Rows):
    columns: Columns
    gold: Gold


class FileSource(InFile, _Table):
    """Questions of a file, a glob or a URL."""


class HubSource(InHub, _Table):
    """Questions of a dataset of a hub."""


class ModelScopeSource(InModelScope, _Table):
    """Questions of a dataset of ModelScope."""


class PresetSource(InPreset, _Rows):
    """Questions of a public set that a file of stages/presets describes."""


Source = Annotated[
    ChainSum | FileSource | HubSource | ModelScopeSource | PresetSource,
    Field(discriminator="kind"),
]


class Preset(Published):
    """A file of stages/presets: where a public set is published, and what its columns hold."""

    columns: Columns
    gold: Gold


class Contamination(Section):
    """How many consecutive words count as an overlap with a benchmark, and the paths of the benchmarks' official files.

    A benchmark that is not named is not checked, and the metrics say so.
    """

    ngram: Count
    benchmarks: dict[PublicBenchmark, FilePath]


class Collect(Section):
    """The questions: the first ``train_size`` of the source, and ``heldout_size`` others for evaluation.

    Held-out questions are the last ones of the source or, where ``heldout_source`` is not null, the first ones of that.
    Questions that are left out of a set are not replaced: the set is then smaller.
    """

    source: Source
    heldout_source: Source | None
    train_size: Count
    heldout_size: Annotated[int, Field(ge=0)]
    contamination: Contamination


class BenchmarkSource(Section):
    """Where a benchmark's files come from: a dataset's id on a hub or on ModelScope, or a folder."""

    origin: Literal["hub", "modelscope", "folder"]
    path: FilePath
    revision: str | None


# the public benchmarks to download, for an evaluation without a network
EvalData = dict[PublicBenchmark, BenchmarkSource]
