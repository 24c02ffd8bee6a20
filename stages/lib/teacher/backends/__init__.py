"""Who can be the teacher: one package a backend, chosen by ``distill.teacher.kind`` (a judge: ``filter.judge.kind``).

Each offers ``identity(teacher)``, what stands for the endpoint in the store's keys, and ``connect(teacher, run,
key_variable)``, a context manager that yields an ``Endpoint``: only then is a key needed or a server started.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """Where questions are sent, and the key, which is never shown; ``key_variable`` is where it came from."""

    base_url: str
    api_key: str = field(repr=False)
    key_variable: str = "API_KEY"
