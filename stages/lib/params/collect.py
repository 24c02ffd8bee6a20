"""``collect``, ``collect_s1k`` and ``eval_data``: the questions, and the sources of public data."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.lib.params.base import Count, FilePath, Section, Seed

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


class Gsm8k(Section):
    """Where GSM8K comes from: ModelScope (``path`` a dataset id or a folder in its layout) or the official JSONL."""

    kind: Literal["gsm8k"]
    origin: Literal["modelscope", "jsonl"]
    path: str
    split: Literal["train", "test"]


Source = Annotated[ChainSum | Gsm8k, Field(discriminator="kind")]


class Contamination(Section):
    """How many consecutive words count as an overlap with a benchmark, and the paths of the benchmarks' official files.

    A benchmark that is not named is not checked, and the metrics say so.
    """

    ngram: Count
    benchmarks: dict[PublicBenchmark, FilePath]


class Collect(Section):
    """The questions: the first ``train_size`` of the source, and ``heldout_size`` others for evaluation.

    Questions that are left out of a set are not replaced: the set is then smaller.
    """

    source: Source
    train_size: Count
    heldout_size: Annotated[int, Field(ge=0)]
    contamination: Contamination


class S1k(Section):
    """Where s1K-1.1 comes from: an id on a hub or on ModelScope, or a local file (.parquet or .jsonl)."""

    origin: Literal["hub", "modelscope", "file"]
    path: FilePath


class BenchmarkSource(Section):
    """Where a benchmark's files come from: a dataset's id on a hub or on ModelScope, or a folder."""

    origin: Literal["hub", "modelscope", "folder"]
    path: FilePath
    revision: str | None


# the public benchmarks to download, for an evaluation without a network
EvalData = dict[PublicBenchmark, BenchmarkSource]
