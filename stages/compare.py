"""Compare the arms: each one's accuracy, and the differences on the same questions, with their intervals.

In:   metrics/eval (ARM.scores.csv of each arm), metrics/train (ARM.json)
Out:  metrics/compare.json   {"confidence": 0.95, "arms": {"base": {…}}, "pairs": {"filtered_vs_base": {…}}}
      metrics/compare.csv    first,second,difference,low,high: for plots

Alone:  python -m stages.compare --eval metrics/eval --train metrics/train --out C.json --table C.csv
"""

import csv
import io
import logging
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.evaluation.statistics import paired_difference, proportion
from stages.lib.evaluation.table import signed
from stages.lib.params import Compare, load_params
from stages.lib.records import DataError, read_json, write_json, writing

log = logging.getLogger("distillery.compare")

Scores = dict[str, bool]


class Training(BaseModel):
    """What the comparison says of an arm's training (metrics/train/ARM.json)."""

    model_config = ConfigDict(extra="ignore")

    rows: int
    rows_too_long: int
    steps: int
    epochs: float
    tokens_trained: int


@click.command(help="Compare the arms on the same questions.")
@click.option("--eval", "eval_path", type=READ, required=True, help="The folder of the arms' scores, read.")
@click.option("--train", "train_path", type=READ, required=True, help="The folder of the trainings' metrics, read.")
@click.option("--out", "out_path", type=WRITE, required=True, help="The comparison, written.")
@click.option("--table", "table_path", type=WRITE, required=True, help="The differences as CSV, written.")
@params_option
@one_line_errors
def main(eval_path: Path, train_path: Path, out_path: Path, table_path: Path, params_path: Path) -> None:
    params = load_params(params_path)
    scores = {name: read_scores(eval_path / f"{name}.scores.csv") for name in ["base", *params.arms]}
    trainings = {name: read_training(train_path / f"{name}.json") for name in params.arms}
    comparison = compare(scores, trainings, params.compare)
    write_json(out_path, comparison)
    write_table(table_path, comparison)
    for warning in comparison["warnings"]:
        log.warning("compare: %s", warning)
    log.info("compare: %s", "; ".join(_sentence(pair) for pair in comparison["pairs"].values()))


def read_scores(path: Path) -> Scores:
    """Right or wrong, by benchmark and question."""
    advice = "Run 'dvc repro evaluate' to rebuild it."
    if not path.is_file():
        raise DataError(f"{path}: no such file. {advice}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of scores ({error}). {advice}") from error
    if not rows or set(rows[0]) != {"question_id", "benchmark", "cluster", "correct"}:
        raise DataError(f"{path}: not a table of scores with at least one row. {advice}")
    scores: Scores = {}
    for line, row in enumerate(rows, start=2):
        key = f"{row['benchmark']}/{row['question_id']}"
        if row["correct"] not in ("0", "1") or key in scores:
            raise DataError(f"{path}:{line}: '{key}' is there already, or 'correct' is not 0 or 1. {advice}")
        scores[key] = row["correct"] == "1"
    return scores


def read_training(path: Path) -> Training:
    """The metrics of one arm's training."""
    advice = "Run 'dvc repro train' to rebuild it."
    try:
        return Training.model_validate(read_json(path, advice))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}. {advice}") from error


def compare(scores: dict[str, Scores], trainings: dict[str, Training], params: Compare) -> dict[str, Any]:
    """Each arm's accuracy, each pair's difference, and what makes arms unlike beside what is compared."""
    return {
        "confidence": params.confidence,
        "arms": {name: _arm(scores[name], trainings.get(name), params.confidence) for name in scores},
        "pairs": {
            f"{first}_vs_{second}": _pair(first, second, scores, params.confidence) for first, second in params.pairs
        },
        "warnings": [warning for first, second in params.pairs for warning in _unlike(first, second, trainings)],
    }


def _arm(scores: Scores, training: Training | None, confidence: float) -> dict[str, Any]:
    share = proportion(list(scores.values()), confidence)
    facts: dict[str, Any] = {
        "accuracy": round(share.accuracy, 4),
        "low": round(share.low, 4),
        "high": round(share.high, 4),
        "correct": share.correct,
        "n": share.n,
    }
    if training:
        facts |= training.model_dump()
    return facts


def _pair(first: str, second: str, scores: dict[str, Scores], confidence: float) -> dict[str, Any]:
    if scores[first].keys() != scores[second].keys():
        raise DataError(
            f"compare.pairs: '{first}' and '{second}' were not asked the same questions. Run 'dvc repro evaluate'."
        )
    keys = list(scores[first])
    result = paired_difference([scores[first][key] for key in keys], [scores[second][key] for key in keys], confidence)
    detected = result.low > 0 or result.high < 0
    return {
        "first": first,
        "second": second,
        "difference": round(result.difference, 4),
        "low": round(result.low, 4),
        "high": round(result.high, 4),
        "p": round(result.p, 6),
        "only_first": result.only_first,
        "only_second": result.only_second,
        "n": result.n,
        "finding": ("better" if result.low > 0 else "worse") if detected else "no detectable difference",
    }


def _unlike(first: str, second: str, trainings: dict[str, Training]) -> list[str]:
    """Warnings where two trained arms differ in steps by more than 2 %, or in rows that were left out as too long."""
    if first not in trainings or second not in trainings:
        return []
    one, other = trainings[first], trainings[second]
    warnings = []
    if abs(one.steps - other.steps) > 0.02 * max(one.steps, other.steps):
        warnings.append(
            f"{first} was trained for {one.steps} steps, {second} for {other.steps}: "
            "the difference is not the data's alone"
        )
    if one.rows_too_long != other.rows_too_long:
        warnings.append(f"over cutoff_len were {one.rows_too_long} rows of {first}, {other.rows_too_long} of {second}")
    return warnings


def _sentence(pair: dict[str, Any]) -> str:
    return f"{pair['first']} − {pair['second']}: {signed(pair['difference'])} points, {pair['finding']}"


def write_table(path: Path, comparison: dict[str, Any]) -> None:
    """The differences, for ``dvc plots``."""
    columns = ["first", "second", "difference", "low", "high", "p", "n"]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(comparison["pairs"].values())
    with writing(path) as file:
        file.write(text.getvalue().encode())


if __name__ == "__main__":
    main()
