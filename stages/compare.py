"""Compare the arms: their scores by benchmark, and their differences on the same questions, with intervals.

A judge's preference between two arms (prefer) is one more difference: the net win rate.

Beside each difference stands the noise of the measure: the churn of both arms, if they were evaluated twice, and an
interval over trainings, if 'make seeds' trained them on several seeds.

In:   metrics/eval (ARM.json and ARM.scores.csv of each arm), metrics/train (ARM.json), metrics/prefer.json,
      metrics/seeds.json
Out:  metrics/compare.json   {"confidence": 0.95, "arms": {"base": {…}}, "pairs": {"filtered_vs_base": {…}}}
      metrics/compare.csv    one row per pair and benchmark, for ``dvc plots show metrics/compare.csv``

Alone:  python -m stages.compare --eval metrics/eval --train metrics/train --prefer metrics/prefer.json
        --seeds metrics/seeds.json --out C.json --table C.csv
"""

import csv
import io
import logging
from dataclasses import asdict
from pathlib import Path

import click
from pydantic import ValidationError

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.comparison.results import (
    Arm,
    ChurnOfPair,
    ComparedScore,
    Comparison,
    Difference,
    Finding,
    Pair,
    Score,
    Trainings,
)
from stages.lib.comparison.table import points, signed
from stages.lib.comparison.warnings import sentence
from stages.lib.pairs import pairs_of
from stages.lib.params import PREFERENCE, Compare, load_params
from stages.lib.rows import DataError, read_json, write_json, writing
from stages.lib.rows.preference import Counts, PreferenceMetrics
from stages.lib.statistics.confounders import confounder_warnings, tango_warnings, unsure_warnings
from stages.lib.statistics.evaluations import Answers, Evaluation, read_evaluation
from stages.lib.statistics.noise import churn_alone, error_of, over_trainings
from stages.lib.statistics.paired import PairedDifference, holm, paired_difference, proportion
from stages.lib.statistics.trainings import DRAWN, Repeated, read_seeds

log = logging.getLogger("distillery.compare")


@click.command(help="Compare the arms on the same questions.")
@click.option("--eval", "eval_path", type=READ, required=True, help="The folder of the arms' scores, read.")
@click.option("--train", "train_path", type=READ, required=True, help="The folder of the trainings' metrics, read.")
@click.option("--prefer", "prefer_path", type=READ, required=True, help="Counts of the judge's preferences, read.")
@click.option("--seeds", "seeds_path", type=READ, required=True, help="Differences by seed ('make seeds'), read.")
@click.option("--out", "out_path", type=WRITE, required=True, help="The comparison, written.")
@click.option("--table", "table_path", type=WRITE, required=True, help="The differences as CSV, written.")
@params_option
@one_line_errors
def main(
    eval_path: Path,
    train_path: Path,
    prefer_path: Path,
    seeds_path: Path,
    out_path: Path,
    table_path: Path,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    evaluations = {name: read_evaluation(eval_path, train_path, name) for name in ["base", *params.trained_arms]}
    repeated = read_seeds(seeds_path, eval_path, evaluations)
    comparison = compare(evaluations, read_preferences(prefer_path), repeated, params.compare)
    write_json(out_path, comparison.model_dump())
    write_table(table_path, comparison)
    for warning in comparison.warnings:
        log.warning("compare: %s", sentence(warning))
    for pair in comparison.pairs.values():
        if repeated.is_of_another_run(pair.first, pair.second):
            log.info("compare: %s: %s is of another run ('make seeds')", pair.name, seeds_path)
        log.info("compare: %s", _sentence(pair))


def compare(
    evaluations: dict[str, Evaluation], preferences: PreferenceMetrics, repeated: Repeated, params: Compare
) -> Comparison:
    """Each arm's scores, each pair's differences, and the warnings about confounders."""
    starts = {name: each.training.start_from for name, each in evaluations.items() if each.training}
    named = pairs_of(params, list(evaluations), {name: start for name, start in starts.items() if start})
    pairs = _pairs(named, evaluations, preferences.pairs, repeated, params)
    return Comparison(
        confidence=params.confidence,
        arms={name: _arm(evaluation, params.confidence) for name, evaluation in evaluations.items()},
        pairs=pairs,
        warnings=[
            *confounder_warnings(evaluations, named),
            *tango_warnings(params.interval, pairs.values()),
            *(warning for pair in pairs.values() for warning in unsure_warnings(pair)),
        ],
        judge=preferences.judge,
    )


def read_preferences(path: Path) -> PreferenceMetrics:
    """The judge's counts of each pair; none without a judge."""
    advice = "Run 'dvc repro prefer' to rebuild it."
    try:
        return PreferenceMetrics.model_validate(read_json(path, advice))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{path}: {where}: {error.errors()[0]['msg']}. {advice}") from error


def _arm(evaluation: Evaluation, confidence: float) -> Arm:
    scores = {name: _compared(score, evaluation.answers[name], confidence) for name, score in evaluation.scores.items()}
    return Arm(
        training=evaluation.training,
        system_prompt=evaluation.system_prompt,
        benchmarks=scores,
        unscored=evaluation.unscored,
    )


def _compared(score: Score, answers: Answers, confidence: float) -> ComparedScore:
    right, clusters = [answer.correct for answer in answers.values()], [answer.cluster for answer in answers.values()]
    share = proportion(right, confidence, clusters)
    interval = {"low": round(share.low, 4), "high": round(share.high, 4), "correct": share.correct}
    return ComparedScore.model_validate(score.model_dump() | interval)


def _pairs(
    pairs: list[list[str]],
    evaluations: dict[str, Evaluation],
    preferences: dict[str, Counts],
    repeated: Repeated,
    params: Compare,
) -> dict[str, Pair]:
    """The differences; their p-values are corrected together, because one of many tests is significant by chance."""
    counts = {(first, second): preferences.get(f"{first}_vs_{second}") for first, second in pairs}
    found = {
        (first, second, benchmark): difference
        for first, second in pairs
        for benchmark, difference in {
            **_differences(first, second, evaluations, params),
            **_net_win_rate(counts[first, second], params),
        }.items()
    }
    corrected = dict(zip(found, holm([difference.p for difference in found.values()]), strict=True))
    return {
        f"{first}_vs_{second}": Pair(
            first=first,
            second=second,
            benchmarks={
                key[2]: _difference(
                    difference,
                    corrected[key],
                    _if_unsure(evaluations[first].scores.get(key[2]), evaluations[second].scores.get(key[2])),
                    params.confidence,
                ).model_copy(
                    update={
                        "churn": _churn(evaluations[first], evaluations[second], key[2], difference.n, params),
                        "trainings": _trainings(repeated, *key, difference, params),
                    }
                )
                for key, difference in found.items()
                if key[:2] == (first, second)
            },
            preference=counts[first, second],
        )
        for first, second in pairs
    }


def _churn(first: Evaluation, second: Evaluation, benchmark: str, n: int, params: Compare) -> ChurnOfPair | None:
    scores = [each.scores.get(benchmark) for each in (first, second)]
    match [score.churn for score in scores if score and score.churn]:
        case [one, other]:
            return churn_alone(one, other, n, params.confidence)
    return None


def _trainings(
    repeated: Repeated, first: str, second: str, benchmark: str, own: PairedDifference, params: Compare
) -> Trainings | None:
    differences = repeated.of(first, second, benchmark)
    if len(differences) < 2:
        return None
    questions = repeated.seeds.questions[benchmark]
    error = repeated.seeds.errors.get(f"{first}_vs_{second}", {}).get(benchmark)
    if error is None:  # an older file
        is_drawn = questions == DRAWN
        error = error_of(own.difference, own.low, own.high, params.confidence) if is_drawn else 0.0
    found = over_trainings(differences, params.confidence, error)
    return Trainings(
        seeds=repeated.seeds.seeds,
        differences=differences,
        mean=round(found.mean, 4),
        low=None if found.low is None else round(found.low, 4),
        high=None if found.high is None else round(found.high, 4),
        spread=found.spread,
        questions=questions,
    )


def _net_win_rate(counts: Counts | None, params: Compare) -> dict[str, PairedDifference]:
    """Wins minus losses as a share of the questions: a paired difference, in which a tie is a concordant pair."""
    if counts is None:
        return {}
    won = [True] * counts.wins + [False] * (counts.losses + counts.ties)
    lost = [False] * counts.wins + [True] * counts.losses + [False] * counts.ties
    return {PREFERENCE: paired_difference(won, lost, params.confidence, interval=params.interval)}


def _differences(
    first: str, second: str, evaluations: dict[str, Evaluation], params: Compare
) -> dict[str, PairedDifference]:
    one, other = evaluations[first].answers, evaluations[second].answers
    if {name: answers.keys() for name, answers in one.items()} != {name: rows.keys() for name, rows in other.items()}:
        raise DataError(
            f"compare.pairs: '{first}' and '{second}' were not asked the same questions. "
            "Run 'dvc repro evaluate-base evaluate'."
        )
    return {name: _paired(one[name], other[name], params) for name in one}


def _paired(one: Answers, other: Answers, params: Compare) -> PairedDifference:
    clusters = [answer.cluster for answer in one.values()]
    first, second = [answer.correct for answer in one.values()], [other[question].correct for question in one]
    return paired_difference(first, second, params.confidence, clusters, params.interval)


def _difference(found: PairedDifference, p_holm: float, if_unsure: dict[str, float], confidence: float) -> Difference:
    finding: Finding = "no detectable difference"
    if p_holm < 1 - confidence:
        finding = "better" if found.difference > 0 else "worse"
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(found).items()}
    exact = None if found.mcnemar_p is None else round(found.mcnemar_p, 6)
    ps = {"p": round(found.p, 6), "mcnemar_p": exact, "p_holm": round(p_holm, 6)}
    return Difference.model_validate(rounded | if_unsure | ps | {"finding": finding})


def _sentence(pair: Pair) -> str:
    return f"{pair.name}: {'; '.join(_found(name, difference) for name, difference in pair.benchmarks.items())}"


def _found(benchmark: str, difference: Difference) -> str:
    could = f" ({points(difference.detectable)} would have shown)" if difference.detectable else ""
    said = difference.finding if difference.finding != "no detectable difference" else f"{difference.finding}{could}"
    return f"{benchmark} {signed(difference.difference)} points, {said}"


def _if_unsure(one: Score | None, other: Score | None) -> dict[str, float]:
    """The smallest and largest difference that unsure answers allow; empty where lm-eval's score is compared."""
    scores = [score for score in (one, other) if score and score.headline == "verifier"]
    ranges = [(score.if_unsure_wrong, score.if_unsure_right) for score in scores]
    match ranges:
        case [(float() as low, float() as high), (float() as other_low, float() as other_high)]:
            return {"if_unsure_low": round(low - other_high, 4), "if_unsure_high": round(high - other_low, 4)}
    return {}


def write_table(path: Path, comparison: Comparison) -> None:
    """Write the differences, one row per pair and benchmark, for ``dvc plots``."""
    measured = ["difference", "low", "high", "interval", "p", "mcnemar_p", "p_holm", "detectable", "n"]
    measured += ["if_unsure_low", "if_unsure_high"]
    text = io.StringIO()
    heads = ["pair", "benchmark", *measured, "finding"]
    table = csv.DictWriter(text, heads, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for pair in comparison.pairs.values():
        for benchmark, difference in pair.benchmarks.items():
            table.writerow({"pair": pair.name, "benchmark": benchmark} | difference.model_dump())
    with writing(path) as file:
        file.write(text.getvalue().encode())


if __name__ == "__main__":
    main()
