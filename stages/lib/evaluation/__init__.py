"""Asking a student the benchmark questions (lm-eval), scoring its answers, comparing arms."""

from stages.lib.command import DistilleryError


class EvaluationError(DistilleryError):
    """An evaluation that cannot be run."""
