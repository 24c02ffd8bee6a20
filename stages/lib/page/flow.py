"""The flow of the rows: what each stage took in, what went on, what was dropped and why, and the tokens that it used.

    Step("filter", 183, [Part("flow.kept", 120, "out"), Part("flow.dropped", 63, "dropped", "wrong_answer")])

The trunk is collect, difficulty, distill and filter: each takes what the one before let through. The branches are
convert and train, once for each dataset and arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.lib.page.metrics import ConvertCounts, DifficultyCounts, DistillCounts, TrainCounts
from stages.lib.page.verdicts import Worded

SMALLEST = 0.6  # per cent of the chart: a part with fewer rows is still seen


@dataclass(frozen=True)
class Part:
    """Rows that leave a step: where they go and their number; ``kind`` is ``out``, ``aside`` or ``dropped``.

    ``key`` names its text among the page's words, with ``values``; ``reason`` says why rows were dropped.
    """

    key: str
    count: int
    kind: str
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A stage, the rows that it took and where they went; ``of`` is its dataset or its arm.

    ``tokens`` says how many it read, wrote or trained; ``remarks`` add what the counts do not show.
    """

    name: str
    taken: int
    parts: list[Part]
    remarks: list[Worded] = field(default_factory=list)
    of: str = ""
    tokens: list[Worded] = field(default_factory=list)

    @property
    def out(self) -> int:
        """The number of rows that go to the next stage."""
        return sum(part.count for part in self.parts if part.kind == "out")

    @property
    def dropped(self) -> int:
        """The number of dropped rows."""
        return sum(part.count for part in self.parts if part.kind == "dropped")

    @property
    def losses(self) -> list[Part]:
        """The parts that were dropped."""
        return [part for part in self.parts if part.kind == "dropped"]


def dropped_parts(reasons: Mapping[str, int]) -> list[Part]:
    """The dropped rows, by reason."""
    return [Part("flow.dropped", count, "dropped", reason) for reason, count in reasons.items() if count]


def difficulty_step(counts: DifficultyCounts) -> Step:
    """The questions for the teacher, and those that are too easy for the student."""
    values = {"max_solved": counts.max_solved, "samples": counts.samples}
    too_easy = Part("flow.too_easy", counts.too_easy, "dropped", values=values)
    tokens: list[Worded] = [("flow.tokens_student", {"n": counts.completion_tokens})]
    return Step("difficulty", counts.taken, [Part("flow.hard", counts.kept, "out"), too_easy], tokens=tokens)


def distill_step(counts: DistillCounts) -> Step:
    """The questions with an answer, and those without."""
    tokens: list[Worded] = []
    if counts.prompt_tokens is not None and counts.completion_tokens is not None:
        tokens = [("flow.tokens_teacher", {"read": counts.prompt_tokens, "written": counts.completion_tokens})]
    parts = [Part("flow.answers", counts.distilled, "out"), *dropped_parts(counts.failed_by_reason)]
    return Step("distill", counts.taken, parts, tokens=tokens)


def convert_step(dataset: str, counts: ConvertCounts) -> Step:
    """The rows of a dataset, and those that make no conversation."""
    tokens: list[Worded] = [("flow.tokens_dataset", {"n": counts.tokens["sum"], "p50": counts.tokens["p50"]})]
    parts = [Part("flow.conversations", counts.rows, "out"), *dropped_parts(counts.dropped)]
    return Step("convert", counts.taken, parts, of=dataset, tokens=tokens)


def train_step(arm: str, counts: TrainCounts) -> Step:
    """The rows that an arm was trained on, and those that do not fit."""
    tokens: list[Worded] = [("flow.tokens_trained", {"n": counts.tokens_trained, "steps": counts.steps})]
    left_out = counts.left_out or {"too_long": counts.rows_too_long}
    parts = [Part("flow.trained", counts.rows, "out"), *dropped_parts(left_out)]
    return Step("train", counts.taken, parts, of=arm, tokens=tokens)


@dataclass(frozen=True)
class Segment:
    """A part of a step's bar, in per cent of the chart's width."""

    x: float
    width: float
    kind: str


@dataclass(frozen=True)
class Bar:
    """A step as a bar, and the band from its rows that went on to the bar of the next step; no band after the last."""

    step: Step
    segments: list[Segment]
    band: str


def bars(trunk: Sequence[Step], branches: Sequence[Step]) -> list[Bar]:
    """The bars of all steps, to one scale. A band joins the steps of the trunk: its width is the number of rows."""
    most = max(step.taken for step in [*trunk, *branches]) or 1
    after: list[Step | None] = [*trunk[1:], None, *(None for _ in branches)]
    return [
        Bar(step, _segments(step, most), _band(step.out, following.taken, most) if following else "")
        for step, following in zip([*trunk, *branches], after, strict=True)
    ]


def _segments(step: Step, most: int) -> list[Segment]:
    shown = [part for part in step.parts if part.count]
    widths = [max(SMALLEST, 100 * part.count / most) for part in shown]
    too_wide = sum(widths) - max(100 * step.taken / most, SMALLEST * len(shown))
    if shown:
        widths[widths.index(max(widths))] -= too_wide
    starts = [sum(widths[:index]) for index in range(len(widths))]
    return [
        Segment(round(start, 2), round(width, 2), part.kind)
        for start, width, part in zip(starts, widths, shown, strict=True)
    ]


def _band(out: int, taken: int, most: int) -> str:
    """The band as an SVG path in a box of 100 × 1."""
    return f"M0 0H{100 * out / most:.2f}L{100 * taken / most:.2f} 1H0Z"
