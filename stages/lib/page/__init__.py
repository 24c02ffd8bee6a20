"""The page: the types of all that it shows, and its one HTML file, which needs no network.

    html = render(Page(names=["base", "filtered"], …))

- ``template.html`` and ``sections/``: what a reader without a script sees. Everything that came from a file is escaped
  (jinja2's autoescape).
- ``rows.py``, ``packing.py``: all rows, packed. ``assets/``: the script that searches them, and the stylesheet.
- ``words/``: the words of the page in English and Chinese.

The same page is the same bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.comparison.results import Arm as ComparedArm
from stages.lib.comparison.results import ComparedScore, Comparison, Difference, Pair
from stages.lib.comparison.table import (
    AUDIT,
    audit_cells,
    audit_table,
    audits,
    comparison_table,
    if_unsure,
    p_value,
    points,
    preference_cells,
    preferences,
    scores,
    signed,
)
from stages.lib.page import scripts
from stages.lib.page.charts import IntervalChart, Whisker, fine_curve, interval_chart, length_chart, loss_chart
from stages.lib.page.flow import Step, bars
from stages.lib.page.formulas import with_formulas
from stages.lib.page.metrics import (
    ConvertCounts,
    DifficultyCounts,
    Example,
    FilterCounts,
    LengthPoint,
    LossPoint,
    ReviewCounts,
    TrainCounts,
)
from stages.lib.page.packing import PackedRows
from stages.lib.page.rows import differs_from_gold
from stages.lib.page.templates import page_environment
from stages.lib.page.verdicts import asked_and_scored, caveat, matrix, noise, verdicts
from stages.lib.page.words import words
from stages.lib.params import Arm, OnPolicyArm
from stages.lib.reviews import Review
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.filtered import Filtered, Rejected


@dataclass(frozen=True)
class PassRateRow:
    """The questions that the untrained student solved ``solved`` times, and the teacher's yield on them."""

    solved: int
    questions: int
    is_kept: bool
    answers: int
    right: int


@dataclass(frozen=True)
class PassRates:
    """The untrained student's pass rates, by the number of right answers."""

    counts: DifficultyCounts
    rows: list[PassRateRow]


@dataclass(frozen=True)
class Training:
    """An arm's training: its settings, its counts and its losses."""

    asked: Arm | OnPolicyArm
    seen: TrainCounts
    losses: list[LossPoint]


@dataclass(frozen=True)
class Dataset:
    """A dataset that an arm was trained on: its counts and the lengths of its conversations."""

    counts: ConvertCounts
    lengths: list[LengthPoint]


@dataclass(frozen=True)
class Samples:
    """An arm's answers to one benchmark: how many are right, and samples of the right and of the wrong ones.

    Where no answer is right or wrong, ``correct`` is None and the samples are ``unscored``.
    """

    n: int
    correct: int | None
    right: list[Evaluated]
    wrong: list[Evaluated]
    unscored: list[Evaluated]

    @property
    def drawn(self) -> list[Evaluated]:
        """All samples."""
        return [*self.right, *self.wrong, *self.unscored]


@dataclass(frozen=True)
class Answers:
    """An arm's answers to the evaluation, by benchmark, and examples of what the audit counts."""

    samples: dict[str, Samples]
    examples: list[Example]


@dataclass(frozen=True)
class ScoreRow:
    """An arm's score on a benchmark, and its position in the chart."""

    benchmark: str
    name: str
    arm: ComparedArm
    score: ComparedScore
    whisker: Whisker


@dataclass(frozen=True)
class PairRow:
    """A difference of two arms on a benchmark, and its position in the chart."""

    pair: Pair
    benchmark: str
    found: Difference
    whisker: Whisker


@dataclass(frozen=True)
class RandomSample:
    """How many of the ``total`` answers of the teacher and dropped questions the page shows."""

    shown: int
    total: int


@dataclass(frozen=True)
class InputFile:
    """A file that the page was made from."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Page:
    """All that the page shows; ``data_hash`` names it.

    ``rows`` are all answers, packed for the script; ``sample`` is None unless those of the teacher are a sample.
    ``people`` are the reviews of data/reviews.jsonl.
    ``marks`` is None where the rule alone decided, ``pass_rates`` where the student was not, ``reviews`` where nobody
    reviewed an answer.
    """

    teachers: list[str]
    student: str
    comparison: Comparison
    flow: list[Step]
    branches: list[Step]
    pass_rates: PassRates | None
    marks: FilterCounts | None
    reviews: ReviewCounts | None
    datasets: dict[str, Dataset]
    trainings: dict[str, Training]
    kept: list[Filtered]
    rejected: list[Rejected]
    answers: dict[str, Answers]
    rows: PackedRows
    sample: RandomSample | None
    people: list[Review]
    seed: int
    inputs: list[InputFile]
    data_hash: str


def render(page: Page) -> str:
    """The page as HTML."""
    from markupsafe import Markup

    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "points": points,
        "signed": signed,
        "p_value": p_value,
        "language": language,
        "audit_cells": audit_cells,
        "if_unsure": if_unsure,
        "preference_cells": preference_cells,
        "differs_from_gold": differs_from_gold,
        "data": lambda value: Markup(_data(value)),
        "noise": noise,
        "with_formulas": with_formulas,
    }
    early, main = scripts.early(), scripts.main()
    charts = scripts.charts() if page.trainings and page.rows.leave_room else ""
    comparison = page.comparison
    score_chart, score_rows = _score_rows(comparison)
    pair_chart, pair_rows = _pair_rows(comparison)
    return environment.get_template("template.html").render(
        page=page,
        policy=scripts.policy([early, *filter(None, [charts]), main], with_siblings=bool(page.rows.siblings)),
        style=scripts.style(),
        early=early,
        charts=charts,
        main=main,
        words=words(),
        meta=_meta(page) | ({"charts": _charts(page)} if charts else {}),
        rows=page.rows,
        verdicts=verdicts(comparison),
        matrix=matrix(comparison),
        asked_and_scored=asked_and_scored(comparison),
        caveat=caveat(comparison),
        markdown=f"{comparison_table(comparison)}\n\n{audit_table(comparison)}".strip(),
        colours=colours(list(comparison.arms)),
        score_chart=score_chart,
        score_rows=score_rows,
        pair_chart=pair_chart,
        pair_rows=pair_rows,
        preferences=preferences(comparison),
        audit=AUDIT,
        audits=audits(comparison),
        heat=heat_map(comparison),
        losses=loss_chart({name: training.losses for name, training in page.trainings.items()}),
        lengths=length_chart({name: each.lengths for name, each in page.datasets.items()}, cutoffs(page.trainings)),
        dataset_colours=dataset_colours(page),
        bars=bars(page.flow, page.branches),
    )


def sibling_name(number: int) -> str:
    """The name of a file beside the page, from 1."""
    return f"rows-{number}.js"


def sibling(chunks: list[str]) -> str:
    """The text of such a file: a call with the chunks that the page has no room for."""
    return f"distilleryRows({json.dumps(chunks)});\n"


def _meta(page: Page) -> dict[str, Any]:
    """What the script must know beside the rows."""
    comparison = page.comparison
    return {
        "arms": list(comparison.arms),
        "benchmarks": comparison.benchmarks,
        "unscored": comparison.unscored,
        "pairs": [pair.model_dump(mode="json", exclude={"preference"}) for pair in comparison.pairs.values()],
        "reviews": [review.model_dump(mode="json", exclude_none=True) for review in page.people],
        "inside": page.rows.inside,
        "total": page.rows.total,
        "siblings": [sibling_name(number) for number in range(1, len(page.rows.siblings) + 1)],
    }


def _charts(page: Page) -> dict[str, Any]:
    """The curves that the script draws: finer than the drawings without a script."""
    curves = {name: [(point.tokens, point.share) for point in each.lengths] for name, each in page.datasets.items()}
    of_arms = {training.asked.dataset: name for name, training in reversed(page.trainings.items())}
    return {
        "losses": {name: fine_curve(training.losses) for name, training in page.trainings.items()},
        "lengths": {"curves": curves, "arms": of_arms, "cutoffs": cutoffs(page.trainings)},
    }


def _data(value: Any) -> str:
    """JSON that ends no element, whatever is in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _score_rows(comparison: Comparison) -> tuple[IntervalChart | None, list[ScoreRow]]:
    shown = list(scores(comparison))
    if not shown:
        return None, []
    chart = interval_chart([(score.low, score.value, score.high) for *_, score in shown])
    return chart, [ScoreRow(*row, whisker) for row, whisker in zip(shown, chart.whiskers, strict=True)]


def _pair_rows(comparison: Comparison) -> tuple[IntervalChart, list[PairRow]]:
    shown = [(pair, *each) for pair in comparison.pairs.values() for each in pair.benchmarks.items()]
    chart = interval_chart([(found.low, found.difference, found.high) for *_, found in shown], with_zero=True)
    return chart, [PairRow(*row, whisker) for row, whisker in zip(shown, chart.whiskers, strict=True)]


def cutoffs(trainings: dict[str, Training]) -> dict[int, list[str]]:
    """The arms that are trained on a dataset's answers by their cutoff_len, the shortest first."""
    found: dict[int, list[str]] = {}
    for name, training in trainings.items():
        if training.seen.start_from:
            continue
        found.setdefault(training.asked.cutoff_len, []).append(name)
    return dict(sorted(found.items()))


def dataset_colours(page: Page) -> dict[str, str]:
    """The colour of each dataset: that of the first arm that was trained on it."""
    of_arms = colours(list(page.comparison.arms))
    return {training.asked.dataset: of_arms[name] for name, training in reversed(page.trainings.items())}


@dataclass(frozen=True)
class HeatRow:
    """An arm's scores on a benchmark: all its questions, then each language of the table; None where there is none."""

    benchmark: str
    arm: str
    values: list[float | None]


@dataclass(frozen=True)
class Heat:
    """The scores by benchmark and language."""

    languages: list[str]
    rows: list[HeatRow]


def heat_map(comparison: Comparison) -> Heat | None:
    """The table of all benchmarks, arms and languages; None where no benchmark has languages."""
    shown = list(scores(comparison))
    codes = list(dict.fromkeys(code for *_, score in shown for code in score.languages or {}))
    if not codes:
        return None
    rows = []
    for benchmark, name, _, score in shown:
        of = {code: found.value for code, found in (score.languages or {}).items()}
        rows.append(HeatRow(benchmark, name, [score.value, *(of.get(code) for code in codes)]))
    return Heat(codes, rows)


def colours(names: list[str]) -> dict[str, str]:
    """The stylesheet's colour of each arm: grey for the base, then six colours that repeat after the sixth arm."""
    return {name: f"var(--arm-{(index - 1) % 6 + 1 if index else 0})" for index, name in enumerate(names)}


def language(text: str) -> str:
    """The ``lang`` of a text, which selects the glyphs: Chinese and Japanese share characters but not their shapes."""
    if any("\u3040" <= character <= "\u30ff" for character in text):
        return "ja"
    return "zh-Hans" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
