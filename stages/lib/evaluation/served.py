"""A model that some server serves under a name: where, under which, with which key, and whether it is there.

run.served: {base_url: http://127.0.0.1:8000/v1, model: "{arm}", …}    → asks it for 'filtered'
"""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from dotenv import dotenv_values

from stages.lib.command import project_root, without_key
from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.bodies import NoAnswer, parsed, status_error, words
from stages.lib.params import Run, ServedModels

LOOK_S = 10.0


def served_models(run: Run) -> ServedModels:
    """Where they are served; there in valid params where evaluate.backend is local-…."""
    assert run.served
    return run.served


def check(arm: str, where: ServedModels) -> None:
    """EvaluationError where the server does not answer or does not serve the arm's model under its name."""
    url, name = f"{base_url(where)}/models", model_name(arm, where)
    try:
        served = _served(url, where)
    except (OSError, NoAnswer) as error:
        reason = without_key(_reason(error), sent_key(header(where)))
        raise EvaluationError(f"{url}: {reason}. Start the server, or correct run.served.base_url.") from error
    if name not in served:
        raise EvaluationError(
            f"{url}: no model '{name}' is served there, but {', '.join(served) or 'none'}. "
            "Serve it under that name, or change run.served.model."
        )


def _served(url: str, where: ServedModels) -> list[str]:
    """The names in the server's list of models; OSError or NoAnswer where there is no list."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # as the questions are asked
    try:
        with direct.open(urllib.request.Request(url, headers=header(where)), timeout=LOOK_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        raise status_error(error.code, error.read(), 0.0) from error
    found = parsed(body)
    try:
        return [entry["id"] for entry in found["data"]]
    except (KeyError, TypeError) as error:
        raise NoAnswer(f"no list of models: {words(found)}") from error


def base_url(where: ServedModels) -> str:
    """The address up to /v1; EvaluationError where it is none, or one with a key in it."""
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
    """What a request carries: the key, where there is one. Never empty, or lm-eval would look for a key by itself."""
    variable = where.api_key_variable
    key = os.environ.get(variable) or dotenv_values(project_root() / ".env").get(variable)
    return {"Authorization": f"Bearer {key}"} if key else {"Accept": "application/json"}


def sent_key(sent: Mapping[str, str]) -> str:
    """The key in the header that was sent; empty where there is none."""
    return sent.get("Authorization", "").removeprefix("Bearer ")


def _reason(error: Exception) -> str:
    return f"cannot be reached ({getattr(error, 'reason', error)})" if isinstance(error, OSError) else str(error)
