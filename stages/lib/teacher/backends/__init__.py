"""The teacher's backends: one package each, chosen by ``distill.teacher.kind``, for a judge by its own ``kind``.

Each backend has two functions:

    identity(teacher)                      identifies the endpoint in the store's keys
    connect(teacher, run, role)            a context manager that yields its ``Endpoint``s; only this needs a key or a
                                           running server
"""

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Endpoint:
    """Where questions are sent, and the API key, which is never shown; ``key_variable`` names its variable.

    One of several servers has a ``weight`` and its own limits; None: those of ``run``.
    """

    base_url: str
    api_key: str = field(repr=False)
    key_variable: str = "API_KEY"
    weight: float = 1.0
    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, for which no proxy from the environment may be used."""
        return urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
