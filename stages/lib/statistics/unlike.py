"""What makes arms unlike besides what is compared, each in one sentence.

unlike_arms({"base": Evaluation(…), "filtered": Evaluation(…)}, [["filtered", "base"]])
→ "unlike batch_size in the evaluation: 50 for base; 8 for filtered. Part of a difference may come from that", …
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stages.lib.comparison.results import Interval, Pair, Training
from stages.lib.comparison.table import signed
from stages.lib.statistics.evaluations import Evaluation

UNLIKE_STEPS, UNLIKE_TOKENS = 0.02, 0.05  # arms that differ by a larger share of steps or trained tokens are marked


def unlike_arms(evaluations: Mapping[str, Evaluation], pairs: Sequence[Sequence[str]]) -> Iterator[str]:
    """Warnings of all arms first, for their scores stand in one table whether or not they are a pair; then of pairs."""
    for name, evaluation in evaluations.items():
        yield from _unlike_shares(name, evaluation)
    yield from _unlike_settings({name: evaluation.settings for name, evaluation in evaluations.items()})
    for first, second in pairs:
        yield from _unlike_prompts((first, evaluations[first]), (second, evaluations[second]))
        one, other = evaluations[first].training, evaluations[second].training
        if one and other:
            yield from _unlike_trainings((first, one), (second, other))


def _unlike_shares(name: str, evaluation: Evaluation) -> Iterator[str]:
    """A warning where a benchmark's score is not the share of right answers that is compared."""
    for benchmark, score in evaluation.scores.items():
        answers = evaluation.answers[benchmark]
        share = sum(answer.correct for answer in answers.values()) / len(answers)
        if abs(share - score.value) > 0.0001:
            yield (
                f"{name}'s score on {benchmark} is {score.value:.4f}, its share of right answers {share:.4f}: "
                "intervals and differences are those of the share"
            )


def _unlike_settings(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A warning for each setting of the evaluation that was not the same for all arms."""
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


def _unlike_prompts(one: tuple[str, Evaluation], other: tuple[str, Evaluation]) -> Iterator[str]:
    (first, seen), (second, seen_too) = one, other
    if seen.system_prompt != seen_too.system_prompt:
        yield (
            f"{first} was asked with {_system(seen)}, {second} with {_system(seen_too)}: "
            "the difference is not the training's alone"
        )


def _system(evaluation: Evaluation) -> str:
    return f"the system text '{evaluation.system_prompt}'" if evaluation.system_prompt else "no system text"


def _unlike_trainings(one: tuple[str, Training], other: tuple[str, Training]) -> Iterator[str]:
    (first, seen), (second, seen_too) = one, other
    if _far(seen.steps, seen_too.steps, UNLIKE_STEPS) or _far(
        seen.tokens_trained, seen_too.tokens_trained, UNLIKE_TOKENS
    ):
        yield (
            f"{first} was trained for {seen.steps:,} steps on {seen.tokens_trained:,} tokens, {second} for "
            f"{seen_too.steps:,} on {seen_too.tokens_trained:,}: the difference is not the data's alone"
        )
    for what, count, count_too in (
        ("left out", seen.rows_too_long, seen_too.rows_too_long),
        ("shortened", seen.rows_shortened, seen_too.rows_shortened),
    ):
        if count != count_too:
            yield f"over cutoff_len: {count:,} rows of {first} were {what}, {count_too:,} of {second}"


def _far(count: int, count_too: int, share: float) -> bool:
    return abs(count - count_too) > share * max(count, count_too)


def undone(pair: Pair) -> Iterator[str]:
    """A warning where a difference was found that the verifier's unsure answers could undo."""
    for benchmark, found in pair.benchmarks.items():
        low, high = found.if_unsure_low, found.if_unsure_high
        if found.finding != "no detectable difference" and low is not None and high is not None and low <= 0 <= high:
            yield (
                f"{pair.name} on {benchmark} is {found.finding}, but the verifier's unsure answers leave anything from "
                f"{signed(low)} to {signed(high)} points: read the examples of the kind 'unread'"
            )


def without_tango(interval: Interval, pairs: Iterable[Pair]) -> Iterator[str]:
    """A warning for each benchmark on which Tango's interval was asked for and cannot be given."""
    found = {name: difference for pair in pairs for name, difference in pair.benchmarks.items()}
    for benchmark, difference in found.items():
        if difference.interval != interval:
            yield (
                f"compare.interval: Tango's interval needs independent pairs, and the {difference.n:,} questions of "
                f"{benchmark} repeat {difference.clusters:,} problems: pseudo_pairs stands there instead"
            )
