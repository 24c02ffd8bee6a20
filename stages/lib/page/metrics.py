"""The types of the metrics files that the page shows, and functions that read them with one-line errors.

read_metrics(Path("metrics/filter.json"), FilterCounts, "Run 'dvc repro filter' to rebuild it.")
→ FilterCounts(taken=126, kept=85, rejected=41, rejected_by_reason={"wrong_answer": 41}, …)
"""

import csv
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.rows import DataError, Row, read_json


class Metrics(BaseModel):
    """A metrics file or a part of one. Unknown fields are ignored, because a later version may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Described(Metrics):
    """The scripts of some questions, and the percentiles of their lengths in characters."""

    scripts: dict[str, int]
    characters: dict[str, int] | None


class CollectCounts(Metrics):
    """metrics/collect.json: ``taken = questions + heldout + all left out``."""

    taken: int = Field(alias="in")
    questions: int
    heldout: int
    left_out: dict[str, int]
    contamination: dict[str, Any]
    texts: dict[str, Described] = {}

    @property
    def unchecked(self) -> list[str]:
        """The benchmarks that the training questions were not checked against."""
        return [name for name, found in self.contamination.items() if found == "not checked"]


class DifficultyCounts(Metrics):
    """metrics/difficulty.json: ``taken = kept + too_easy``; ``asked`` is 0 where the untrained student was not asked.

    ``by_solved["1"]`` questions were answered right once in ``samples`` answers.
    """

    taken: int = Field(alias="in")
    asked: int
    kept: int
    too_easy: int
    samples: int
    max_solved: int | None
    by_solved: dict[str, int]
    unsure_answers: int
    completion_tokens: int


class DistillCounts(Metrics):
    """metrics/distill.json: ``taken = distilled + all failed``; the tokens are as the server counts."""

    taken: int = Field(alias="in")
    distilled: int
    failed_by_reason: dict[str, int]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Contradicted(Metrics):
    """The rule's right (or wrong) ``verdicts``: how many the judge ``marked`` and contradicted."""

    verdicts: int
    marked: int
    contradicted: int
    share: float | None
    low: float | None
    high: float | None


class Contradictions(Metrics):
    """The shares of the rule's verdicts that the judge contradicts, with the method and confidence of the intervals."""

    confidence: float
    interval: str
    right: Contradicted
    wrong: Contradicted


class Errors(Metrics):
    """The verdicts of one kind that people ``reviewed``, and how many of them they call ``false``."""

    reviewed: int
    false: int
    share: float | None
    low: float | None
    high: float | None


class ErrorsOf(Metrics):
    """The errors among the right and among the wrong verdicts of the rule, or of the judge."""

    right: Errors
    wrong: Errors


class ReviewCounts(Metrics):
    """People's reviews: the ``answers`` with a verdict that counts, and the reviews that do not count."""

    answers: int
    right: int
    wrong: int
    unsure: int
    changed: int
    contradictory: int
    outdated: int
    no_such_answer: int
    confidence: float
    interval: str
    rule: ErrorsOf
    judge: ErrorsOf


class MajorityCounts(Metrics):
    """The questions of the strategy majority: those with a majority, and all by the largest cluster's share."""

    questions: int
    decided: int
    largest_share: dict[str, int]


class RubricCounts(Metrics):
    """The marks of the strategy judge_rubric; ``scores`` is empty where the rubric asks for yes or no."""

    right: int
    wrong: int
    unsure: int
    scores: dict[str, int]


class FilterCounts(Metrics):
    """metrics/filter.json: ``taken = kept + all rejected``.

    ``rule_by_judge["wrong"]["right"]`` is the number of answers that the rule calls wrong and the judge right. The
    column "not_asked" counts the answers that the judge was not asked about.
    """

    taken: int = Field(alias="in")
    kept: int
    rejected: int
    rejected_by_reason: dict[str, int]
    judge_asked: int
    rule_by_judge: dict[str, dict[str, int]]
    judge_contradicts: Contradictions | None = None
    reviews: ReviewCounts | None = None
    majority: MajorityCounts | None = None
    rubric: RubricCounts | None = None

    @property
    def compares(self) -> bool:
        """Whether there is a table of rule against judge: a judge was asked, and the rule had gold answers."""
        return self.judge_asked > 0 and any(map(bool, self.rule_by_judge.values()))


class ConvertCounts(Metrics):
    """metrics/convert/DATASET.json: ``taken = rows + all dropped``; lengths are in the student's tokens."""

    taken: int = Field(alias="in")
    rows: int
    dropped: dict[str, int]
    tokens: dict[str, int]


class TrainCounts(Metrics):
    """metrics/train/ARM.json: what the training really used; ``tokens_trained`` are those with a loss.

    ``rows_shortened`` of the ``rows`` had their reasoning shortened. ``rows_too_long`` further rows were left out.
    ``start_from`` is an on-policy arm's, which is trained on its own answers and not on the dataset's.
    """

    rows: int
    start_from: str | None = None
    rows_shortened: int
    rows_too_long: int
    left_out: dict[str, int] = {}
    steps: int
    epochs: float
    tokens_trained: int
    effective_batch: int

    @property
    def taken(self) -> int:
        """All rows of the dataset."""
        return self.rows + self.rows_too_long


class LossPoint(Metrics):
    """A line of metrics/train/ARM.loss.csv; a loss that diverged is not a finite number."""

    step: int
    loss: float


class LengthPoint(Metrics):
    """A line of metrics/convert/DATASET.lengths.csv: a ``share`` of the conversations has at most ``tokens``."""

    tokens: int
    share: float


class Example(Row):
    """A row of data/eval/ARM.examples.jsonl: an example of one ``kind`` that the audit counts."""

    kind: str
    benchmark: str
    question: str
    answer: str | None
    response: str
    tokens: int | None = None
    lm_eval: bool | None = None
    verdict: str | None = None

    @property
    def key(self) -> str:
        """The kind, the benchmark and the question's id: an answer may be an example of several kinds."""
        return f"{self.kind}/{self.benchmark}/{self.id}"


M = TypeVar("M", bound=BaseModel)


def read_metrics(path: Path, model: type[M], rebuild: str) -> M:
    """One metrics file; DataError where it is missing, broken or lacks a field."""
    try:
        return model.model_validate(read_json(path, rebuild))
    except ValidationError as error:
        raise DataError(f"{path}: {_complaint(error)}. {rebuild}") from error


def read_losses(path: Path, rebuild: str) -> list[LossPoint]:
    """The points of a loss curve, at least one; DataError, with the line, where the file is missing or invalid."""
    return _read_points(path, LossPoint, "step", rebuild)


def read_lengths(path: Path, rebuild: str) -> list[LengthPoint]:
    """The points of the curve of lengths, at least one; DataError as for the losses."""
    return _read_points(path, LengthPoint, "length", rebuild)


def _read_points(path: Path, model: type[M], name: str, rebuild: str) -> list[M]:
    if not path.is_file():
        raise DataError(f"{path}: no such file. {rebuild}")
    table = csv.DictReader(path.read_bytes().decode(errors="replace").splitlines())
    points = [_point(row, model, f"{path}:{number}", rebuild) for number, row in enumerate(table, start=2)]
    if not points:
        raise DataError(f"{path}: there is no {name} in it. {rebuild}")
    return points


def _point(row: dict[str, str], model: type[M], where: str, rebuild: str) -> M:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise DataError(f"{where}: {_complaint(error)}. {rebuild}") from error


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"no field '{field}'"
    return f"field '{field}': {first['msg']}" if field else first["msg"]
