"""What the cards say: the content of a dataset's card and of a model's, for the templates of both languages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.lib.cards import CardError
from stages.lib.cards.licences import Terms, terms_of
from stages.lib.cards.origin import Origin, origin_of
from stages.lib.cards.run import ProjectRun
from stages.lib.comparison.results import Arm, Comparison, Difference, Warned
from stages.lib.files.shards import parts_of
from stages.lib.json_list import elements
from stages.lib.params import FromTeacher, Train
from stages.lib.params.filter import judge_of
from stages.lib.params.prompts import prompt_text

EXAMPLE_CHARACTERS = 4000
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
)
LARGER = "100M<n<1B"
BASE = "base"


@dataclass(frozen=True)
class Step:
    """A step of the chain: the rows that came in, those that went out, and those left out by reason."""

    name: str
    rows_in: int
    rows_out: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class DatasetContent:
    """The content of a dataset's card."""

    name: str
    run: ProjectRun
    licence: Terms
    origin: Origin
    steps: list[Step]
    rows: int
    tokens: dict[str, int]
    system_text: str
    judge: str | None
    judge_text: str | None
    hashes: dict[str, str]
    settings: dict[str, Any]
    data_files: str  # the file of the conversations, or the pattern of its parts
    example: str

    @property
    def size_category(self) -> str:
        """The hubs' class of size."""
        return next((name for below, name in SIZES if self.rows < below), LARGER)


@dataclass(frozen=True)
class Scored:
    """An arm's score on a benchmark beside that of the untrained student."""

    benchmark: str
    arm: str
    value: float
    low: float
    high: float
    n: int
    is_own: bool


@dataclass(frozen=True)
class Paired:
    """A paired difference on a benchmark; the arm of the card is one of the two."""

    benchmark: str
    first: str
    second: str
    found: Difference


@dataclass(frozen=True)
class ModelContent:
    """The content of a model's card. ``teachers``: who wrote its answers, and whose probabilities it learned.

    ``start`` is the training of the arm that an on-policy one starts from; None for others.
    """

    name: str
    run: ProjectRun
    licence: Terms
    dataset: DatasetContent
    teachers: list[Terms]
    student: Terms
    train: Train
    arm: dict[str, Any]
    training: dict[str, Any]
    start: dict[str, Any] | None
    scores: list[Scored]
    differences: list[Paired]
    warnings: list[Warned]
    audits: dict[str, Any]
    confidence: float
    headline: str
    not_checked: list[str]
    hashes: dict[str, str]
    settings: dict[str, Any]


def dataset_content(run: ProjectRun, name: str, licence: str | None = None) -> DatasetContent:
    """The content of a dataset's card. ``licence`` replaces the one that follows from the questions."""
    if name not in run.params.datasets:
        raise CardError(f"params.yaml: no dataset '{name}'. There are: {', '.join(run.params.datasets)}.")
    converted = _needed(run, f"convert/{name}.json", f"convert@{name}")
    origin = origin_of(run.params, name, run.folder)
    judge = judge_of(run.params.filter) if origin.is_filtered else None
    rows = run.params.datasets[name].rows
    path = run.folder / "data" / "sharegpt" / name / f"{name}.json"
    return DatasetContent(
        name=name,
        run=run,
        licence=_chosen(origin.questions, licence),
        origin=origin,
        steps=list(_steps(run, name, origin, converted)),
        rows=converted["rows"],
        tokens=converted["tokens"],
        system_text=prompt_text(run.params.convert.system_prompt),
        judge=judge.model if judge else None,
        judge_text=prompt_text(judge.prompt) if judge else None,
        hashes={path: run.hash_of(path) for path in (rows, f"data/sharegpt/{name}")},
        settings=run.section(*_sections(origin)),
        data_files=f"{name}.json/*.json" if path.is_dir() else f"{name}.json",
        example=first_conversation(path),
    )


def model_content(run: ProjectRun, name: str, licence: str | None = None) -> ModelContent:
    """The content of a model's card. ``licence`` replaces that of the student."""
    if name not in run.params.trained_arms:
        raise CardError(f"params.yaml: no arm '{name}'. There are: {', '.join(run.params.trained_arms)}.")
    learner = run.params.on_policy.get(name)
    training = _needed(run, f"train/{name}.json", f"train-on-policy@{name}" if learner else f"train@{name}")
    comparison = run.comparison()
    if comparison is None or name not in comparison.arms:
        raise CardError(f"metrics/compare.json: no scores of the arm '{name}'. Run 'make compare'.")
    student = terms_of("students", run.params.train.student.name)
    contamination = _needed(run, "collect.json", "collect")["contamination"]
    arm = comparison.arms[name]
    dataset = dataset_content(run, run.params.trained_arms[name].dataset)
    written = {section: run.written[section] for section in ("arms", "on_policy", "teachers")}
    own = {
        section: {each: found[each] for each in _sources(run, name) if each in found}
        for section, found in written.items()
    }
    return ModelContent(
        name=name,
        run=run,
        licence=_chosen(student, licence),
        dataset=dataset,
        teachers=list({terms.name: terms for terms in _teachers(run, name)}.values()),
        student=student,
        train=run.params.train,
        arm=(written["arms"] | written["on_policy"])[name],
        training=training,
        start=_needed(run, f"train/{learner.start_from}.json", f"train@{learner.start_from}") if learner else None,
        scores=_scores(comparison, name),
        differences=_differences(comparison, name),
        warnings=[warning for warning in comparison.warnings if name in warning.arms],
        audits={key: score for key, score in arm.benchmarks.items() if score.is_audited},
        confidence=comparison.confidence,
        headline=run.params.evaluate.headline,
        not_checked=[key for key, found in contamination.items() if found == "not checked"],
        hashes={path: run.hash_of(path) for path in (f"models/{name}", "metrics/compare.json")},
        settings=run.section("train", "convert", "evaluate", "score")
        | {key: found for key, found in own.items() if found},
    )


def _sources(run: ProjectRun, name: str) -> list[str]:
    """The arm, and where it is an on-policy one the arm that it starts from and its teacher."""
    learner = run.params.on_policy.get(name)
    return list(dict.fromkeys([learner.start_from, learner.teacher.source, name])) if learner else [name]


def _teachers(run: ProjectRun, name: str) -> Iterator[Terms]:
    """Who wrote the answers that an arm was trained on, and whose probabilities it learned.

    An on-policy arm has the teachers of the arm that it starts from, its own one, and those of an arm that is its own.
    """
    params = run.params
    if name in params.teachers:
        yield terms_of("teachers", params.teachers[name].name)
    elif learner := params.on_policy.get(name):
        if learner.teacher.worked_examples:
            yield from origin_of(params, learner.dataset, run.folder).teachers
        for source in (learner.start_from, learner.teacher.source):
            yield from _teachers(run, source)
    else:
        yield from origin_of(params, params.arms[name].dataset, run.folder).teachers
        if params.arms[name].alpha and isinstance(params.score, FromTeacher):
            yield terms_of("teachers", params.score.teacher.name)


def _needed(run: ProjectRun, path: str, stage: str) -> dict[str, Any]:
    found = run.metrics(path)
    if found is None:
        raise CardError(f"metrics/{path}: no such file. Run 'dvc repro {stage}' to write it.")
    return found


def _chosen(found: Terms, licence: str | None) -> Terms:
    return found if licence is None else replace_licence(found, licence)


def replace_licence(found: Terms, licence: str) -> Terms:
    """The terms with a licence that a person gives."""
    return found.model_copy(update={"licence": licence, "title": None, "source": None})


def _sections(origin: Origin) -> list[str]:
    of_traces = ["traces"] if origin.traces else ["collect", "distill"]
    return [*of_traces, *(["filter"] if origin.is_filtered or origin.is_control else []), "convert"]


def _steps(run: ProjectRun, name: str, origin: Origin, converted: dict[str, Any]) -> list[Step]:
    steps = []
    if origin.traces:
        filtered = run.metrics(f"filter_traces/{origin.traces}.json")
        read = run.metrics(f"traces/{origin.traces}.json")
        if read:
            why = {reason: found["count"] for reason, found in read["left_out"].items()}
            steps.append(Step("traces", read["in"], read["rows"], why))
    elif origin.prompt is not None:
        collected = _needed(run, "collect.json", "collect")
        difficulty = _needed(run, "difficulty.json", "difficulty")
        distilled = _needed(run, "distill.json", "distill")
        filtered = run.metrics("filter.json")
        steps.append(
            Step("collect", collected["in"] - collected["heldout"], collected["questions"], collected["left_out"])
        )
        if difficulty["asked"]:
            steps.append(Step("difficulty", difficulty["in"], difficulty["kept"], {"too_easy": difficulty["too_easy"]}))
        steps.append(Step("distill", distilled["in"], distilled["distilled"], distilled["failed_by_reason"]))
    else:
        filtered = None
    if filtered and origin.is_filtered:
        steps.append(Step("filter", filtered["in"], filtered["kept"], filtered["rejected_by_reason"]))
    if filtered and origin.is_control:
        steps.append(
            Step("control", filtered["in"], filtered["control"], {"at_random": filtered["in"] - filtered["control"]})
        )
    steps.append(Step("convert", converted["in"], converted["rows"], converted["dropped"]))
    return [replace(step, left_out={why: number for why, number in step.left_out.items() if number}) for step in steps]


def _scores(comparison: Comparison, name: str) -> list[Scored]:
    arms: dict[str, Arm] = {each: comparison.arms[each] for each in (BASE, name) if each in comparison.arms}
    return [
        Scored(benchmark, each, score.value, score.low, score.high, score.n, each == name)
        for benchmark in comparison.arms[name].benchmarks
        for each, arm in arms.items()
        if (score := arm.benchmarks.get(benchmark))
    ]


def _differences(comparison: Comparison, name: str) -> list[Paired]:
    return [
        Paired(benchmark, pair.first, pair.second, found)
        for pair in comparison.pairs.values()
        if name in (pair.first, pair.second)
        for benchmark, found in pair.benchmarks.items()
    ]


def first_conversation(path: Path) -> str:
    """The first conversation of a ShareGPT dataset, whose files are lists: no more is read than that takes."""
    advice = "Run 'dvc repro convert' to build it."
    first, *_ = parts_of(path, advice)
    try:
        with first.open("rb") as file:
            conversation = next(elements(file), None)
    except ValueError as error:
        raise CardError(f"{first}: not a JSON list of conversations ({error!s:.100}). {advice}") from error
    if conversation is None:
        raise CardError(f"{path}: no conversations, so there is nothing to describe.")
    text = json.dumps(conversation, indent=2, ensure_ascii=False)
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]} …"
