"""What a few questions say about the whole run: its requests, tokens, cost and time, and the training of each arm.

Every figure has a 95 % interval: Student's for a mean of few values, Clopper and Pearson's for a share. The values are
means of questions, because the samples of one question are alike. A Student interval is wide for few questions, and too
narrow where the answers' lengths are very unequal and the few questions have no long one: a larger N is the remedy.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from stages.distill import NOT_ASKED
from stages.lib.params import Arm, Batch, Params, Price, Role, Run, audit_of, judge_of
from stages.lib.replies.usage import Tokens
from stages.lib.rows.distilled import Distilled, Failure
from stages.lib.rows.filtered import Rejected
from stages.lib.teacher.pricing import money, tokens_cost
from stages.lib.teacher.progress import duration
from stages.lib.teacher.spending import max_cost
from stages.preview.chain import Preview, Trained

CONFIDENCE = 0.95
DATASETS = ("data/distilled.jsonl", "data/filtered.jsonl", "data/control.jsonl")  # made of the teacher's answers


@dataclass(frozen=True)
class Range:
    """An estimate and its interval; ``low`` and ``high`` are None where one value alone gives no interval."""

    about: float
    low: float | None = None
    high: float | None = None

    def times(self, other: "Range | float") -> "Range":
        """The product with a number, or with another estimate (both low ends, both high ends)."""
        factor = other if isinstance(other, Range) else exactly(other)
        if self.low is None or self.high is None or factor.low is None or factor.high is None:
            return Range(self.about * factor.about)
        return Range(self.about * factor.about, self.low * factor.low, self.high * factor.high)

    def at_least(self, least: float) -> "Range":
        """The same, with nothing below ``least``."""
        if self.low is None or self.high is None:
            return Range(max(least, self.about))
        return Range(max(least, self.about), max(least, self.low), max(least, self.high))

    def plus(self, other: "Range") -> "Range":
        """The sum with another estimate."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return Range(self.about + other.about)
        return Range(self.about + other.about, self.low + other.low, self.high + other.high)


def exactly(value: float) -> Range:
    """A value that is known."""
    return Range(value, value, value)


def mean(values: Sequence[float]) -> Range:
    """The mean with Student's interval."""
    return _student(values, stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


def total(values: Sequence[float], count: int) -> Range:
    """The sum of ``count`` further values like these, with Student's prediction interval.

    The further values scatter too, which matters where they are as few as the known ones.
    """
    scatter = stdev(values) * math.sqrt(1 / len(values) + 1 / count) if len(values) > 1 else None
    return _student(values, scatter).times(count)


def _student(values: Sequence[float], error: float | None) -> Range:
    """The mean with an interval of this standard error, cut off at 0."""
    if error is None:
        return Range(fmean(values))
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Range(fmean(values), max(0.0, fmean(values) - half), fmean(values) + half)


def share(count: int, of: int) -> Range:
    """A share with the interval of Clopper and Pearson."""
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return Range(count / of, float(interval.low), float(interval.high))


def by_question(pairs: Iterable[tuple[str, float]]) -> list[float]:
    """The mean of each question's values."""
    found: dict[str, list[float]] = defaultdict(list)
    for question, value in pairs:
        found[question].append(value)
    return [fmean(values) for values in found.values()]


def estimate(preview: Preview, params: Params) -> Iterator[tuple[str, str]]:
    """The estimate as pairs of a label and a text."""
    samples = params.distill.samples_per_question
    yield "questions", f"{preview.questions:,}, {samples} sample{'s' if samples > 1 else ''} each"
    yield "requests", requests(preview, params)
    tried = [call for call in preview.calls if not is_not_asked(call.row)]
    if not any(call.usage for call in tried):
        yield "", "no answer was received, so nothing else can be estimated"
        return
    few = len({call.question.id for call in tried})
    yield "basis", f"{few} question{'s' if few > 1 else ''} only: the brackets have {CONFIDENCE:.0%} intervals"
    answered = share(sum(isinstance(call.row, Distilled) for call in tried), len(tried))
    kept = share(sum(not isinstance(row, Rejected) for row in preview.judged.rows.values()), len(tried))
    marked = marks(preview, params, answered)
    yield from money_and_tokens(preview, params, marked)
    yield "time", time(preview, params, marked)
    filtered = f", of which the filter keeps {_of(kept, preview.plan.calls)}" if preview.judged.rows else ""
    yield "rows", f"{_of(answered, preview.plan.calls)} answered{filtered}"
    for name, arm in params.arms.items():
        found = training(name, arm, preview, params, {"answered": answered, "kept": kept})
        yield f"arm {name}", "\n".join(found)


def is_not_asked(row: Distilled | Failure) -> bool:
    """Whether the store lacks the answer and run.offline forbids to ask for it."""
    return isinstance(row, Failure) and row.reason == NOT_ASKED


def requests(preview: Preview, params: Params) -> str:
    """``192: 5 in the store (cost 0.06 CNY, not paid again), 187 to send``."""
    plan, run = preview.plan, params.run
    paid = f" (cost {money(plan.stored_cost, run.currency)}, not paid again)" if plan.stored_cost else ""
    text = f"{plan.calls:,}: {plan.calls - plan.missing:,} in the store{paid}, {plan.missing:,} to send"
    return f"{text}; run.offline is true, so none would be sent" if run.offline else text


def money_and_tokens(preview: Preview, params: Params, marked: Range | None) -> Iterator[tuple[str, str]]:
    """Tokens and cost of the teacher and the judge, the most that max_tokens allow, and the budget."""
    plan, run, teacher, judge = preview.plan, params.run, params.distill.teacher, judge_of(params.filter)
    usages = [(call.question.id, call.usage) for call in preview.calls if call.usage]
    price, costs = run.price(teacher.model, "teacher"), []
    if plan.missing:
        yield from _tokens("", usages, lambda values: total(values, plan.missing))
        costs.append(_cost(usages, price, lambda values: total(values, plan.missing)))
        yield "cost", _cost_in_words(costs[-1], usages, price, run.currency) + _of_batches(run, "teacher")
        if price and teacher.max_tokens:
            most = money(max_cost(price, plan.prompt_bytes, teacher.max_tokens, plan.missing), run.currency)
            yield "", f"at most {most}, with distill.teacher.max_tokens = {teacher.max_tokens}"
        if run.budget is not None:
            left = money(max(0.0, run.budget - plan.stored_cost), run.currency)
            yield "", f"run.budget is {money(run.budget, run.currency)}, of which {left} are left"
    if judge and marked:
        many = replies_of_a_row(preview)
        yield "judge", f"{judge.model}: {shown(marked.times(many))} requests for {shown(marked)} answers"
        rows = preview.judged.rows
        marks_paid = [(rows[key].id, sum(each, Tokens())) for key, each in preview.judged.replies.items() if each]
        if not marks_paid:
            yield "judge cost", "not known: no answer of this preview was marked"
            return
        price = run.price(judge.model, "judge")
        yield from _tokens("judge ", marks_paid, lambda values: mean(values).times(marked))
        costs.append(_cost(marks_paid, price, lambda values: mean(values).times(marked)))
        yield "judge cost", _cost_in_words(costs[-1], marks_paid, price, run.currency) + _of_batches(run, "judge")
    known = [cost for cost in costs if cost]
    if len(known) > 1:
        yield "cost in all", _in_money(known[0].plus(known[1]), run.currency)


Sum = Callable[[Sequence[float]], Range]  # from the means of the questions to all that is left
Usages = Sequence[tuple[str, Tokens]]  # with the ids of the questions


def _tokens(who: str, usages: Usages, whole: Sum) -> Iterator[tuple[str, str]]:
    if not any(usage.completion for _, usage in usages):
        yield f"{who}tokens", "not known: the server's answers state none ('usage')"
        return
    for name, label in (("prompt", "prompt"), ("completion", "answer")):
        values = by_question((question, float(getattr(usage, name))) for question, usage in usages)
        yield f"{who}{label} tokens", f"{_each(values)}; {shown(whole(values))} to come"


def _cost(usages: Usages, price: Price | None, whole: Sum) -> Range | None:
    if not price or not any(usage.completion for _, usage in usages):
        return None
    return whole(by_question((question, tokens_cost(usage, price)) for question, usage in usages))


def _cost_in_words(cost: Range | None, usages: Usages, price: Price | None, currency: str) -> str:
    if not price:
        return "not known: run.prices has no price of the model"
    if not cost:
        return "not known: the server's answers state no tokens ('usage')"
    each = fmean(by_question((question, tokens_cost(usage, price)) for question, usage in usages))
    return f"{money(each, currency)} each; {_in_money(cost, currency)} to come"


def _of_batches(run: Run, role: Role) -> str:
    batch = run.batch_of(role)
    return f", in batches at {batch.price_factor:g} of the price" if batch and run.prices else ""


def replies_of_a_row(preview: Preview) -> float:
    """How often a judge was asked about one answer: a reply that cannot be read is asked for once more."""
    return fmean(map(len, preview.judged.replies.values())) if preview.judged.replies else 1.0


def marks(preview: Preview, params: Params, answered: Range) -> Range | None:
    """How many rows a judge would mark; None where none would, or where it is not known."""
    if not preview.judged.rows or judge_of(params.filter) is None:
        return None
    rows, found = answered.times(preview.plan.calls), preview.judged.rows.values()
    if params.filter.strategy in ("judge", "both", "judge_rubric"):
        return rows.times(share(sum(row.judge_verdict is not None for row in found), len(found)))
    audited, _ = audit_of(params.filter)
    unsure = exactly(0)
    if params.filter.strategy == "rule_then_judge":
        unsure = share(sum(row.rule_verdict == "unsure" for row in found), len(found))
    assert unsure.low is not None
    assert unsure.high is not None
    parts = [each + audited * (1 - each) for each in (unsure.about, unsure.low, unsure.high)]
    return rows.times(Range(*parts))


def time(preview: Preview, params: Params, marked: Range | None) -> str:
    """The wall time of distill and filter from the measured latency, the concurrency and the rate limits."""
    run, judged, parts = params.run, preview.judged, []
    if preview.plan.missing and (batch := run.batch_of("teacher")):
        parts.append(f"distill in batches: {_days(preview.plan.missing, batch)}")
    elif preview.plan.missing:
        usages = [call.usage for call in preview.calls if call.usage]
        parts.append(f"distill {_wall(preview.latencies, exactly(preview.plan.missing), usages, run)}")
    if marked and (batch := run.batch_of("judge")):
        parts.append(f"filter in batches: {_days(marked.about, batch)}")
    elif marked:
        usages = [usage for each in judged.replies.values() for usage in each]
        parts.append(f"filter {_wall(judged.latencies, marked.times(replies_of_a_row(preview)), usages, run)}")
    return "; ".join([*parts, "training, evaluation and prefer not included"] if parts else ["no request is left"])


def _days(count: float, batch: Batch) -> str:
    """What a server promises of batches: each ends within its window."""
    files = math.ceil(count / batch.max_requests)
    return f"{files} of at most {batch.max_requests:,} requests, each within {batch.completion_window}"


def _wall(latencies: Sequence[float], count: Range, usages: list[Tokens], run: Run) -> str:
    """The time for ``count`` requests, and what limits it."""
    if not latencies:
        return "not known, because no new answer was timed (a larger N asks further questions)"
    rounds = count.times(1 / run.concurrency).at_least(1)
    limits = [(mean(latencies).times(rounds), f"{fmean(latencies):.2g} s an answer, {run.concurrency} at a time")]
    if run.requests_per_minute:
        limits.append((count.times(60 / run.requests_per_minute), "run.requests_per_minute"))
    if run.tokens_per_minute and usages:
        each = fmean(usage.prompt + usage.completion for usage in usages)
        limits.append((count.times(60 * each / run.tokens_per_minute), "run.tokens_per_minute"))
    slowest, why = max(limits, key=lambda limit: limit[0].about)
    return f"{_with_range(slowest, duration)}: {why}"


def training(name: str, arm: Arm, preview: Preview, params: Params, shares: dict[str, Range]) -> Iterator[str]:
    """The rows and tokens of an arm's training, and how many rows are over its cutoff_len."""
    source = params.datasets[arm.dataset].rows
    kept = {key for key, row in preview.judged.rows.items() if not isinstance(row, Rejected)}
    among = [key for key in preview.trained if source != DATASETS[1] or key in kept]
    rows = [row for key in among if isinstance(row := preview.trained[key], Trained)]
    if source not in DATASETS:
        yield f"not estimated: {source} does not come from the teacher"
    elif not rows or (source != DATASETS[0] and not kept):
        yield "not estimated: none of these answers would be in its dataset"
    else:
        share_of = shares["answered" if source == DATASETS[0] else "kept"]
        expected = share_of.times(preview.plan.calls * len(rows) / len(among))
        yield f"{shown(expected)} rows, {_each([row.tokens for row in rows], ' tokens')}"
        yield from _lengths(name, arm, expected, rows, params)


def _lengths(name: str, arm: Arm, expected: Range, rows: list[Trained], params: Params) -> Iterator[str]:
    """How many rows are over cutoff_len, and the tokens of the training."""
    over = sum(not row.fits[name] for row in rows)
    in_all = shown(share(over, len(rows)).times(expected.about))
    yield f"over cutoff_len {arm.cutoff_len}: {over} of these {len(rows)}; {in_all} in all"
    used = [min(row.tokens, arm.cutoff_len) for row in rows if row.fits[name] or _is_shortened(params)]
    if over and params.train.on_too_long == "error":
        yield "train.on_too_long: error would refuse the dataset"
    elif used:
        yield _seen(arm, expected.times(len(used) / len(rows)), used, params)
    else:
        yield "no row is left to train on"


def _is_shortened(params: Params) -> bool:
    return params.train.on_too_long == "shorten_reasoning"


def _seen(arm: Arm, rows: Range, used: list[int], params: Params) -> str:
    """``17,000 tokens in 1 epoch``; with max_steps, those of its steps."""
    if arm.max_steps:
        per_step = params.train.per_device_train_batch_size * params.train.gradient_accumulation_steps
        seen = Range(arm.max_steps * per_step * fmean(used))
        return f"{shown(seen)} tokens in max_steps {arm.max_steps}, if one device trains"
    epochs = f"{arm.num_train_epochs:g} epoch{'s' if arm.num_train_epochs != 1 else ''}"
    return f"{shown(rows.times(fmean(used) * arm.num_train_epochs))} tokens in {epochs}"


def shown(value: Range) -> str:
    """``3,927 (3,700 to 4,150)``."""
    return _with_range(value, lambda number: f"{number:,.0f}")


def _each(values: Sequence[float], unit: str = "") -> str:
    return f"{fmean(values):,.0f}{unit} each ({min(values):,.0f} to {max(values):,.0f} seen)"


def _of(part: Range, whole: float) -> str:
    return shown(part.times(whole))


def _in_money(value: Range, currency: str) -> str:
    return _with_range(value, lambda amount: money(amount, currency))


def _with_range(value: Range, said: Callable[[float], str]) -> str:
    if value.low is None or value.high is None or said(value.low) == said(value.high):
        return f"about {said(value.about)}"
    return f"about {said(value.about)} ({said(value.low)} to {said(value.high)})"
