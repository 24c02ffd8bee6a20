"""Warnings about confounders: differences between arms other than the one that is compared. One sentence each.

confounder_warnings({"base": Evaluation(…), "filtered": Evaluation(…)}, [["filtered", "base"]])
→ "unlike batch_size in the evaluation: 50 for base; 8 for filtered. Part of a difference may come from that", …
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stages.lib.comparison.results import Interval, Pair, Training
from stages.lib.comparison.table import signed
from stages.lib.statistics.evaluations import Evaluation

MAX_STEPS_DIFFERENCE, MAX_TOKENS_DIFFERENCE = (
    0.02,
    0.05,
)  # arms that differ by a larger share of steps or trained tokens are marked


def confounder_warnings(evaluations: Mapping[str, Evaluation], pairs: Sequence[Sequence[str]]) -> Iterator[str]:
    """The warnings about all arms first, because one table shows all their scores; then those about the pairs."""
    for name, evaluation in evaluations.items():
        yield from _score_warnings(name, evaluation)
    yield from _setting_warnings({name: evaluation.settings for name, evaluation in evaluations.items()})
    for first, second in pairs:
        yield from _prompt_warnings((first, evaluations[first]), (second, evaluations[second]))
        one, other = evaluations[first].training, evaluations[second].training
        if one and other:
            yield from _compute_warnings((first, one), (second, other), evaluations)
            yield from _length_warnings((first, one), (second, other))


def _score_warnings(name: str, evaluation: Evaluation) -> Iterator[str]:
    """A warning where a benchmark's score differs from the share of right answers, which is what is compared."""
    for benchmark, score in evaluation.scores.items():
        answers = evaluation.answers[benchmark]
        share = sum(answer.correct for answer in answers.values()) / len(answers)
        if abs(share - score.value) > 0.0001:
            yield (
                f"{name}'s score on {benchmark} is {score.value:.4f}, its share of right answers {share:.4f}: "
                "intervals and differences are those of the share"
            )


def _setting_warnings(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A warning for each setting of the evaluation that differs between arms."""
    flat = {name: dict(_flat(each)) for name, each in settings.items()}
    for setting in sorted({key for each in flat.values() for key in each}):
        values: dict[str, list[str]] = {}
        for name, each in flat.items():
            values.setdefault(each.get(setting, "not set"), []).append(name)
        if len(values) > 1:
            found = "; ".join(f"{value} for {', '.join(names)}" for value, names in values.items())
            yield f"unlike {setting} in the evaluation: {found}. Part of a difference may come from that"


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """``{"versions": {"torch": "2.13.0"}}`` → ``("versions.torch", "2.13.0")``."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _prompt_warnings(one: tuple[str, Evaluation], other: tuple[str, Evaluation]) -> Iterator[str]:
    (first, evaluation), (second, other_evaluation) = one, other
    if evaluation.system_prompt != other_evaluation.system_prompt:
        yield (
            f"{first} was asked with {_system(evaluation)}, {second} with {_system(other_evaluation)}: "
            "the difference is not the training's alone"
        )


def _system(evaluation: Evaluation) -> str:
    return f"the system text '{evaluation.system_prompt}'" if evaluation.system_prompt else "no system text"


def _compute_warnings(
    one: tuple[str, Training], other: tuple[str, Training], evaluations: Mapping[str, Evaluation]
) -> Iterator[str]:
    (first, training), (second, other_training) = one, other
    if training.on_policy or other_training.on_policy:
        both = "; ".join(_compute(name, evaluations) for name in (first, second))
        yield f"unlike compute: {both}. The difference is not the method's alone"
    elif _differs_by_more_than(training.steps, other_training.steps, MAX_STEPS_DIFFERENCE) or _differs_by_more_than(
        training.tokens_trained, other_training.tokens_trained, MAX_TOKENS_DIFFERENCE
    ):
        yield (
            f"{first} was trained for {training.steps:,} steps on {training.tokens_trained:,} tokens, {second} for "
            f"{other_training.steps:,} on {other_training.tokens_trained:,}: the difference is not the data's alone"
        )


def _length_warnings(one: tuple[str, Training], other: tuple[str, Training]) -> Iterator[str]:
    (first, training), (second, other_training) = one, other
    for what, count, other_count in (
        ("left out", training.rows_too_long, other_training.rows_too_long),
        ("shortened", training.rows_shortened, other_training.rows_shortened),
    ):
        if count != other_count:
            yield f"over cutoff_len: {count:,} rows of {first} were {what}, {other_count:,} of {second}"


def _compute(name: str, evaluations: Mapping[str, Evaluation]) -> str:
    """What a training read and wrote; of an on-policy one also its teacher's part and the training that it starts from.

    A token that the student rolls out goes through it twice, to be written and to be trained on; so do its prompts.
    """
    training = evaluations[name].training
    assert training  # only trained arms are compared here
    trained = f"{name} was trained for {training.steps:,} steps on {training.tokens_trained:,} tokens"
    if not (found := training.on_policy):
        return trained
    read = found.tokens_prompted + found.tokens_rolled_out
    start = training.start_from or ""
    before = _compute(start, evaluations) if start in evaluations and evaluations[start].training else f"it was {start}"
    return (
        f"{trained} that it rolled out itself: {read:,} went through it to write them and again to train, and "
        f"{found.tokens_of_teacher:,} through its teacher; before that, {before}"
    )


def _differs_by_more_than(count: int, other_count: int, share: float) -> bool:
    return abs(count - other_count) > share * max(count, other_count)


def unsure_warnings(pair: Pair) -> Iterator[str]:
    """A warning where the verifier's unsure answers could reverse a difference that was found."""
    for benchmark, found in pair.benchmarks.items():
        low, high = found.if_unsure_low, found.if_unsure_high
        if found.finding != "no detectable difference" and low is not None and high is not None and low <= 0 <= high:
            yield (
                f"{pair.name} on {benchmark} is {found.finding}, but the verifier's unsure answers leave anything from "
                f"{signed(low)} to {signed(high)} points: read the examples of the kind 'unread'"
            )


def tango_warnings(interval: Interval, pairs: Iterable[Pair]) -> Iterator[str]:
    """A warning for each benchmark where Tango's interval is set and cannot be computed."""
    found = {name: difference for pair in pairs for name, difference in pair.benchmarks.items()}
    for benchmark, difference in found.items():
        if difference.interval != interval:
            yield (
                f"compare.interval: Tango's interval needs independent pairs, and the {difference.n:,} questions of "
                f"{benchmark} repeat {difference.clusters:,} problems: pseudo_pairs stands there instead"
            )
