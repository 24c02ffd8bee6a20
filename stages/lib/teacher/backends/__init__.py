"""Who can be the teacher: one package a backend, chosen by ``distill.teacher.backend``.

Each offers ``connect(teacher, run)``, a context manager that yields an ``Endpoint``, and ``identity(teacher)``, what
stands for the endpoint in the store's keys, without a connection.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """Where questions are sent. ``identity`` stands for the endpoint in the store's keys; the key is never shown."""

    base_url: str
    identity: str
    api_key: str = field(repr=False)
