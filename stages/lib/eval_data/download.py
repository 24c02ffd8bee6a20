"""Collect a benchmark from a hub, its mirror, ModelScope or a folder; check that it is complete; return its tables.

A repository is downloaded unchanged and read from there, so all origins share one reader. It reads the official files
where they exist (testsets/official.py), else any form of dataset that ``datasets`` knows, usually Parquet. No script of
a repository is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.lib.eval_data.forms import FORMS, LANGUAGES, SUBJECTS
from stages.lib.params import BenchmarkSource
from stages.lib.rows import DataError
from stages.lib.testsets.official import exemplars, official_rows
from stages.lib.testsets.rows import ROWS, BenchmarkRow, MgsmRow

# other contents of the repositories: hundreds of megabytes that no task reads
NOT_NEEDED = ["all/*", "auxiliary_train/*", "socratic/*", "*.tar", "*.zip"]
EXPECTED_SOURCE = {
    "gsm8k": "GSM8K (train.jsonl and test.jsonl, or the dataset openai/gsm8k)",
    "mgsm": "MGSM (mgsm_*.tsv with exemplars.py, or the dataset juletxara/mgsm)",
    "mmlu": "MMLU (dev/*.csv and test/*.csv, or the dataset cais/mmlu)",
}
# in place of MGSM's examples: lm-eval loads the split even for zero-shot, and datasets refuses an empty one
NO_EXEMPLARS = MgsmRow(
    question="(No exemplars.py was gathered: zero-shot only.)", answer="(none: zero-shot only)", answer_number=0
)


@dataclass(frozen=True)
class Table:
    """One split of a configuration; ``source`` names the file or dataset of its rows."""

    config: str
    split: str
    source: str
    rows: list[BenchmarkRow]


@dataclass(frozen=True)
class Benchmark:
    """All tables of a benchmark; where ``fewshot`` is false, it has no few-shot examples."""

    name: str
    source: BenchmarkSource
    tables: list[Table]
    fewshot: bool

    def rows(self, split: str) -> int:
        """The number of rows of the split, over all configurations; 0 where it has only the placeholder."""
        if split == FORMS[self.name].examples and not self.fewshot:
            return 0
        return sum(len(table.rows) for table in self.tables if table.split == split)


def collect_benchmark(name: str, source: BenchmarkSource) -> Benchmark:
    """The benchmark from its source; DataError where it cannot be read, is another one, or is incomplete."""
    advice = f"Point eval_data.{name}.path at {EXPECTED_SOURCE[name]}."
    folder = _fetch(name, source)
    tables = OFFICIAL[name](folder, advice) or _dataset(name, folder, advice)
    benchmark = Benchmark(name, source, tables, all(NO_EXEMPLARS not in table.rows for table in tables))
    _check_whole(benchmark, advice)
    return benchmark


def _fetch(name: str, source: BenchmarkSource) -> Path:
    """The folder that holds the source's files."""
    if source.origin == "folder":
        folder = Path(source.path).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Point eval_data.{name}.path at {EXPECTED_SOURCE[name]}.")
        return folder
    try:
        return _from_hub(source) if source.origin == "hub" else _from_modelscope(source)
    except Exception as error:  # the clients raise their own errors and those of requests and httpx
        raise DataError(
            f"eval_data.{name}.path: {source.origin} gave no '{source.path}' ({type(error).__name__}: {error!s:.200}). "
            "Without a network, set origin: folder and name one with the benchmark's files."
        ) from error


def _from_hub(source: BenchmarkSource) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(source.path, repo_type="dataset", revision=source.revision, ignore_patterns=NOT_NEEDED)
    return Path(folder)


def _from_modelscope(source: BenchmarkSource) -> Path:
    from modelscope.hub.snapshot_download import dataset_snapshot_download

    return Path(dataset_snapshot_download(source.path, revision=source.revision, ignore_patterns=NOT_NEEDED))


def _official_gsm8k(folder: Path, advice: str) -> list[Table]:
    files = {split: folder / f"{split}.jsonl" for split in ("train", "test")}
    if not all(file.is_file() for file in files.values()):
        return []
    return [_official("gsm8k", "main", split, file, advice) for split, file in files.items()]


def _official_mgsm(folder: Path, advice: str) -> list[Table]:
    if not list(folder.glob("mgsm_*.tsv")):
        return []
    tests = [_official("mgsm", name, "test", folder / f"mgsm_{name}.tsv", advice) for name in LANGUAGES]
    return _mgsm_examples(folder / "exemplars.py", advice) + tests


def _mgsm_examples(file: Path, advice: str) -> list[Table]:
    found = exemplars(file, advice) if file.is_file() else {name: [NO_EXEMPLARS] for name in LANGUAGES}
    source = file.name if file.is_file() else "none"
    return [Table(name, "train", source, list(found.get(name, []))) for name in LANGUAGES]


def _official_mmlu(folder: Path, advice: str) -> list[Table]:
    if not list(folder.glob("test/*_test.csv")):
        return []
    return [
        _official("mmlu", subject, split, folder / split / f"{subject}_{split}.csv", advice)
        for split in ("dev", "test")
        for subject in SUBJECTS
    ]


OFFICIAL = {"gsm8k": _official_gsm8k, "mgsm": _official_mgsm, "mmlu": _official_mmlu}


def _official(name: str, config: str, split: str, file: Path, advice: str) -> Table:
    if not file.is_file():
        raise DataError(f"{file}: no such file. {advice}")
    rows = list(official_rows(name, file, advice))
    return Table(config, split, file.name, rows)


def _dataset(name: str, folder: Path, advice: str) -> list[Table]:
    """The tables of a hub's repository in a form that ``datasets`` can read."""
    form = FORMS[name]
    tables = []
    for config in form.configs:
        splits = _splits(folder, config, advice)
        for split in form.rows:
            if split not in splits:
                raise DataError(f"{folder}: '{config}' has no split '{split}'. {advice}")
            rows = [_row(name, raw, f"{folder}: {config}/{split}[{i}]", advice) for i, raw in enumerate(splits[split])]
            tables.append(Table(config, split, f"{config}/{split}", rows))
    return tables


def _splits(folder: Path, config: str, advice: str) -> Mapping[str, Any]:
    from datasets import load_dataset

    try:  # streaming: read from the folder, without a copy in a cache
        splits: Mapping[str, Any] = load_dataset(str(folder), config, streaming=True)
    except Exception as error:  # datasets raises its own errors, those of fsspec, and plain ValueErrors
        raise DataError(
            f"{folder}: no configuration '{config}' there ({type(error).__name__}: {error!s:.100}). {advice}"
        ) from error
    return splits


def _row(name: str, raw: Any, where: str, advice: str) -> BenchmarkRow:
    try:
        return ROWS[name].model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        text = f"field '{first['loc'][0]}': {first['msg']}" if first["loc"] else first["msg"]
        raise DataError(f"{where}: not a row of {name} ({text}). {advice}") from error


def _check_whole(benchmark: Benchmark, advice: str) -> None:
    """DataError where a benchmark is incomplete: its score would not be comparable with published ones."""
    form = FORMS[benchmark.name]
    for split, expected in form.rows.items():
        found = benchmark.rows(split)
        none_expected = split == form.examples and not benchmark.fewshot
        if found != expected and not none_expected:
            raise DataError(
                f"eval_data.{benchmark.name}: {found} rows in split '{split}' of '{benchmark.source.path}', and "
                f"{benchmark.name} has {expected}. {advice}"
            )
