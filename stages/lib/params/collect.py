"""``collect`` and ``eval_data``: the questions, and the sources of public data.

``collect.keep_hard`` is read by the stage ``difficulty``.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.lib.params.base import Count, FilePath, NotNegative, Section, Seed, Share, Text
from stages.lib.params.tables import Gold, InFile, InHub, InModelScope, InPreset, Published, Where
from stages.lib.params.teacher import ServedTeacher

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
    """Which column holds what; those that a table has are named. ``messages.0.content`` is a path into one.

    Without ``id`` the rows are numbered. Without ``answer`` there are no gold answers, and ``gold`` is null.

    ``history`` holds the earlier turns of the question's conversation, as OpenAI's messages or ShareGPT's turns.
    Without ``question`` it holds the whole conversation, whose last user turn is the question. ``system`` holds a
    system text of the row's own; without it that is the one at the start of ``history``, if any.
    """

    question: Text | None = None
    answer: Text | None = None
    solution: Text | None = None
    id: Text | None = None
    history: Text | None = None
    system: Text | None = None

    @model_validator(mode="after")
    def _some_question(self) -> "Columns":
        if self.question is None and self.history is None:
            raise ValueError(
                "neither question nor history is named, so there is no question. Name the column of one of them"
            )
        return self


class _Rows(Section):
    """Which rows are taken: those whose columns hold the values of ``where``; shuffled where there is a seed."""

    where: Where
    shuffle_seed: Seed | None


def _check_gold(columns: Columns, gold: Gold | None) -> None:
    if columns.answer is None and gold is not None:
        raise ValueError(f"gold is {gold}, but columns names no answer. Name its column, or set gold: null")
    if columns.answer is not None and gold is None:
        raise ValueError("gold is null, but columns.answer names a column. Set gold: plain, or remove columns.answer")


class _Table(_Rows):
    columns: Columns
    gold: Gold | None

    @model_validator(mode="after")
    def _gold_fits(self) -> "_Table":
        _check_gold(self.columns, self.gold)
        return self


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
    gold: Gold | None

    @model_validator(mode="after")
    def _gold_fits(self) -> "Preset":
        _check_gold(self.columns, self.gold)
        return self


class Contamination(Section):
    """How many consecutive words count as an overlap with a benchmark, and the paths of the benchmarks' official files.

    With ``downloaded``, also each benchmark that ``eval_data`` downloads and that is not named. Any other benchmark is
    not checked, and the metrics say so.
    """

    ngram: Count
    benchmarks: dict[PublicBenchmark, FilePath]
    downloaded: bool


class NearDuplicateParams(Section):
    """How near-duplicates are found: runs of ``ngram`` tokens, of which two questions share ``threshold`` of all.

    ``permutations`` is the length of a MinHash; a low threshold needs more of them. ``seed`` draws them.
    """

    ngram: Count
    threshold: Annotated[float, Field(gt=0, le=1)]
    permutations: Annotated[int, Field(ge=16, le=4096)]
    seed: Seed


class LoadedStudent(Section):
    """transformers loads the untrained student (``train.student``) in this process; one card.

    ``top_p`` null: as the student's generation_config.json says. The seed is that of the sampling.
    """

    kind: Literal["hf"]
    temperature: NotNegative
    top_p: Share | None
    max_tokens: Count
    batch_size: Count
    dtype: Literal["float32", "bfloat16", "float16"]
    seed: Seed


UntrainedStudent = Annotated[LoadedStudent | ServedTeacher, Field(discriminator="kind")]


class KeepHard(Section):
    """Keep the questions that the untrained student answers right in at most ``max_solved`` of ``samples`` answers."""

    samples: Count
    max_solved: Annotated[int, Field(ge=0)]
    backend: UntrainedStudent

    @model_validator(mode="after")
    def _can_differ(self) -> "KeepHard":
        if self.max_solved > self.samples:
            raise ValueError(f"max_solved is above samples, {self.samples}. Lower it; equal, it keeps every question")
        if self.samples > 1 and self.backend.temperature == 0:
            raise ValueError("at temperature 0 all samples are the same answer. Raise it, or set samples: 1")
        return self


class Collect(Section):
    """The questions: the first ``train_size`` of the source, and ``heldout_size`` others for evaluation.

    Held-out questions are the last ones of the source or, where ``heldout_source`` is not null, the first ones of that.
    Questions that are left out of a set are not replaced: the set is then smaller. ``near_duplicates`` null: only
    questions of the same text are duplicates. ``keep_hard`` null keeps all.
    """

    source: Source
    heldout_source: Source | None
    train_size: Count
    heldout_size: Annotated[int, Field(ge=0)]
    contamination: Contamination
    near_duplicates: NearDuplicateParams | None
    keep_hard: KeepHard | None


class BenchmarkSource(Section):
    """Where a benchmark's files come from: a dataset's id on a hub or on ModelScope, or a folder."""

    origin: Literal["hub", "modelscope", "folder"]
    path: FilePath
    revision: str | None


# the public benchmarks to download, for an evaluation without a network
EvalData = dict[PublicBenchmark, BenchmarkSource]
