"""Read a raw response body: its reasoning and its answer, or what is missing.

    {"choices": [{"message": {"reasoning_content": "…", "content": "…"}, "finish_reason": "stop"}], "usage": {…}}

A streamed body is read event by event (https://html.spec.whatwg.org/multipage/server-sent-events.html):

    data: {"choices": [{"delta": {"reasoning_content": "…"}, "finish_reason": null}]}
    data: [DONE]

The store holds the raw body, and everything here is derived from it, so a better reader needs no new call. A body that
states an error is no answer, even where it has choices: half an answer must not become a row.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from stages.lib.replies.finish import ending
from stages.lib.replies.server_message import ServerMessage, error_in
from stages.lib.replies.thoughts import split_thought
from stages.lib.replies.usage import Tokens, tokens

# half of an escaped pair: a first half without its second, or a second without its first
LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
PREAMBLE = re.compile(rb"(?:\xef\xbb\xbf|\s+|:[^\r\n]*+)*+")  # a byte order mark, empty lines, comments
TRAILER = re.compile(rb"(?:[\r\n]\s*+(?::[^\r\n]*|(?:data:\s*)?\[DONE\]))+\s*\Z")
STREAM_BEGINS = re.compile(rb"(?:data|event|id|retry)\s*:")
LAST_EVENT = re.compile(rb'"?\[?DONE\]?"?\Z')
SERVER_ERROR = "server_error"  # the reason where a body states an error
# the fields that may hold the thought, the preferred one first
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "reasoning_details", "thinking_blocks")
FIELDS = frozenset((*REASONING, "content", "refusal"))
LOGPROBS = ("reasoning_content", "content")  # of a choice's logprobs; DeepSeek's has the thought's tokens apart
IN_PARTS = "parts"  # the thought among the parts of the content
THOUGHT_PART = re.compile("think|thought|reason|summary")
PART_TEXTS = ("text", "thinking", "reasoning", "summary", "content", "value")


class BodyError(Exception):
    """A body that is not a chat completion; its text is the reason, ``server_message`` the error that it states."""

    def __init__(self, reason: str, server_message: ServerMessage | None = None) -> None:
        super().__init__(reason)
        self.server_message = server_message


@dataclass(frozen=True)
class Answer:
    """A received answer; ``failure`` is None, or the reason why the answer is not usable.

    ``logprobs`` has the entries of its tokens as the server sent them, the thought's first; empty where there are none.
    ``served_by``: the server that gave it, where the model has several.
    """

    reasoning: str
    response: str
    finish_reason: str
    model: str
    usage: dict[str, Any]
    failure: str | None
    logprobs: list[Any] = field(default_factory=list)
    served_by: str | None = None

    @cached_property
    def tokens(self) -> Tokens:
        """The counts in its usage."""
        return tokens(self.usage)


@dataclass
class _Message:
    """The texts of a message, or of all its pieces, by field; parts of the content have a field of their own."""

    texts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, message: dict[str, Any]) -> None:
        """Append the texts of a message or of a stream's delta."""
        for name, value in message.items():
            if name == "content" and value is not None and not isinstance(value, str):
                self._add_parts(value)
            elif value and name in FIELDS:
                self._append(name, value if isinstance(value, str) else _text(value))

    def text(self, name: str) -> str:
        """All of one field."""
        return "".join(self.texts.get(name, ()))

    def reasoning(self) -> str:
        """The thought from the first field that has one."""
        named = (self.text(name) for name in (*REASONING, IN_PARTS))
        return next((text for text in named if text and not text.isspace()), "")

    def _add_parts(self, content: Any) -> None:
        if not isinstance(content, list | dict):
            raise BodyError("no_choices")
        thought, answer = _parts(content)
        self._append(IN_PARTS, thought)
        self._append("content", answer)

    def _append(self, name: str, text: str) -> None:
        if text:
            self.texts.setdefault(name, []).append(text)


@dataclass
class _Completion:
    """The content of a body, from one object or from the events of a stream."""

    message: _Message = field(default_factory=_Message)
    finish_reason: str | None = None
    model: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)

    def add(self, value: dict[str, Any], *, whole: bool) -> None:
        """Read a completion or an event of a stream; BodyError where it states an error or has another shape."""
        stated = error_in(value, event=not whole)
        if stated:
            raise BodyError(SERVER_ERROR, stated)
        choices = value.get("choices")
        if not isinstance(choices, list | None) or (whole and not choices):
            raise BodyError("no_choices")
        choice = choices[0] if choices else {}  # the event with the usage has none
        if not isinstance(choice, dict):
            raise BodyError("no_choices")
        self._add_choice(choice, whole=whole)
        groq = value.get("x_groq")
        # the usual field for the usage, Moonshot's and Groq's
        usage = value.get("usage") or choice.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
        self.usage = usage if isinstance(usage, dict) and usage else self.usage
        model = value.get("model")
        self.model = model if isinstance(model, str) and model else self.model

    def _add_choice(self, choice: dict[str, Any], *, whole: bool) -> None:
        finish_reason = choice.get("finish_reason")
        if isinstance(finish_reason, dict):  # SGLang's own: {"type": "length", "length": 512}
            finish_reason = finish_reason.get("type")
        self.finish_reason = str(finish_reason) if finish_reason else self.finish_reason
        message = choice.get("delta") or choice.get("message")
        if isinstance(message, dict):
            if choice.get("message") and not choice.get("delta"):  # the whole message, even after some pieces of it
                self.message, self.logprobs = _Message(), []
            self.message.add(message)
        elif message is not None or (whole and ending(self.finish_reason or "stop") == "finished"):
            raise BodyError("no_choices")
        if isinstance(logprobs := choice.get("logprobs"), dict):
            self.logprobs += [entry for name in LOGPROBS for entry in logprobs.get(name) or ()]


def read_body(body: bytes) -> Answer:
    """The answer in a body; BodyError where the body is empty, not JSON, an error, holds no choice, or broke off."""
    completion = _completion(body)
    message, word = completion.message, completion.finish_reason or "unknown"
    reasoning, response = split_thought(message.reasoning(), message.text("content"))
    how = ending(word)
    if how == "interrupted":
        raise BodyError("interrupted", ServerMessage(f"finish_reason: {word}"))
    if how == "finished" and not (reasoning or response):
        if message.text("refusal"):
            how = "refused"
        elif not tokens(completion.usage).completion:
            raise BodyError("nothing_generated")
    return Answer(
        reasoning=reasoning,
        response=response,
        finish_reason=word,
        model=completion.model,
        usage=completion.usage,
        failure=_failure(reasoning, response, how),
        logprobs=completion.logprobs,
    )


def _failure(reasoning: str, response: str, how: str) -> str | None:
    if how != "finished":
        return how
    if not response:
        return "empty_response"
    return None if reasoning else "empty_reasoning"


def _completion(body: bytes) -> _Completion:
    begins = PREAMBLE.match(body)
    text = body[begins.end() :] if begins else body
    if not text:
        raise BodyError("empty_body")
    if STREAM_BEGINS.match(text):
        return _joined(_events(text))
    try:
        value = _value(text)
    except orjson.JSONDecodeError as error:
        raise BodyError("not_json") from error
    if isinstance(value, list) and value and isinstance(value[0], dict) and value[0].get("choices"):
        return _joined(iter(value))
    if not isinstance(value, dict):
        raise BodyError(*_not_a_completion(value))
    completion = _Completion()
    completion.add(value, whole=True)
    return completion


def _not_a_completion(value: Any) -> tuple[str, ServerMessage | None]:
    stated = error_in(value)
    return (SERVER_ERROR, stated) if stated else ("no_choices", None)


def _value(text: bytes) -> Any:
    """A body's JSON; comments and the end mark of a stream after it are ignored."""
    try:
        return _loads(text)
    except orjson.JSONDecodeError:
        return _loads(TRAILER.sub(b"", text))


def _loads(text: bytes) -> Any:
    """Parse JSON; an escaped half character (a lone surrogate of a broken emoji) becomes a replacement character."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        repaired = LONE_SURROGATE.sub(rb"\\ufffd", text)
        if repaired == text:
            raise
        return orjson.loads(repaired)


DONE = object()  # instead of the event that ends a stream
CUT = object()  # instead of a last event that is incomplete


def _joined(events: Iterator[Any]) -> _Completion:
    """One completion of all events: texts joined, the last of everything else; BodyError where the stream broke off."""
    completion, done, stated = _Completion(), False, None
    for event in events:
        if event is CUT and completion.finish_reason is None:
            raise BodyError("not_json")
        if event in (DONE, CUT):
            done = done or event is DONE
            continue
        if not isinstance(event, dict):
            raise BodyError(*_not_a_completion(event))
        completion.add(event, whole=False)
        if not event.get("choices"):  # a sentence alone is no error if the answer follows
            stated = stated or error_in(event)
    # some servers send no finish_reason, only [DONE]
    if completion.finish_reason is None and not (done and completion.message.text("content").strip()):
        raise BodyError(SERVER_ERROR, stated) if stated else BodyError("broken_off")
    return completion


def _events(text: bytes) -> Iterator[Any]:
    """The JSON of each event, DONE and CUT among them; the data of an event may be spread over several lines."""
    pending, fails = b"", False
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        if name == b"event":
            fails = value.strip() == b"error"
        if pending and not line.strip():  # the event ended and is not JSON: a part of one, or a word such as "ping"
            if pending.lstrip().startswith(b"{"):
                break
            pending = b""
        if name.strip() != b"data" or not value.strip() or value.lstrip().startswith(b":"):
            continue
        if LAST_EVENT.match(value.strip()):
            yield DONE
            continue
        try:
            event = _loads(pending + value)
        except orjson.JSONDecodeError:
            pending += value
            continue
        pending = b""
        yield {"error": event} if fails and isinstance(event, dict) and not event.get("error") else event
    if pending:
        yield CUT


def _text(value: Any) -> str:
    """A field's text: the string itself, or the text of all its parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        return next((text for name in PART_TEXTS if (text := _text(value.get(name)))), "")
    return ""


def _parts(content: list[Any] | dict[str, Any]) -> tuple[str, str]:
    """Thought and answer of ``[{"type": "thinking", "thinking": …}, {"type": "text", "text": "…"}]``."""
    thought, answer = "", ""
    for part in content if isinstance(content, list) else [content]:
        kind = str(part.get("type", "")) if isinstance(part, dict) else ""
        if THOUGHT_PART.search(kind):
            thought += _text(part)
        else:
            answer += _text(part)
    return thought, answer
