"""Serve a trained arm and compare the server's answers with ``hf``'s; export an arm as GGUF."""

from stages.lib.command import DistilleryError


class ServingError(DistilleryError):
    """A server that cannot be started, or an export that failed."""
