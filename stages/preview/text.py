"""The preview's text: each question with what was sent, received, judged and would be trained; then the estimate.

On a terminal, lines are wrapped to its width, where a Chinese character takes two columns. Elsewhere no line is
wrapped, and nothing has colour. NO_COLOR switches colour off on a terminal too (https://no-color.org).
"""

import os
import re
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from stages.lib.params import Params, ServedTeacher
from stages.lib.rows.distilled import Distilled, Failure
from stages.lib.rows.filtered import Filtered, Rejected
from stages.preview.chain import Call, Preview, Trained
from stages.preview.estimate import DATASETS

LABEL = 15  # columns of a label
SHOWN = 400  # characters of a reasoning that are shown without --full, half of them from its end
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # an answer must not move the cursor of a terminal


class Page:
    """Prints to stdout; with ``full`` no text is shortened."""

    def __init__(self, full: bool) -> None:
        colours = None if os.environ.get("NO_COLOR") else "auto"
        self._console = Console(color_system=colours, highlight=False)  # type: ignore[arg-type]
        self._full = full

    def heading(self, text: str) -> None:
        """A line above a part."""
        self._console.print()
        self._line(Text(f"── {text} ──", style="bold"))

    def field(self, label: str, text: str, style: str = "", gutter: str = "") -> None:
        """A label, and a text beside it; each of its lines begins with the ``gutter``."""
        start = Text(label.ljust(LABEL), style="bold cyan")
        if len(label) >= LABEL:
            self._line(start)
            start = Text(" " * LABEL)
        for line in _visible(text).split("\n"):
            for part in self._wrapped(line, LABEL + len(gutter)):
                self._line(Text.assemble(start, gutter, Text(part, style=style)))
                start = Text(" " * LABEL)

    def shortened(self, text: str) -> str:
        """The beginning and the end of a long text, with the number of characters between them."""
        if self._full or len(text) <= SHOWN + 100:  # to leave out a few words helps nobody
            return text
        left_out = len(text) - SHOWN
        return f"{text[: SHOWN // 2]}\n[… {left_out:,} characters not shown: --full …]\n{text[-SHOWN // 2 :]}"

    def _wrapped(self, line: str, indent: int) -> list[str]:
        if not self._console.is_terminal:
            return [line]
        wrapped = Text(line).wrap(self._console, max(20, self._console.width - indent))
        return [part.plain for part in wrapped] or [""]

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _visible(text: str) -> str:
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def show_teacher(page: Page, params: Params) -> None:
    """The model, its address, and what is sent with each question beside the messages."""
    teacher = params.distill.teacher
    page.heading("the teacher")
    where = f" at {teacher.base_url}" if isinstance(teacher, ServedTeacher) else " (embedded)"
    page.field("model", teacher.model + where)


def show_call(page: Page, call: Call, place: str, preview: Preview, params: Params) -> None:
    """One answer, from the question to the text that would be trained; a failed call takes one line."""
    name = f"{place}: {call.question.id}" + (f", sample {call.sample}" if call.sample else "")
    page.heading(name)
    if call.sample == 0:
        page.field("question", call.question.question)
        for message in call.request["messages"]:
            page.field("sent", f"{message['role']}:\n{message['content']}", gutter="│ ")
        page.field("settings", settings(call))
    if isinstance(call.row, Failure):
        page.field("failed", failure(call.row), style="red")
        return
    page.field("reasoning", f"{len(call.row.reasoning):,} characters{_tokens(call)}")
    page.field("", page.shortened(call.row.reasoning), gutter="│ ")
    page.field("answer", call.row.response, gutter="│ ")
    page.field("gold", call.question.answer or "none")
    if verdict := preview.judged.rows.get(call.row.key):
        page.field("verdict", verdict_text(verdict), style="red" if isinstance(verdict, Rejected) else "green")
    if trained := preview.trained.get(call.row.key):
        show_trained(page, trained, call.row, verdict, params)


def settings(call: Call) -> str:
    """What a request holds beside its messages."""
    sent = {name: value for name, value in call.request.items() if name not in ("endpoint", "messages", "sample")}
    return ", ".join(f"{name}: {value}" for name, value in sent.items())


def failure(row: Failure) -> str:
    """``cut_off, status 200, 1 attempt``, and the server's message."""
    status = f"status {row.status}" if row.status else "no status"
    attempts = f"{row.attempts} attempt{'s' if row.attempts != 1 else ''}"
    return f"{row.reason}, {status}, {attempts}" + (f": {' '.join(row.error.split())}" if row.error else "")


def _tokens(call: Call) -> str:
    if not call.usage or not call.usage.completion:
        return ""
    return f"; with the answer {call.usage.completion:,} tokens of the teacher"


def verdict_text(row: Filtered) -> str:
    """``rejected (wrong_answer): wrong by rule:last_number, which reads 96``."""
    kept = f"rejected ({row.reason})" if isinstance(row, Rejected) else "kept"
    parts = [f"{kept}: {row.verdict}, decided by {row.decided_by}"]
    parts += [row.detail] if row.detail else []
    parts += [f"read: {row.prediction}"] if row.prediction else []
    parts += [f"stated by {row.majority.share:.0%} of the samples"] if row.majority else []
    parts += [f"score {row.score:g}"] if row.score is not None else []
    if row.judge_verdict:
        parts.append(f"rule: {row.rule_verdict or 'not asked'}, judge: {row.judge_verdict}")
    return "; ".join(parts)


def show_trained(page: Page, trained: Trained | str, row: Distilled, verdict: Filtered | None, params: Params) -> None:
    """The text of the training in its two parts, its tokens, and the arms whose cutoff_len it exceeds."""
    if isinstance(trained, str):
        page.field("as trained", f"not: convert drops the row ({trained})", style="red")
        return
    label = "as trained"
    for part in trained.parts:
        kind = "with a loss (this is learned)" if part.has_loss else "without a loss"
        page.field(label, f"{kind}, {part.tokens:,} tokens:")
        text = part.text.replace(row.reasoning, page.shortened(row.reasoning), 1)
        page.field("", text, style="green" if part.has_loss else "dim", gutter="┃ " if part.has_loss else "│ ")
        label = ""
    page.field("tokens", f"{trained.tokens:,}, {arms_text(trained, verdict, params)}")


def arms_text(trained: Trained, verdict: Filtered | None, params: Params) -> str:
    """Which arms the row is for, and those whose cutoff_len it exceeds."""
    rejected = isinstance(verdict, Rejected)
    sources = {DATASETS[0], DATASETS[2], *([] if rejected else [DATASETS[1]])}
    arms = [name for name, arm in params.arms.items() if params.datasets[arm.dataset].rows in sources]
    over = [f"{params.arms[name].cutoff_len} of {name}" for name in arms if not trained.fits[name]]
    if over:
        then = {"drop": "left out", "error": "refused", "shorten_reasoning": "shortened"}[params.train.on_too_long]
        return f"over cutoff_len {', '.join(over)}: it would be {then} there"
    return f"fits cutoff_len of {', '.join(arms)}" if arms else "for no arm"


def show_estimate(page: Page, lines: Iterable[tuple[str, str]], store: str) -> None:
    """The estimate, and where the answers are kept."""
    page.heading("the whole run")
    for label, text in lines:
        page.field(label, text)
    page.field("store", f"{store}: these answers are kept there, and the whole run does not ask for them again")
