"""The two files of a batch: a request a line, and an answer or an error a line, in any order.

    {"custom_id": "9f86d081…", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "…", "messages": […]}}

    {"custom_id": "9f86d081…", "response": {"status_code": 200, "body": {"choices": […], "usage": {…}}}, "error": null}
    {"custom_id": "9f86d081…", "response": null, "error": {"code": "batch_expired", "message": "…"}}

``custom_id`` is the key of the request in the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stages.lib.teacher.client import NOT_SENT

URL = "/v1/chat/completions"
OK = 200


@dataclass(frozen=True)
class Line:
    """One line of a result. ``body`` is the completion, or the server's error; both as JSON.

    ``status`` is None where the request was not executed; ``code`` then says why: ``batch_expired``.
    """

    key: str
    status: int | None
    body: bytes
    code: str = ""


def request_line(key: str, request: dict[str, Any]) -> bytes:
    """The line of a request in the file that is uploaded."""
    body = {name: value for name, value in request.items() if name not in NOT_SENT}
    return orjson.dumps({"custom_id": key, "method": "POST", "url": URL, "body": body}) + b"\n"


def result_lines(path: Path) -> Iterator[Line | bytes]:
    """The lines of a downloaded file; one that cannot be read, such as half a line, as it is."""
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield _read(line) or line


def _read(text: bytes) -> Line | None:
    try:
        line = orjson.loads(text)
        key, response, error = line["custom_id"], line.get("response"), line.get("error")
        if isinstance(response, dict) and (status := int(response.get("status_code") or 0)):  # a text at some servers
            return Line(str(key), status, _body(response.get("body"), error))
        if error:
            code = str(error.get("code") or "") if isinstance(error, dict) else ""
            return Line(str(key), None, orjson.dumps({"error": error}), code)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _body(body: Any, error: Any) -> bytes:
    """A completion or an error as JSON; some servers send the body as a text, or the error beside an empty body."""
    if isinstance(body, str):
        return body.encode("utf-8", errors="replace")
    return orjson.dumps(body) if body else orjson.dumps({"error": error} if error else {})
