"""Use the benchmarks in ``data/eval_data``, so that unmodified tasks of lm-eval need no network.

data/eval_data/openai/gsm8k/, juletxara/mgsm/, cais/mmlu/ have the names of the hub's datasets. ``datasets`` prefers a
folder of that name in the working directory to the hub, so lm-eval runs in data/eval_data. What is missing there is
downloaded from the hub, and the log says so. MGSM downloaded without its exemplars.py has one placeholder row instead
of examples, which must not be used.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.tasks import OWN, Benchmark
from stages.lib.rows import read_json

log = logging.getLogger("distillery.evaluate")

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@contextmanager
def offline_questions(folder: Path | None, benchmarks: Sequence[Benchmark]) -> Iterator[None]:
    """Change into the folder of downloaded benchmarks, and turn the hub off if it has all of them.

    Enter it before ``datasets`` is imported, which then reads its settings.
    """
    missing = [each.name for each in benchmarks if each.name not in OWN and not is_downloaded(folder, each)]
    if missing:
        log.info(
            "evaluate: %s: not in %s, so lm-eval downloads from the hub (run 'make eval-data' first to avoid that)",
            ", ".join(missing),
            folder or "data/eval_data",
        )
    with _variables(_cache() | ({} if missing else OFFLINE)), _working_in(folder):
        yield


def is_downloaded(folder: Path | None, benchmark: Benchmark) -> bool:
    """Whether its dataset is in the folder."""
    return folder is not None and benchmark.data is not None and (folder / benchmark.data).is_dir()


def refuse_fewshot(folder: Path | None, benchmarks: Sequence[Benchmark], num_fewshot: Mapping[str, int]) -> None:
    """EvaluationError if params ask for few-shot examples of a benchmark that was downloaded without them."""
    if folder is None or not (folder / "manifest.json").is_file():
        return
    found = read_json(folder / "manifest.json", "Run 'make eval-data' to download it again.")["benchmarks"].values()
    without = {facts["folder"] for facts in found if facts and not facts["fewshot"]}
    for each in benchmarks:
        if each.data in without and num_fewshot.get(each.name):
            raise EvaluationError(
                f"evaluate.num_fewshot: {num_fewshot[each.name]} examples for '{each.name}', but {each.data} was "
                "downloaded without any. Put exemplars.py beside its .tsv files and run 'make eval-data', or set 0."
            )


def _cache() -> dict[str, str]:
    """The cache of ``datasets``: in the project, unless the environment sets another one."""
    if os.environ.get("HF_HOME") or os.environ.get("HF_DATASETS_CACHE"):
        return {}
    return {"HF_DATASETS_CACHE": str(project_root() / ".cache" / "huggingface" / "datasets")}


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _working_in(folder: Path | None) -> Iterator[None]:
    if folder is None or not folder.is_dir():
        yield
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
