"""Any endpoint that speaks the OpenAI chat-completions protocol: DashScope, DeepSeek, vLLM, SGLang, …"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dotenv import dotenv_values

from stages.lib.command import DistilleryError, project_root
from stages.lib.params import Run, Teacher
from stages.lib.teacher.backends import Endpoint

KEY_VARIABLE = "API_KEY"


@contextmanager
def connect(teacher: Teacher, run: Run) -> Iterator[Endpoint]:
    """The endpoint named in params, with the key from the environment or from .env."""
    key = os.environ.get(KEY_VARIABLE) or dotenv_values(project_root() / ".env").get(KEY_VARIABLE)
    if not key:
        raise DistilleryError(
            f"{KEY_VARIABLE}: not set. Export it, or write '{KEY_VARIABLE}=…' into .env; "
            "for a server that wants none, any word will do."
        )
    if not (key.isascii() and key.isprintable()):
        raise DistilleryError(
            f"{KEY_VARIABLE}: holds a line end or a character outside ASCII, which no key has. Copy the key anew."
        )
    yield Endpoint(base_url=identity(teacher), identity=identity(teacher), api_key=key)


def identity(teacher: Teacher) -> str:
    """What stands for this teacher in the store's keys: its address."""
    return (teacher.base_url or "").rstrip("/")
