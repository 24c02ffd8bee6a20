"""Any endpoint that speaks the OpenAI chat-completions protocol: DashScope, DeepSeek, vLLM, SGLang, …"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from stages.lib.command import DistilleryError, secret
from stages.lib.params import Role, Run, ServedTeacher, Server
from stages.lib.teacher.backends import Endpoint

NO_KEY = "none"  # sent to a server that asks for none


def identity(teacher: ServedTeacher) -> str:
    """The address in params: answers of different ones are different answers, unless run.endpoints gives a name."""
    return teacher.base_url.rstrip("/")


@contextmanager
def connect(teacher: ServedTeacher, run: Run, role: Role) -> Iterator[list[Endpoint]]:
    """The servers that run.endpoints names, or the address in params, with keys from the environment or from .env.

    A server that run.endpoints names on this machine needs no key: ``make teacher`` starts them without.
    """
    variable = run.key_variable(role)
    assert variable  # params are valid
    if servers := run.servers(role):
        yield [_endpoint_of(server, server.key_variable or variable) for server in servers]
    else:
        yield [endpoint_at(identity(teacher), variable)]


def endpoint_at(base_url: str, variable: str | None) -> Endpoint:
    """One server with the key in a variable."""
    assert variable  # params are valid
    return Endpoint(base_url.rstrip("/"), _key(variable), variable)


def _endpoint_of(server: Server, variable: str) -> Endpoint:
    limits = server.model_dump(exclude={"base_url", "key_variable"})
    endpoint = Endpoint(server.base_url.rstrip("/"), NO_KEY, variable, **limits)
    if endpoint.is_here and server.key_variable is None and not secret(variable):
        return endpoint
    return replace(endpoint, api_key=_key(variable))


def _key(variable: str) -> str:
    """The key in a variable; DistilleryError where there is none or it cannot be one."""
    key = secret(variable)
    if not key:
        raise DistilleryError(
            f"{variable}: not set. Export it, or write '{variable}=…' into .env; "
            "for a server that needs no key, set any word."
        )
    if not (key.isascii() and key.isprintable()):
        raise DistilleryError(
            f"{variable}: holds a line end or a character outside ASCII, which no key has. Copy the key again."
        )
    return key
