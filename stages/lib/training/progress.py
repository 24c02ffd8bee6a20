"""Show a training while it runs: its loss curve grows, and every few seconds a line on stderr says how far it is.

    progress = Progress("filtered", Path("metrics/train/filtered.loss.csv"), tokens_per_step=380)
    progress.start(46, earlier)    # the file has its header, and the points up to the checkpoint that was resumed
    progress.add(LossPoint(…))     # the file has one line more
    progress.end()

    train: filtered: step 12 of 46, loss 0.213, 1180 tokens/s, 00:42 left

``follow_file`` and ``follow_output`` feed it from what another program logs: JSON lines in a file, or the dictionaries
that it prints.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from pydantic import AliasChoices, BaseModel, Field, ValidationError, field_validator
from tqdm import tqdm

from stages.lib.rows import writing
from stages.lib.training import LossPoint

log = logging.getLogger("distillery.train")

EVERY_S = 5.0  # between two lines on stderr
HEADER = "step,loss,learning_rate\n"
# what transformers' Trainer prints at each step: a dictionary, and a progress bar
DICTIONARY = re.compile(r"\{'\w+': .*\}")
BAR = re.compile(r"\d+%\|.*\| *\d+/\d+ \[")
NUMBER = r"'?([^',}]+)"


class LoggedStep(BaseModel):
    """A line of LLaMA-Factory's trainer_log.jsonl or ms-swift's logging.jsonl; without ``loss``, not of a step."""

    step: int = Field(validation_alias=AliasChoices("current_steps", "global_step/max_steps"))
    loss: float | None = None
    learning_rate: float = Field(default=0.0, validation_alias=AliasChoices("lr", "learning_rate"))

    @field_validator("step", mode="before")
    @classmethod
    def _without_the_steps_in_all(cls, value: object) -> object:
        return value.partition("/")[0] if isinstance(value, str) else value  # "3/20"


class Progress:
    """The progress of an arm's training. ``path`` None: there are only the lines on stderr."""

    def __init__(self, arm: str, path: Path | None, tokens_per_step: float) -> None:
        self._arm, self._path, self._tokens_per_step = arm, path, tokens_per_step
        self._file: TextIO | None = None
        self._steps = 0
        self._last: LossPoint | None = None
        self._first: tuple[int, float] | None = None  # step and time of this run's first point
        self._last_at = 0.0
        self._shown_at = -math.inf

    def start(self, steps: int, earlier: Iterable[LossPoint] = ()) -> None:
        """Begin the curve of a training of so many steps with the points of the checkpoint that it resumes from."""
        self._steps = steps
        points = list(earlier)
        self._last = points[-1] if points else None
        if self._path:
            with writing(self._path) as file:
                file.write(curve(points).encode())
            self._file = self._path.open("a")

    def add(self, point: LossPoint) -> None:
        """Add a step; one that is not after the last one is not new."""
        if self._last and point.step <= self._last.step:
            return
        self._last, self._last_at = point, time.monotonic()
        self._first = self._first or (point.step, self._last_at)
        if self._file:
            self._file.write(line(point))
            self._file.flush()
        if self._last_at - self._shown_at >= EVERY_S:
            self._show()

    def end(self) -> None:
        """Say how far it came, and close the curve."""
        if self._first:
            self._show()
        if self._file:
            self._file.close()

    def _show(self) -> None:
        assert self._last
        assert self._first
        self._shown_at = self._last_at
        (first, since), step = self._first, self._last.step
        rate = ""
        if step > first:
            per_second = (step - first) / max(self._last_at - since, 1e-9)
            left = tqdm.format_interval((self._steps - step) / per_second)
            rate = f", {self._tokens_per_step * per_second:.0f} tokens/s, {left} left"
        log.info("train: %s: step %d of %d, loss %.4g%s", self._arm, step, self._steps, self._last.loss, rate)


def curve(points: Iterable[LossPoint]) -> str:
    """The CSV of a loss curve, for ``dvc plots`` and the page."""
    return HEADER + "".join(map(line, points))


def line(point: LossPoint) -> str:
    """A step in the CSV of a loss curve."""
    return f"{point.step},{point.loss:.4f},{point.learning_rate:.3g}\n"


def is_for_the_log_alone(text: str) -> bool:
    """Whether a program's line is a progress bar or a dictionary of a step, which are not shown on stderr."""
    return bool(DICTIONARY.fullmatch(text.strip()) or BAR.search(text))


def follow_file(progress: Progress, path: Path) -> Callable[[str], None]:
    """A function that adds the steps that a program has appended to its JSON lines since it was called last."""
    read = path.stat().st_size if path.is_file() else 0  # before it: an earlier run's, up to where it was killed

    def follow(_: str) -> None:
        nonlocal read
        if not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(read)
            whole = file.read().rpartition(b"\n")[0]
        read += len(whole) + 1 if whole else 0
        for text in whole.splitlines():
            try:
                step = LoggedStep.model_validate_json(text)
            except ValidationError:  # a line of another kind, such as the summary at the end
                continue
            if step.loss is not None:
                progress.add(LossPoint(step.step, step.loss, step.learning_rate))

    return follow


def follow_output(progress: Progress, resumed_at: int, logging_steps: int) -> Callable[[str], None]:
    """A function that adds the steps that a program prints as dictionaries, one each ``logging_steps``."""
    step = resumed_at // logging_steps * logging_steps

    def follow(text: str) -> None:
        nonlocal step
        if not DICTIONARY.fullmatch(text.strip()):
            return
        loss, rate = (re.search(f"'{name}': {NUMBER}", text) for name in ("loss", "learning_rate"))
        if loss and rate:
            step += logging_steps  # a dictionary names its epoch, rounded, and no step
            progress.add(LossPoint(step, float(loss[1]), float(rate[1])))

    return follow
