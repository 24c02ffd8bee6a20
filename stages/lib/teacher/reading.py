"""Reading a raw response body: the reasoning and the answer in it, or what is missing.

    {"choices": [{"message": {"reasoning_content": "…", "content": "…"}, "finish_reason": "stop"}], "usage": {…}}

A streamed body is read as it came, event by event (https://html.spec.whatwg.org/multipage/server-sent-events.html):

    data: {"choices": [{"delta": {"reasoning_content": "…"}, "finish_reason": null}]}
    data: [DONE]

What is stored is the raw body; everything here is derived from it, so a better reader needs no new call.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.teacher.pricing import tokens

# half of an escaped pair: a first half without its second, or a second without its first
LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
STREAM_BEGINS = re.compile(rb"\s*(?:data|event|id|retry)?:")  # a field of an event, or a comment
FINISHED = ("stop", "eos", "unknown")
# the server gave up, not the model: "insufficient_system_resource" is DeepSeek's word for it
INTERRUPTED = ("insufficient_system_resource", "error", "abort")


class BodyError(Exception):
    """A body that is no chat completion: nothing was received, the call may be made again."""


@dataclass(frozen=True)
class Answer:
    """What the teacher gave: ``failure`` is None, or why the answer is of no use though it was received."""

    reasoning: str
    response: str
    finish_reason: str
    model: str
    usage: dict[str, Any]
    failure: str | None


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(extra="ignore")

    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: dict[str, Any] | None = None


def read_body(body: bytes) -> Answer:
    """The answer in a body; BodyError where the body is empty, not JSON, holds no choice, or broke off."""
    try:
        completion = _Completion.model_validate(_joined_events(body) if _is_stream(body) else _loads(body))
    except orjson.JSONDecodeError as error:
        raise BodyError("not_json" if body.strip() else "empty_body") from error
    except (ValidationError, TypeError, AttributeError, KeyError) as error:  # but the first: an event of another shape
        raise BodyError("no_choices") from error
    choice = completion.choices[0]
    named = (choice.message.reasoning_content, choice.message.reasoning)
    reasoning = next((text for text in named if text and text.strip()), "")
    response = choice.message.content or ""
    if not reasoning:
        reasoning, response = _inline_thought(response)
    finish_reason = choice.finish_reason or "unknown"
    if finish_reason in INTERRUPTED:
        raise BodyError("interrupted")
    failure = _failure(reasoning, response, finish_reason)
    if failure == "empty_response" and not reasoning.strip() and not tokens(completion.usage or {}).completion:
        raise BodyError(failure)  # nothing at all came and nothing was counted: the server's failure, not the model's
    return Answer(
        reasoning=reasoning.strip(),
        response=response.strip(),
        finish_reason=finish_reason,
        model=completion.model or "",
        usage=completion.usage or {},
        failure=failure,
    )


def _loads(text: bytes) -> Any:
    """JSON; where half a character is escaped in it (a lone surrogate of a broken emoji), a mark in its place."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        mended = LONE_SURROGATE.sub(rb"\\ufffd", text)
        if mended == text:
            raise
        return orjson.loads(mended)


def _is_stream(body: bytes) -> bool:
    return bool(STREAM_BEGINS.match(body))


def _joined_events(body: bytes) -> dict[str, Any]:
    """One completion of all events: texts joined, the last of everything else; BodyError where the stream broke off."""
    texts: dict[str, list[str]] = {"reasoning_content": [], "reasoning": [], "content": []}
    rest: dict[str, Any] = {"finish_reason": None, "model": None, "usage": None}
    for line in body.splitlines():
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            _join_event(_loads(line[5:]), texts, rest)
    if rest["finish_reason"] is None:
        raise BodyError("broken_off")
    message = {name: "".join(pieces) for name, pieces in texts.items()}
    return {"choices": [{"message": message, "finish_reason": rest.pop("finish_reason")}], **rest}


def _join_event(event: Any, texts: dict[str, list[str]], rest: dict[str, Any]) -> None:
    if not isinstance(event, dict) or event.get("error"):
        raise BodyError("no_choices")
    rest.update({name: event[name] for name in ("model", "usage") if event.get(name)})
    for choice in (event.get("choices") or [])[:1]:  # none in the event that brings the usage
        rest["finish_reason"] = choice.get("finish_reason") or rest["finish_reason"]
        delta = choice.get("delta") or {}
        for name, pieces in texts.items():
            if delta.get(name):
                pieces.append(delta[name])


def _inline_thought(content: str) -> tuple[str, str]:
    """Split ``<think>…</think> answer``; some servers leave the opening tag in the prompt."""
    thought, closed, answer = content.partition("</think>")
    return (thought.replace("<think>", "", 1), answer) if closed else ("", content)


def _failure(reasoning: str, response: str, finish_reason: str) -> str | None:
    if finish_reason == "length":
        return "cut_off"
    if finish_reason == "content_filter":
        return "refused"
    if finish_reason not in FINISHED:
        return "not_finished"
    if not response.strip():
        return "empty_response"
    return None if reasoning.strip() else "empty_reasoning"
