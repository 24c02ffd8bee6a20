"""Asking a student the benchmarks' questions with lm-eval, scoring its answers, and auditing them."""

from stages.lib.command import DistilleryError


class EvaluationError(DistilleryError):
    """An evaluation that cannot be run."""
