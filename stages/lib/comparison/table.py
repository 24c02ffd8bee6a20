"""Write the comparison as Markdown: a table of the arms, one of the differences, one of the audit.

python -m stages.lib.comparison.table metrics/compare.json
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stages.lib.comparison.results import (
    Arm,
    Audit,
    ChurnOfPair,
    ComparedScore,
    Comparison,
    Difference,
    Score,
    Spread,
    Trainings,
)
from stages.lib.comparison.warnings import sentence
from stages.lib.rows import read_json
from stages.lib.rows.preference import Counts

CAVEAT = (
    "The finding follows p (Holm), which is corrected for the number of differences; detectable is the smallest "
    "difference, in points, that as many questions would show four times in five. The intervals are those of the "
    "questions; another training of the same arm differs besides."
)
AUDIT = {
    "differ": "differ",
    "cut_off": "cut off",
    "task_stop": "task's stop",
    "no_end_marker": "no end marker",
    "unread": "unread",
    "other_language": "other language",
    "looping": "looping",
}
FLAGS = tuple(name for name in AUDIT if name != "differ")  # those of one answer
EXACT = "exact p (McNemar)"
IF_UNSURE = "if unsure wrong – right"
UNSURE = (
    "The verifier's score counts an unsure verdict as not right; beside it stands what it would be if all unsure ones "
    "were wrong, and if all were right."
)
PREFERENCE_HEADS = (
    "wins",
    "losses",
    "ties",
    "n",
    "flipped with the order",
    "to the first shown",
    "unread",
    "longer : shorter won",
    "length correlation",
)
PREFERENCE_NOTE = (
    "Each question was judged in both orders. An arm wins it where both verdicts name it; everything else is a tie, "
    "also a verdict that could not be read. The difference on preference is the net win rate: wins minus losses, of "
    "all questions. Many flips mean a judge that sees little difference; a length correlation far from 0 means that "
    "length may have decided."
)
METHODS = {
    "pseudo_pairs": "Student's t after pseudo-pairs were added",
    "tango": "Tango's score interval and the score test that it inverts",
}
MCNEMAR = (
    "McNemar's exact p is shown for reference, where no two questions repeat a problem; the finding does not use it."
)
FLIPS, CHURN_ALONE, TRAININGS = "flips", "churn alone", "over trainings"
CHURN_NOTE = (
    "Flips: of the questions that the same weights were asked a second time, with another batch size, how many changed "
    "between right and wrong, for the first and the second arm; in brackets the points by which that changes their "
    "score. Churn alone moves the difference so far (at the confidence of the interval) if both arms are evaluated "
    "once more; after ≤ the same from the upper ends of the intervals of the flips."
)
TRAININGS_NOTE = (
    "Over trainings: the mean of the difference over trainings with other seeds, and Student's t interval of it. Few "
    "seeds make it wide: with three, its half-width is 2.5 standard deviations. ≥: the seeds lie closer together than "
    "the choice of their questions lets them, so the standard error of that choice stands for their spread. No spread "
    "seen: all seeds of the same questions have the same difference, which says nothing about the next training."
)
NO_SPREAD = "no spread seen"
HEADLINES = {"verifier": "the verifier's", "lm_eval": "lm-eval's"}


def comparison_table(comparison: Comparison) -> str:
    """The tables of the arms and of the differences, with the notes that explain them."""
    interval = f"{comparison.confidence * 100:g} % interval"
    arms = _table(
        ["benchmark", "arm", "rows", "steps", "score", interval, "n", "lm-eval", "verifier", IF_UNSURE],
        [_score_row(benchmark, name, arm, score) for benchmark, name, arm, score in scores(comparison)],
    )
    noise = noise_heads(comparison)
    differences = _table(
        ["paired difference", "benchmark", "points", interval, *noise, "p", EXACT, "p (Holm)", "detectable", "finding"],
        [
            [
                pair.name,
                benchmark,
                f"**{signed(found.difference)}**",
                f"{signed(found.low)} – {signed(found.high)}",
                *noise_cells(found, noise),
                p_value(found.p),
                p_value(found.mcnemar_p),
                p_value(found.p_holm),
                points(found.detectable),
                found.finding,
            ]
            for pair in comparison.pairs.values()
            for benchmark, found in pair.benchmarks.items()
        ],
    )
    has_pairs = any(pair.benchmarks for pair in comparison.pairs.values())
    shown = [arms] if comparison.benchmarks else []
    shown += [asked_and_scored(comparison)]
    shown += [differences, caveat(comparison)] if has_pairs or comparison.benchmarks else []
    return "\n\n".join([*shown, *filter(None, [preference_table(comparison)])])


def noise_heads(comparison: Comparison) -> list[str]:
    """The columns of the noise of the measure, of which none is there for what was not measured."""
    found = [each for pair in comparison.pairs.values() for each in pair.benchmarks.values()]
    churn = [FLIPS, CHURN_ALONE] if any(each.churn for each in found) else []
    return churn + ([TRAININGS] if any(each.trainings for each in found) else [])


def noise_cells(found: Difference, heads: Sequence[str]) -> list[str]:
    """The cells of ``noise_heads``; dashes where only other differences have them."""
    cells = {FLIPS: _flips(found.churn), CHURN_ALONE: churn_alone(found.churn), TRAININGS: over(found.trainings)}
    return [cells[head] for head in heads]


def _flips(churn: ChurnOfPair | None) -> str:
    if churn is None:
        return "–"
    return ", ".join(f"{each.flipped} of {each.n} ({signed(each.net or 0.0)})" for each in (churn.first, churn.second))


def churn_alone(churn: ChurnOfPair | None) -> str:
    """How far churn alone moves the difference, in points, or a dash."""
    return f"±{points(churn.alone)} (≤ {points(churn.alone_at_most)})" if churn else "–"


def over(trainings: Trainings | None) -> str:
    """The mean over the trainings and its interval, in points, or a dash."""
    if trainings is None:
        return "–"
    interval = interval_over(trainings.low, trainings.high, trainings.spread)
    return f"{signed(trainings.mean)}, {interval} ({len(trainings.seeds)} seeds)"


def interval_over(low: float | None, high: float | None, spread: Spread) -> str:
    """The interval over trainings, in points; ``≥`` where the error of the questions stands for the spread."""
    if low is None or high is None:
        return NO_SPREAD
    return f"{'≥ ' if spread == 'questions' else ''}{signed(low)} – {signed(high)}"


def noise_notes(comparison: Comparison) -> list[str]:
    """What the columns of the noise say."""
    heads = noise_heads(comparison)
    return [*([CHURN_NOTE] if FLIPS in heads else []), *([TRAININGS_NOTE] if TRAININGS in heads else [])]


def preference_table(comparison: Comparison) -> str:
    """The judge's preference between the arms of each pair, and its biases; an empty text without a judge."""
    rows = [[name, *preference_cells(counts)] for name, counts in preferences(comparison)]
    return f"{_table(['preference', *PREFERENCE_HEADS], rows)}\n\n{judged_by(comparison)}" if rows else ""


def preferences(comparison: Comparison) -> list[tuple[str, Counts]]:
    """The pairs that a judge compared, with its counts."""
    return [(pair.name, pair.preference) for pair in comparison.pairs.values() if pair.preference]


def preference_cells(counts: Counts) -> list[str]:
    """The cells of ``PREFERENCE_HEADS``."""
    flips = f"{counts.flipped} ({counts.flipped_share * 100:.1f} %)"
    correlation = "–" if counts.length_correlation is None else f"{counts.length_correlation:+.2f}".replace("-", "−")
    longer = f"{counts.longer_wins} : {counts.shorter_wins}"
    cells = [counts.wins, counts.losses, counts.ties, counts.n, flips, counts.flipped_to_a, counts.unsure]
    return [*map(str, cells), longer, correlation]


def judged_by(comparison: Comparison) -> str:
    """The judge, and what its table counts."""
    judge = comparison.judge
    return f"Judge: {judge.model}, prompt {judge.prompt}. {PREFERENCE_NOTE}" if judge else ""


def scores(comparison: Comparison) -> Iterator[tuple[str, str, Arm, ComparedScore]]:
    """Every score with its benchmark and arm, one benchmark after the other."""
    for benchmark in comparison.benchmarks:
        for name, arm in comparison.arms.items():
            if benchmark in arm.benchmarks:
                yield benchmark, name, arm, arm.benchmarks[benchmark]


def _score_row(benchmark: str, name: str, arm: Arm, score: ComparedScore) -> list[str]:
    return [
        benchmark,
        name,
        str(arm.training.rows) if arm.training else "–",
        str(arm.training.steps) if arm.training else "–",
        f"**{points(score.value)} %**",
        f"{points(score.low)} – {points(score.high)}",
        str(score.n),
        points(score.lm_eval),
        points(score.verifier),
        if_unsure(score),
    ]


def if_unsure(score: Score) -> str:
    """The verifier's score if all unsure verdicts were wrong, and if all were right; a dash where there is none."""
    if score.if_unsure_wrong is None or score.if_unsure_right is None:
        return "–"
    return f"{points(score.if_unsure_wrong)} – {points(score.if_unsure_right)}"


def asked_and_scored(comparison: Comparison) -> str:
    """Each arm's system text, the score that counts on each benchmark, and the effect of unsure verdicts."""
    prompts, headlines = by_group(arms_by_prompt(comparison, "none")), benchmarks_by_headline(comparison)
    if not headlines:
        return f"System text: {prompts}. No benchmark has a score."
    whose = by_group({HEADLINES[headline]: names for headline, names in headlines.items()})
    return f"System text: {prompts}. The score is {whose}. {UNSURE}"


def arms_by_prompt(comparison: Comparison, without: str) -> dict[str, list[str]]:
    """The arms by the name of their system text, ``without`` for those that have none."""
    return _grouped((arm.system_prompt or without, name) for name, arm in comparison.arms.items())


def benchmarks_by_headline(comparison: Comparison) -> dict[str, list[str]]:
    """The benchmarks by the score that counts on them."""
    return _grouped((score.headline, benchmark) for benchmark, _, _, score in scores(comparison))


def benchmarks_by_method(comparison: Comparison) -> dict[str, list[str]]:
    """The benchmarks by the method of their differences' intervals."""
    differences = (each for pair in comparison.pairs.values() for each in pair.benchmarks.items())
    return _grouped((found.interval, benchmark) for benchmark, found in differences)


def caveat(comparison: Comparison) -> str:
    """How the differences' intervals and p were computed, and the limits of the findings."""
    methods = benchmarks_by_method(comparison)
    if not methods:
        return CAVEAT
    used = by_group({METHODS[method]: names for method, names in methods.items()})
    return " ".join([f"Interval and p of a difference: {used}. {MCNEMAR} {CAVEAT}", *noise_notes(comparison)])


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The second of each pair by the first, each once."""
    groups: dict[str, dict[str, None]] = {}
    for group, name in pairs:
        groups.setdefault(group, {})[name] = None
    return {group: list(names) for group, names in groups.items()}


def by_group(groups: dict[str, list[str]]) -> str:
    """``brief (filtered), none (base)``; of one group its name alone."""
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{what} ({', '.join(names)})" for what, names in groups.items())


def audit_table(comparison: Comparison) -> str:
    """The table of the audit; an empty text where no answer was generated."""
    rows = [[benchmark, name, *audit_cells(audit)] for benchmark, name, audit in audits(comparison)]
    return _table(["benchmark", "arm", *AUDIT.values(), "tokens", "95 % below"], rows) if rows else ""


def audits(comparison: Comparison) -> list[tuple[str, str, Audit]]:
    """Every audit of generated answers with its benchmark and arm, those of benchmarks without a score last."""
    found: list[tuple[str, str, Audit]] = [(where, name, score) for where, name, _, score in scores(comparison)]
    for benchmark in comparison.unscored:
        arms = comparison.arms.items()
        found += [(benchmark, name, arm.unscored[benchmark]) for name, arm in arms if benchmark in arm.unscored]
    return [(benchmark, name, audit) for benchmark, name, audit in found if audit.is_audited]


def audit_cells(score: Audit) -> list[str]:
    """The number of answers on which the two scores differ, the audit's shares, the median and 95 % length."""
    shares = [percent(getattr(score, name)) for name in FLAGS]
    return [_count(score.differ), *shares, _count(score.tokens_median), _count(score.tokens_p95)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head, *lines = (f"| {' | '.join(line)} |" for line in (heads, *rows))
    return "\n".join([head, "|---" * len(heads) + "|", *lines])


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:g}"


def percent(share: float | None) -> str:
    """A share in per cent with its sign, or a dash."""
    return "–" if share is None else f"{share * 100:.1f} %"


def points(share: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if share is None else f"{share * 100:.1f}"


def signed(share: float) -> str:
    """A difference of shares in points, always with its sign."""
    return f"{share * 100:+.1f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value to three digits, or a dash."""
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _shown(comparison: Comparison) -> str:
    """The output of ``make compare``."""
    warnings = "\n".join(f"* {sentence(warning)}" for warning in comparison.warnings)
    parts = [comparison_table(comparison), warnings, audit_table(comparison)]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    print(_shown(Comparison.model_validate(read_json(Path(sys.argv[1]), "Run 'dvc repro compare' to make it."))))
