"""Any endpoint that speaks the OpenAI chat-completions protocol: DashScope, DeepSeek, vLLM, SGLang, …"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dotenv import dotenv_values

from stages.lib.command import DistilleryError, project_root
from stages.lib.params import Run, ServedTeacher
from stages.lib.teacher.backends import Endpoint


def identity(teacher: ServedTeacher) -> str:
    """The server's address: answers of different servers are different answers."""
    return teacher.base_url.rstrip("/")


@contextmanager
def connect(teacher: ServedTeacher, run: Run, key_variable: str | None) -> Iterator[Endpoint]:
    """The endpoint named in params, with its key."""
    yield endpoint_at(identity(teacher), key_variable)


def endpoint_at(base_url: str, key_variable: str | None) -> Endpoint:
    """The endpoint with the key from the environment or from .env; DistilleryError where there is none."""
    assert key_variable  # params are valid
    key = os.environ.get(key_variable) or dotenv_values(project_root() / ".env").get(key_variable)
    if not key:
        raise DistilleryError(
            f"{key_variable}: not set. Export it, or write '{key_variable}=…' into .env; "
            "for a server that needs no key, set any word."
        )
    if not (key.isascii() and key.isprintable()):
        raise DistilleryError(
            f"{key_variable}: holds a line end or a character outside ASCII, which no key has. Copy the key again."
        )
    return Endpoint(base_url.rstrip("/"), key, key_variable)
