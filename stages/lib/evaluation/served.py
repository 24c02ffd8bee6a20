"""A served model: its address, its name, its key, and a check that the server has it.

run.served: {base_url: http://127.0.0.1:8000/v1, model: "{arm}", …}    → the model 'filtered'
"""

import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from stages.lib.command import secret, without_key
from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.bodies import NoAnswer, error_message, parsed, status_error
from stages.lib.params import Run, ServedModels

TIMEOUT_S = 10.0  # for the list of models


def served_models(run: Run) -> ServedModels:
    """``run.served``, which valid params have if evaluate.backend is local-…."""
    assert run.served
    return run.served


def check(arm: str, where: ServedModels) -> None:
    """EvaluationError if the server does not answer, or does not serve the arm's model under its name."""
    url, name = f"{base_url(where)}/models", model_name(arm, where)
    try:
        served = _served(url, where)
    except (OSError, NoAnswer) as error:
        reason = without_key(_reason(error), sent_key(header(where)))
        raise EvaluationError(f"{url}: {reason}. Start the server, or fix run.served.base_url.") from error
    if name not in served:
        raise EvaluationError(
            f"{url}: no model '{name}' there. It serves {', '.join(served) or 'none'}. "
            "Serve it under that name, or change run.served.model."
        )


def _served(url: str, where: ServedModels) -> list[str]:
    """The names in the server's list of models; OSError or NoAnswer if there is no list."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy, as for the questions
    try:
        with direct.open(urllib.request.Request(url, headers=header(where)), timeout=TIMEOUT_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        raise status_error(error.code, error.read(), 0.0) from error
    found = parsed(body)
    try:
        return [entry["id"] for entry in found["data"]]
    except (KeyError, TypeError) as error:
        raise NoAnswer(f"not a list of models: {error_message(found)}") from error


def base_url(where: ServedModels) -> str:
    """The address up to /v1; EvaluationError if it is not an http address, or contains a key."""
    parts = urlsplit(where.base_url)
    if parts.scheme not in ("http", "https") or parts.username or parts.password or parts.query:
        raise EvaluationError(
            "run.served.base_url: not a plain http address. Write it without user, password and query; "
            f"a key belongs in {where.api_key_variable}."
        )
    return where.base_url.rstrip("/")


def model_name(arm: str, where: ServedModels) -> str:
    """The name that the arm is served under."""
    return where.model.replace("{arm}", arm)


def header(where: ServedModels) -> dict[str, str]:
    """A request's header: the key, if there is one. Never empty, or lm-eval would look for a key itself."""
    variable = where.api_key_variable
    key = secret(variable)
    return {"Authorization": f"Bearer {key}"} if key else {"Accept": "application/json"}


def sent_key(sent: Mapping[str, str]) -> str:
    """The key in a header; empty if there is none."""
    return sent.get("Authorization", "").removeprefix("Bearer ")


def _reason(error: Exception) -> str:
    return f"cannot be reached ({getattr(error, 'reason', error)})" if isinstance(error, OSError) else str(error)
