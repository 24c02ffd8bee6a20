"""Read what was measured of an arm: its answers by benchmark, its scores, the settings, and its training.

read_evaluation(Path("metrics/eval"), Path("metrics/train"), "filtered")
→ Evaluation(answers={"heldout": {"chain_sum-heldout-0": Answer(correct=True, cluster="chain_sum-heldout-0"), …}}, …)
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.comparison.results import Audit, Score, Training
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
    """All measurements of an arm: its answers and its score by benchmark, the settings, its training.

    ``unscored`` are the benchmarks whose answers are neither right nor wrong.
    """

    answers: dict[str, Answers]
    scores: dict[str, Score]
    system_prompt: str | None
    settings: dict[str, Any]
    training: Training | None
    unscored: dict[str, Audit] = field(default_factory=dict)


def read_evaluation(eval_path: Path, train_path: Path, arm: str) -> Evaluation:
    """What was measured of one arm; DataError where its files are missing, broken or do not belong together."""
    answers = read_answers(eval_path / f"{arm}.scores.csv")
    path = eval_path / f"{arm}.json"
    asked = _validated(EvaluationMetrics, read_json(path, EVALUATE), path, EVALUATE)
    measured = asked.model_extra or {}
    unscored = {name for name in measured if name not in answers and "value" not in measured[name]}
    if set(measured) - unscored != set(answers):
        raise DataError(f"{path}: it does not score the benchmarks of {arm}.scores.csv. {EVALUATE}")
    scores = {name: _validated(Score, measured[name], path, EVALUATE, name) for name in measured if name in answers}
    audits = {name: _validated(Audit, measured[name], path, EVALUATE, name) for name in measured if name in unscored}
    for name, score in scores.items():
        if score.n != len(answers[name]):
            raise DataError(f"{path}: {name}: n is {score.n}; {arm}.scores.csv has {len(answers[name])}. {EVALUATE}")
    training = None if arm == "base" else read_training(train_path / f"{arm}.json")
    return Evaluation(answers, scores, asked.system_prompt, asked.settings, training, audits)


def read_answers(path: Path) -> dict[str, Answers]:
    """Right or wrong and the cluster, by benchmark and question."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. {EVALUATE}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, heads = list(reader), reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of scores ({error}). {EVALUATE}") from error
    if set(heads) != {"question_id", "benchmark", "cluster", "correct"}:
        raise DataError(f"{path}: not a table of scores. {EVALUATE}")
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
