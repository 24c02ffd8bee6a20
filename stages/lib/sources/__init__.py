"""Where questions come from: one module a kind of ``collect.source``, and presets of public sets (stages/presets).

Each module offers ``draw(source, train_size, heldout_size, key) -> Drawn``; ``key`` is where params name the source.
``chain_sum`` generates them; ``file``, ``hub``, ``modelscope`` and ``preset`` read tables (table.py).
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stages.lib.params import Collect
from stages.lib.rows.question import Question


@dataclass(frozen=True)
class Drawn:
    """Questions to train on and to hold out, and what the source's rows were, for the metrics (none of a generator)."""

    candidates: Iterable[Question]
    heldout: Iterable[Question]
    facts: dict[str, Any] = field(default_factory=dict)


def draw(params: Collect) -> Drawn:
    """The questions that params ask for; those to hold out come from ``heldout_source`` where it is not null."""
    if params.heldout_source is None:
        return _draw(params.source, params.train_size, params.heldout_size, "collect.source")
    training = _draw(params.source, params.train_size, 0, "collect.source")
    heldout = _draw(params.heldout_source, params.heldout_size, 0, "collect.heldout_source")
    facts = training.facts | ({"heldout": heldout.facts} if heldout.facts else {})
    return Drawn(training.candidates, heldout.candidates, facts)


def _draw(source: Any, train_size: int, heldout_size: int, key: str) -> Drawn:
    module = importlib.import_module(f"stages.lib.sources.{source.kind}")
    drawn: Drawn = module.draw(source, train_size, heldout_size, key)
    return drawn
