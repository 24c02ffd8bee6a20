"""Warnings about confounders: differences between arms other than the one that is compared.

confounder_warnings({"base": Evaluation(…), "filtered": Evaluation(…)}, [["filtered", "base"]])
→ Warned(code="setting", arms=["base", "filtered"],
         values={"setting": "batch_size", "values": "50 (base), 8 (filtered)"})

comparison/warnings has the sentences.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stages.lib.comparison.results import Interval, Pair, Training, Warned
from stages.lib.comparison.table import by_group, signed
from stages.lib.statistics.evaluations import Evaluation

# arms that differ by a larger share of steps or trained tokens are marked
MAX_STEPS_DIFFERENCE, MAX_TOKENS_DIFFERENCE = 0.02, 0.05


def confounder_warnings(evaluations: Mapping[str, Evaluation], pairs: Sequence[Sequence[str]]) -> Iterator[Warned]:
    """The warnings about all arms first, because one table shows all their scores; then those about the pairs."""
    for name, evaluation in evaluations.items():
        yield from _score_warnings(name, evaluation)
    yield from _setting_warnings({name: evaluation.settings for name, evaluation in evaluations.items()})
    trained = {name: evaluation.training for name, evaluation in evaluations.items() if evaluation.training}
    unlike: dict[str, None] = {}  # arms whose compute is stated, each once
    for first, second in pairs:
        yield from _prompt_warnings((first, evaluations[first]), (second, evaluations[second]))
        if not (first in trained and second in trained):
            continue
        if trained[first].on_policy or trained[second].on_policy:
            yield Warned(code="unlike_compute", arms=[first, second], values=_names(first, second))
            unlike |= dict.fromkeys([*_with_starts(first, trained), *_with_starts(second, trained)])
        else:
            yield from _steps_warnings((first, trained[first]), (second, trained[second]))
        yield from _length_warnings((first, trained[first]), (second, trained[second]))
    for name in unlike:
        yield _compute(name, trained[name])


def _score_warnings(name: str, evaluation: Evaluation) -> Iterator[Warned]:
    """A warning where a benchmark's score differs from the share of right answers, which is what is compared."""
    for benchmark, score in evaluation.scores.items():
        answers = evaluation.answers[benchmark]
        share = sum(answer.correct for answer in answers.values()) / len(answers)
        if abs(share - score.value) > 0.0001:
            shown = {"score": f"{score.value:.4f}", "share": f"{share:.4f}"}
            yield Warned(code="score", arms=[name], values={"arm": name, "benchmark": benchmark, **shown})


def _setting_warnings(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Warned]:
    """A warning for each setting of the evaluation that differs between arms."""
    flat = {name: dict(_flat(each)) for name, each in settings.items()}
    for setting in sorted({key for each in flat.values() for key in each}):
        values: dict[str, list[str]] = {}
        for name, each in flat.items():
            values.setdefault(each.get(setting, "–"), []).append(name)
        if len(values) > 1:
            yield Warned(code="setting", arms=list(flat), values={"setting": setting, "values": by_group(values)})


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """``{"versions": {"torch": "2.13.0"}}`` → ``("versions.torch", "2.13.0")``."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _prompt_warnings(one: tuple[str, Evaluation], other: tuple[str, Evaluation]) -> Iterator[Warned]:
    text, other_text = one[1].system_prompt, other[1].system_prompt
    if text == other_text:
        return
    if not text:
        one, other, text, other_text = other, one, other_text, text
    values = {"first": one[0], "second": other[0], "text": text or "", "other_text": other_text or ""}
    code = "prompts" if other_text else "no_prompt"
    yield Warned(code=code, arms=[one[0], other[0]], values={name: said for name, said in values.items() if said})


def _steps_warnings(one: tuple[str, Training], other: tuple[str, Training]) -> Iterator[Warned]:
    (first, training), (second, other_training) = one, other
    if _differs_by_more_than(training.steps, other_training.steps, MAX_STEPS_DIFFERENCE) or _differs_by_more_than(
        training.tokens_trained, other_training.tokens_trained, MAX_TOKENS_DIFFERENCE
    ):
        others = {f"other_{name}": value for name, value in _trained(other_training).items()}
        yield Warned(code="steps", arms=[first, second], values=_names(first, second) | _trained(training) | others)


def _length_warnings(one: tuple[str, Training], other: tuple[str, Training]) -> Iterator[Warned]:
    (first, training), (second, other_training) = one, other
    for code, count, other_count in (
        ("left_out", training.rows_too_long, other_training.rows_too_long),
        ("shortened", training.rows_shortened, other_training.rows_shortened),
    ):
        if count != other_count:
            counts: dict[str, int | str] = {"count": count, "other_count": other_count}
            yield Warned(code=code, arms=[first, second], values=_names(first, second) | counts)


def _with_starts(name: str, trained: Mapping[str, Training]) -> Iterator[str]:
    """An arm, and the trained ones from which it starts."""
    yield name
    start = trained[name].start_from
    if start and start in trained:
        yield from _with_starts(start, trained)


def _compute(name: str, training: Training) -> Warned:
    """What a training read and wrote; of an on-policy one also its teacher's part.

    A token that the student rolls out goes through it twice, to be written and to be trained on; so do its prompts.
    """
    values = {"arm": name} | _trained(training)
    if not (found := training.on_policy):
        return Warned(code="compute", arms=[name], values=values)
    start = {"start_from": training.start_from or "–"}
    read = {"read": found.tokens_prompted + found.tokens_rolled_out, "of_teacher": found.tokens_of_teacher}
    return Warned(code="compute_on_policy", arms=[name], values=values | read | start)


def _names(first: str, second: str) -> dict[str, int | str]:
    return {"first": first, "second": second}


def _trained(training: Training) -> dict[str, int | str]:
    return {"steps": training.steps, "tokens": training.tokens_trained}


def _differs_by_more_than(count: int, other_count: int, share: float) -> bool:
    return abs(count - other_count) > share * max(count, other_count)


def unsure_warnings(pair: Pair) -> Iterator[Warned]:
    """A warning where the verifier's unsure answers could reverse a difference that was found."""
    for benchmark, found in pair.benchmarks.items():
        low, high = found.if_unsure_low, found.if_unsure_high
        if found.finding != "no detectable difference" and low is not None and high is not None and low <= 0 <= high:
            values = {"pair": pair.name, "benchmark": benchmark, "low": signed(low), "high": signed(high)}
            yield Warned(code=f"unsure_{found.finding}", arms=[pair.first, pair.second], values=values)


def tango_warnings(interval: Interval, pairs: Iterable[Pair]) -> Iterator[Warned]:
    """A warning for each benchmark where Tango's interval is set and cannot be computed."""
    found = {name: difference for pair in pairs for name, difference in pair.benchmarks.items()}
    for benchmark, difference in found.items():
        if difference.interval != interval:
            values: dict[str, int | str] = {"benchmark": benchmark, "n": difference.n, "clusters": difference.clusters}
            yield Warned(code="tango", arms=[], values=values)
