"""Read what was measured of an arm: its answers by benchmark, its scores, the settings, and its training.

read_evaluation(Path("metrics/eval"), Path("metrics/train"), "filtered")
→ Evaluation(answers={"heldout": {"chain_sum-heldout-0": Answer(correct=True, cluster="chain_sum-heldout-0"), …}}, …)
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.comparison.results import Score, Training
from stages.lib.rows import DataError, read_json

EVALUATE = "Run 'dvc repro evaluate-base evaluate' to rebuild it."
M = TypeVar("M", bound=BaseModel)


class EvaluationMetrics(BaseModel):
    """The fields of metrics/eval/ARM.json other than the scores. Each score is under its benchmark's name."""

    model_config = ConfigDict(extra="allow")

    system_prompt: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Right or wrong, and the question's cluster: questions that repeat one problem share it."""

    correct: bool
    cluster: str


Answers = dict[str, Answer]  # by question


@dataclass(frozen=True)
class Evaluation:
    """All measurements of an arm: its answers and its score by benchmark, the settings, its training."""

    answers: dict[str, Answers]
    scores: dict[str, Score]
    system_prompt: str | None
    settings: dict[str, Any]
    training: Training | None


def read_evaluation(eval_path: Path, train_path: Path, arm: str) -> Evaluation:
    """What was measured of one arm; DataError where its files are missing, broken or do not belong together."""
    answers = read_answers(eval_path / f"{arm}.scores.csv")
    path = eval_path / f"{arm}.json"
    asked = _validated(EvaluationMetrics, read_json(path, EVALUATE), path, EVALUATE)
    if set(asked.model_extra or {}) != set(answers):
        raise DataError(f"{path}: it does not score the benchmarks of {arm}.scores.csv. {EVALUATE}")
    scores = {name: _validated(Score, value, path, EVALUATE, name) for name, value in (asked.model_extra or {}).items()}
    for name, score in scores.items():
        if score.n != len(answers[name]):
            raise DataError(f"{path}: {name}: n is {score.n}; {arm}.scores.csv has {len(answers[name])}. {EVALUATE}")
    training = None if arm == "base" else read_training(train_path / f"{arm}.json")
    return Evaluation(answers, scores, asked.system_prompt, asked.settings, training)


def read_answers(path: Path) -> dict[str, Answers]:
    """Right or wrong and the cluster, by benchmark and question."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. {EVALUATE}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of scores ({error}). {EVALUATE}") from error
    if not rows or set(rows[0]) != {"question_id", "benchmark", "cluster", "correct"}:
        raise DataError(f"{path}: not a table of scores with at least one row. {EVALUATE}")
    answers: dict[str, Answers] = {}
    for line, row in enumerate(rows, start=2):
        of_benchmark, question = answers.setdefault(row["benchmark"], {}), row["question_id"]
        if row["correct"] not in ("0", "1") or question in of_benchmark:
            key = f"{row['benchmark']}/{question}"
            raise DataError(f"{path}:{line}: '{key}' is there already, or 'correct' is not 0 or 1. {EVALUATE}")
        of_benchmark[question] = Answer(row["correct"] == "1", row["cluster"])
    return answers


def read_training(path: Path) -> Training:
    """The metrics of one arm's training."""
    advice = "Run 'dvc repro train' to rebuild it."
    return _validated(Training, read_json(path, advice), path, advice)


def _validated(model: type[M], value: Any, path: Path, advice: str, *place: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*place, *first["loc"])))
        raise DataError(f"{path}: {where}: {first['msg']}. {advice}") from error
