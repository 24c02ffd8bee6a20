"""The forms of the OpenAI chat protocol: an answer as one body or as a stream of events, and errors.

    whole("sums", "51 + 22 =", Worked("51 + 22 = 73", "73."))   → Reply([b'{"id": …}'], …)
    streamed("sums", "51 + 22 =", Worked(…), with_usage=True)   → Reply([b'data: {…}', …, b'data: [DONE]'], …)

A word counts as a token.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from stages.lib.teacher.backends.embedded.solver import Worked

EVENTS = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_EVERY = 16  # events
DELTA_LENGTH = 8  # characters


@dataclass(frozen=True)
class Reply:
    """What goes over the wire: the pieces of a body, a pause before each, and how the connection is left after them.

    Without a ``length`` the body is chunked.
    """

    pieces: list[bytes]
    length: int | None
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    ending: Literal["whole", "cut", "reset", "hang"] = "whole"


def plain(body: bytes, status: int = 200, content_type: str = "application/json") -> Reply:
    """A body in one piece, its length said before it."""
    return Reply([body], len(body), status, content_type)


def error(status: int, code: str, message: str) -> Reply:
    """The protocol's error object."""
    return plain(as_json(error_object(code, message)), status)


def error_object(code: str, message: str) -> dict[str, Any]:
    """``{"error": …}``, as it stands in a body."""
    return {"error": {"message": message, "type": code, "code": code}}


def cut(worked: Worked, limit: int) -> Worked:
    """The first ``limit`` words; the reasoning is spent first, as by a reasoning model."""
    reasoning, response = _words(worked.reasoning), _words(worked.response)
    if len(reasoning) + len(response) <= limit:
        return worked
    kept = reasoning[:limit]
    return Worked(" ".join(kept), " ".join(response[: limit - len(kept)]), "length")


def word_count(worked: Worked) -> int:
    """How long an answer is, its reasoning included."""
    return len(_words(worked.reasoning)) + len(_words(worked.response))


def whole(model: str, question: str, worked: Worked) -> Reply:
    """The answer as one ``chat.completion``."""
    message = {"role": "assistant", "reasoning_content": worked.reasoning, "content": worked.response}
    choices: list[dict[str, Any]] = [{"index": 0, "message": message, "finish_reason": worked.finish_reason}]
    return plain(as_json(_head(model, "chat.completion") | {"choices": choices, "usage": _usage(question, worked)}))


def streamed(model: str, question: str, worked: Worked, with_usage: bool) -> Reply:
    """The answer as ``chat.completion.chunk`` events: the role, the reasoning, the content, why it ended, [DONE]."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": part} for part in _parts(worked.reasoning)]
    deltas += [{"content": part} for part in _parts(worked.response)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": worked.finish_reason})
    # asked for usage, a server sends it after the last choice, and null before
    head = _head(model, "chat.completion.chunk") | ({"usage": None} if with_usage else {})
    pieces = []
    for number, choice in enumerate(choices, start=1):
        pieces.append(event(head | {"choices": [choice]}))
        if number % KEEP_ALIVE_EVERY == 0:
            pieces.append(KEEP_ALIVE)
    if with_usage:
        pieces.append(event(head | {"choices": [], "usage": _usage(question, worked)}))
    return Reply([*pieces, b"data: [DONE]\n\n"], None, content_type=EVENTS)


def event(chunk: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + as_json(chunk) + b"\n\n"


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-embedded", "object": kind, "created": int(time.time()), "model": model}


def _usage(question: str, worked: Worked) -> dict[str, Any]:
    prompt, completion = len(question.split()), word_count(worked)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": len(_words(worked.reasoning))},
    }


def _words(text: str) -> list[str]:
    return text.split(" ") if text else []


def _parts(text: str) -> list[str]:
    return [text[start : start + DELTA_LENGTH] for start in range(0, len(text), DELTA_LENGTH)]


def as_json(value: dict[str, Any]) -> bytes:
    """A body: UTF-8, nothing escaped that need not be."""
    return json.dumps(value, ensure_ascii=False).encode()
