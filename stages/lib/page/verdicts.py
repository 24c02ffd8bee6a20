"""What the comparison says, in sentences of the page's words: a key and the values of its text.

    verdicts(comparison)[0].sentence   → ("verdict.instead", {"first": "filtered", "benchmark": "gsm8k", …})

The words are in words/en.json and words/zh.json; the template writes them, the script translates them.
"""

from dataclasses import dataclass
from typing import Any

from stages.lib.comparison.results import ComparedScore, Comparison, Difference, Pair
from stages.lib.comparison.table import (
    CHURN_ALONE,
    TRAININGS,
    arms_by_prompt,
    benchmarks_by_headline,
    benchmarks_by_method,
    by_group,
    noise_heads,
    p_value,
    points,
    scores,
    signed,
)

Worded = tuple[str, dict[str, Any]]

BASE = "base"


@dataclass(frozen=True)
class Verdict:
    """A comparison on one benchmark: its sentence, the finding, and what makes the number doubtful."""

    first: str
    finding: str
    sentence: Worded
    found: Worded
    doubts: list[Worded]


def verdicts(comparison: Comparison) -> list[Verdict]:
    """A verdict on each difference, the main question last in params first: pairs go from the baseline to it."""
    pairs = reversed(list(comparison.pairs.values()))
    return [
        _verdict(comparison, pair, benchmark, found) for pair in pairs for benchmark, found in pair.benchmarks.items()
    ]


def _verdict(comparison: Comparison, pair: Pair, benchmark: str, found: Difference) -> Verdict:
    values = {
        "first": pair.first,
        "second": pair.second,
        "benchmark": benchmark,
        "difference": signed(found.difference),
    }
    values |= {"low": signed(found.low), "high": signed(found.high)}
    preferred = benchmark in comparison.unscored
    key = "preferred" if preferred else "trained" if pair.second == BASE else "instead"
    return Verdict(
        pair.first, found.finding, (f"verdict.{key}", values), _finding(found), _doubts(comparison, pair, benchmark)
    )


def _finding(found: Difference) -> Worded:
    if found.finding in ("better", "worse"):
        p = p_value(found.p_holm)
        return f"verdict.{found.finding}", {"p": p if p.startswith("<") else f"= {p}"}
    if found.detectable:
        return "verdict.none", {"n": found.n, "detectable": points(found.detectable)}
    return "verdict.none_bare", {"n": found.n}


def _doubts(comparison: Comparison, pair: Pair, benchmark: str) -> list[Worded]:
    """What the audit and the verifier say against the number."""
    found, doubts = pair.benchmarks[benchmark], []
    low, high = found.if_unsure_low, found.if_unsure_high
    if low is not None and high is not None and (low, high) != (found.difference, found.difference):
        doubts.append(("verdict.doubt_unsure", {"low": signed(low), "high": signed(high)}))
    if found.churn and found.churn.alone:
        doubts.append(("verdict.doubt_churn", {"alone": points(found.churn.alone)}))
    for name in (pair.first, pair.second):
        score = comparison.arms[name].benchmarks.get(benchmark)
        doubts += _doubts_of(name, score) if score else []
    return doubts


def _doubts_of(name: str, score: ComparedScore) -> list[Worded]:
    differ: list[Worded] = [("verdict.doubt_differ", {"n": score.differ, "arm": name})] if score.differ else []
    share = f"{points(score.cut_off or 0.0)}\u00a0%"
    return differ + ([("verdict.doubt_cut_off", {"arm": name, "share": share})] if score.cut_off else [])


def matrix(comparison: Comparison) -> dict[str, dict[str, ComparedScore]]:
    """The scores by benchmark and arm."""
    found: dict[str, dict[str, ComparedScore]] = {}
    for benchmark, name, _, score in scores(comparison):
        found.setdefault(benchmark, {})[name] = score
    return found


def asked_and_scored(comparison: Comparison) -> list[Worded]:
    """Each arm's system text, the score that counts on each benchmark, and the effect of unsure verdicts."""
    prompts, headlines = by_group(arms_by_prompt(comparison, "–")), benchmarks_by_headline(comparison)
    shown: list[Worded] = [("report.asked", {"prompts": prompts})]
    shown += [(f"report.scored_{whose}", {"benchmarks": ", ".join(names)}) for whose, names in headlines.items()]
    return [*shown, ("report.unsure", {})] if headlines else shown


def caveat(comparison: Comparison) -> list[Worded]:
    """How the intervals and p were computed, and the limits of the findings."""
    methods = benchmarks_by_method(comparison)
    shown: list[Worded] = [
        (f"report.method_{name}", {"benchmarks": ", ".join(names)}) for name, names in methods.items()
    ]
    mcnemar: list[Worded] = [("report.mcnemar", {})] if methods else []
    heads = noise_heads(comparison)
    notes: list[Worded] = [("report.churn_note", {})] if CHURN_ALONE in heads else []
    notes += [("report.trainings_note", {})] if TRAININGS in heads else []
    return [*shown, *mcnemar, ("report.caveat", {}), *notes]


def noise(found: Difference) -> list[Worded]:
    """The noise of the measure of a difference; empty where it was not measured."""
    shown: list[Worded] = []
    if found.churn:
        alone = {"alone": points(found.churn.alone), "at_most": points(found.churn.alone_at_most)}
        shown.append(("noise.churn", alone))
    if over := found.trainings:
        values: dict[str, Any] = {"mean": signed(over.mean), "n": len(over.seeds)}
        if over.low is not None and over.high is not None:
            values |= {"low": signed(over.low), "high": signed(over.high)}
        shown.append((f"noise.{over.spread}", values))
    return shown
