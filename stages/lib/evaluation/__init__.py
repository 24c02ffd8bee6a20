"""Evaluate a student with lm-eval: ask the benchmarks' questions, score the answers, audit them."""

from stages.lib.command import DistilleryError


class EvaluationError(DistilleryError):
    """An evaluation cannot run."""
