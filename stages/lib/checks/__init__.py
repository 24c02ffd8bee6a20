"""Checks of a text before any strategy judges it: one module for each kind in ``filter.checks``.

Each module offers ``prepared(check, student) -> PreparedCheck``. A check is prepared once, which may load a list or a
tokenizer, and is then asked about every row.

    checks = prepared_checks(params.filter.checks, params.train.student)
    failed_check(row, checks)     → Failed("too_long", "response: 9,120 characters, at most 8,000"), or None
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.params import Check, Student
from stages.lib.rows.distilled import Distilled

SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True)
class Failed:
    """Why a row is unfit: the ``reason`` that is counted, and what was found, for people."""

    reason: str
    detail: str


PreparedCheck = Callable[[Distilled], Failed | None]


def prepared_checks(checks: Sequence[Check], student: Student) -> list[PreparedCheck]:
    """The checks in the order of params.yaml, ready to be asked; ``student`` has the tokenizer that counts tokens."""
    found = []
    for check in checks:
        module: Any = importlib.import_module(f"stages.lib.checks.{check.kind}")
        found.append(module.prepared(check, student))
    return found


def failed_check(row: Distilled, checks: Sequence[PreparedCheck]) -> Failed | None:
    """What the first check that fails says; None where the row passes all."""
    return next((failed for check in checks if (failed := check(row))), None)


def shown(text: str) -> str:
    """A text in one line, cut for a message."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
