"""Where the rows of a dataset come from: the questions, the teachers, the prompts, and their terms."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from stages.lib.cards.licences import Terms, terms_of, unknown_licence
from stages.lib.params import ChainSum, InFile, InHub, InModelScope, InPreset, Params, ParamsError
from stages.lib.params.presets import preset_named, trace_preset_named
from stages.lib.params.prompts import prompt_text
from stages.lib.rows import read_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.texts.languages import question_language

PIPELINE = ("distilled", "filtered", "control")
LANGUAGE_ROWS, LANGUAGE_SHARE = 500, 0.05
OTHER = "other"


@dataclass(frozen=True)
class Origin:
    """The origin of a dataset. ``prompt`` is the teacher's text, None where others asked the teacher.

    ``source_key`` is the key of params that chose the questions; ``traces`` the entry of ``traces:``, if any.
    """

    questions: Terms
    source_key: str
    split: str | None
    teachers: list[Terms]
    traces: str | None
    is_filtered: bool
    is_control: bool
    languages: list[str]
    prompt: str | None


def origin_of(params: Params, dataset: str, folder: Path) -> Origin:
    """The origin of a dataset of params.yaml. It reads the dataset's rows."""
    path = Path(params.datasets[dataset].rows)
    rebuild = f"Run 'dvc repro convert@{dataset}' to build it."
    models: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    rows = read_rows(folder / path, Distilled, rebuild)
    for row in islice(rows, LANGUAGE_ROWS):
        models[row.model] += 1
        languages[question_language(row.question)] += 1
    models.update(row.model for row in rows)
    stem = PurePosixPath(path.as_posix()).stem
    traces = next((name for name in params.traces if stem == name or stem.startswith(f"{name}_")), None)
    of_pipeline = path.parent.as_posix() == "data" and stem in PIPELINE
    if traces:
        questions, split, key = _traces_questions(params, traces)
        names = sorted(models)
    elif of_pipeline:
        questions, split, key = _collected_questions(params)
        names = [params.distill.teacher.model]
    else:
        questions, key, split = unknown_licence(terms_of("questions", path.as_posix())), f"datasets.{dataset}", None
        names = sorted(models)
    return Origin(
        questions=questions,
        source_key=key,
        split=split,
        teachers=[terms_of("teachers", name) for name in names],
        traces=traces,
        is_filtered=stem.endswith("filtered") and stem != "unfiltered",
        is_control=stem.endswith("control"),
        languages=_languages(languages),
        prompt=prompt_text(params.distill.prompt) if of_pipeline else None,
    )


def _collected_questions(params: Params) -> tuple[Terms, str | None, str]:
    source, key = params.collect.source, "collect.source"
    if isinstance(source, ChainSum):
        return terms_of("questions", source.kind), None, key
    hub = preset_named(source.name, key).hub if isinstance(source, InPreset) else None
    return *_of_source(source, hub), key


def _traces_questions(params: Params, name: str) -> tuple[Terms, str | None, str]:
    source, key = params.traces[name].source, f"traces.{name}.source"
    hub = trace_preset_named(source.name, key).hub if isinstance(source, InPreset) else None
    return *_of_source(source, hub), key


def _of_source(source: InFile | InPreset | InHub | InModelScope, hub: str | None) -> tuple[Terms, str | None]:
    """The terms of a table of others, and its split; ``hub``: where a preset says that its set is published."""
    if isinstance(source, InFile):
        return unknown_licence(terms_of("questions", source.path)), None
    if isinstance(source, InPreset):
        return _of_preset(source.name, source.path, hub), source.split
    return terms_of("questions", source.path), source.split


def _of_preset(name: str, path: str | None, hub: str | None) -> Terms:
    """A preset's set keeps its terms wherever its copy is; a preset without an own id is a form, not a set."""
    if hub is None and path is None:
        raise ParamsError(f"params.yaml: preset '{name}' names no dataset. Write its id as path.")
    return terms_of("questions", hub or str(path))


def _languages(counted: Counter[str]) -> list[str]:
    """The languages of at least one question in twenty, the most frequent first."""
    total = counted.total()
    return [name for name, number in counted.most_common() if number >= LANGUAGE_SHARE * total and name != OTHER]
