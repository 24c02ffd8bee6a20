"""The workers of a Ray cluster (run.engine: {kind: ray, …}): the connection, the check of its nodes, tasks of rows."""

from stages.lib.command import DistilleryError


class WorkerError(DistilleryError):
    """A worker was killed, or the engine cannot be used."""
