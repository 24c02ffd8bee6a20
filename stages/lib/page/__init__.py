"""The page: all that it shows, in types, and its one HTML file, which needs no network and no script.

    html = render(Page(names=["base", "filtered"], …))

Everything that came from a file is escaped (jinja2's autoescape); the same page is the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

from stages.lib.evaluation.table import CAVEAT, comparison_table, p_value, points, signed
from stages.lib.page.charts import interval_chart, loss_chart
from stages.lib.page.metrics import Comparison, FilterCounts, LossPoint, Pair, TrainCounts
from stages.lib.params import Arm
from stages.lib.records import Evaluated, Filtered, Rejected


@dataclass(frozen=True)
class Part:
    """Rows that leave a step: where they go and how many; ``kind`` is ``out``, ``aside`` or ``dropped``."""

    label: str
    count: int
    kind: str


@dataclass(frozen=True)
class Step:
    """A stage that takes rows in and says of each where it went; ``remark`` is what the counts alone would hide."""

    name: str
    taken: int
    parts: list[Part]
    remark: str = ""

    @property
    def out(self) -> int:
        """The rows that go on to the next stage."""
        return sum(part.count for part in self.parts if part.kind == "out")

    @property
    def dropped(self) -> int:
        """The rows that go nowhere."""
        return sum(part.count for part in self.parts if part.kind == "dropped")


@dataclass(frozen=True)
class Training:
    """An arm's training: what was asked for, what was seen, how the loss went."""

    asked: Arm
    seen: TrainCounts
    losses: list[LossPoint]


@dataclass(frozen=True)
class Answers:
    """An arm's answers to the evaluation: the counts, and the samples drawn from the right and the wrong ones."""

    n: int
    correct: int
    cut_off: int
    unread: int
    right_samples: list[Evaluated]
    wrong_samples: list[Evaluated]


@dataclass(frozen=True)
class InputFile:
    """A file that the page was made from."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Page:
    """All that the page shows; ``data_hash`` names it. ``marks`` is None where no judge was asked."""

    teachers: list[str]
    student: str
    comparison: Comparison
    flow: list[Step]
    marks: FilterCounts | None
    trainings: dict[str, Training]
    kept: list[Filtered]
    rejected: list[Rejected]
    answers: dict[str, Answers]
    seed: int
    inputs: list[InputFile]
    data_hash: str


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "signed": signed, "p_value": p_value, "language": language}
    comparison = page.comparison
    return environment.get_template("template.html").render(
        page=page,
        outcome=outcome(comparison),
        caveat=CAVEAT,
        markdown=comparison_table(comparison.model_dump(exclude_none=True)),
        colours=colours(list(comparison.arms)),
        arm_chart=interval_chart([(arm.low, arm.accuracy, arm.high) for arm in comparison.arms.values()]),
        pair_chart=interval_chart(
            [(pair.low, pair.difference, pair.high) for pair in comparison.pairs.values()], with_zero=True
        ),
        losses=loss_chart({name: training.losses for name, training in page.trainings.items()}),
        most_rows=max(step.taken for step in page.flow),
    )


def colours(names: list[str]) -> dict[str, str]:
    """The stylesheet's colour of each arm: grey for the base, then six that come again after the sixth arm."""
    return {name: f"var(--arm-{(index - 1) % 6 + 1 if index else 0})" for index, name in enumerate(names)}


def outcome(comparison: Comparison) -> str:
    """One sentence: the accuracy of the arm that stands first in most pairs, and how it compares with the others."""
    firsts = [pair.first for pair in comparison.pairs.values()]
    if not firsts:
        scores = [f"{name} {points(arm.accuracy)}\u00a0%" for name, arm in comparison.arms.items()]
        return f"Right answers: {', '.join(scores)}; no arms were compared."
    # of arms that are first as often, the one named last: pairs go from the baseline to what is asked
    name = max(reversed(firsts), key=firsts.count)
    arm = comparison.arms[name]
    found = "; ".join(_finding(pair) for pair in comparison.pairs.values() if pair.first == name)
    interval = f"{comparison.confidence * 100:g}\u00a0% intervals"
    return f"The {name} arm answers {points(arm.accuracy)}\u00a0% of {arm.n} questions right: {found} ({interval})."


def _finding(pair: Pair) -> str:
    interval = f"[{signed(pair.low)},\u00a0{signed(pair.high)}]"
    if pair.finding in ("better", "worse"):
        return f"{points(abs(pair.difference))} points {pair.finding} than {pair.second} {interval}"
    return f"{pair.finding} from {pair.second} {interval}"


def language(text: str) -> str:
    """The ``lang`` of a text, for the right shapes of its characters: Chinese and Japanese share theirs."""
    if any("\u3040" <= character <= "\u30ff" for character in text):
        return "ja"
    return "zh-Hans" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
