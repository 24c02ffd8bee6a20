"""Read a server's error message: its codes and its sentence, in any layout.

    {"error": {"message": "…", "type": "…", "code": "…"}}                OpenAI and most others
    {"error": {"message": "…", "metadata": {"raw": "{…}"}}}              OpenRouter: the provider's own words inside
    {"code": 20012, "message": "…", "data": null}                        SiliconFlow
    {"object": "error", "message": "…", "code": 400}                     older vLLM, Mistral
    {"base_resp": {"status_code": 1008, "status_msg": "…"}}              MiniMax
    [{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}]             Gemini
    {"detail": [{"msg": "…"}]}                                           FastAPI
    <html><title>502 Bad Gateway</title>…                                a proxy

``error_in`` reads the error in a body with status 200, ``message_of`` the message in any other body. errors.py
classifies it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any

import orjson

LONGEST = 300  # characters of a server's sentence that are shown
DEEPEST = 8  # levels of an error object that are read
# keys, in lower case: of a sentence, of a code, a key that is an error by itself, a copy of the request
MESSAGES = re.compile(r"message|msg|errors?|(error|err|status)_?(msg|message)|details?|raw|(error_)?description|title")
CODES = re.compile(r"((error|err|status|http)_?)?code|(error_)?type|status|reasons?|name")
ERROR_FLAGS = re.compile(r"flagged_input|content_filter_results?")
IGNORED_KEYS = re.compile(r"input|flagged_input|prompt|messages|request|choices|loc|ctx|headers")
ERROR_FIELDS = ("error", "errors", "base_resp", "Error")  # where a body with status 200 states an error
CODE_FIELDS = ("code", "error_code", "errcode", "status_code")
ERROR_KEYS = frozenset((*ERROR_FIELDS, *CODE_FIELDS, "Response", "type"))
SUCCESS = frozenset(("", "0", "1", "200", "10000", "20000", "ok", "success", "succeeded", "none", "null", "成功"))
HTML_TITLE = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
HTML_NOISE = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class ServerMessage:
    """``text`` is the sentence in one line, ``codes`` all codes and types in lower case; ``value`` is what came."""

    text: str = ""
    codes: frozenset[str] = frozenset()
    value: Any = None

    @property
    def status(self) -> int | None:
        """The HTTP status that the body states; None where it states none."""
        return next((int(code) for code in sorted(self.codes) if re.fullmatch(r"[45]\d\d", code)), None)


def message_of(body: bytes) -> ServerMessage:
    """The message of a body without an answer: an error object's codes and sentence, a page's title, or its text."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    value = _object_in(text)
    if value is None:
        return ServerMessage(_one_line(_page_text(text)))
    message = _read(value)
    return message if message.text else ServerMessage(_one_line(text), message.codes, value)


def error_in(value: Any, *, event: bool = False) -> ServerMessage | None:
    """The error that a parsed body with status 200 states, with or without choices; None where it states none.

    In a body without choices, a sentence alone is an error too. An ``event`` of a stream may have neither choices nor
    an error.
    """
    if isinstance(value, list):
        return next(filter(None, (error_in(each, event=event) for each in value[:1])), None)
    if not isinstance(value, dict) or _is_plain(value):
        return None
    for stated in _stated(value):
        if _is_failure(stated):
            return _read(stated)
    named = "error" in (value.get("object"), value.get("type"))
    alone = not (value.get("choices") or event) and _sentence(value)
    return _read(value) if named or alone or _is_numbered(value) else None


def _is_plain(value: dict[str, Any]) -> bool:
    """Whether there are choices and no key of an error. This is true of nearly all bodies, so it is checked first."""
    choices = value.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)) or "error" in choices[0]:
        return False
    return ERROR_KEYS.isdisjoint(value) and value.get("object") != "error"


def _stated(value: dict[str, Any]) -> Iterator[Any]:
    """The values that may state an error: the usual fields, Tencent's wrapped one, and that of the first choice."""
    yield from (value.get(name) for name in ERROR_FIELDS)
    wrapped = value.get("Response")
    yield wrapped.get("Error") if isinstance(wrapped, dict) else None
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        yield choices[0].get("error")


def _is_failure(stated: Any) -> bool:
    """``{"code": null, "message": ""}`` and ``{"status_code": 0, "status_msg": "success"}`` are none."""
    if isinstance(stated, dict | list):
        message = _read(stated)
        return bool(message.text or message.codes)
    return stated is True or (stated is not None and stated is not False and not _means_success(stated))


def _is_numbered(value: dict[str, Any]) -> bool:
    """Whether there is an error number with a sentence; some gateways send both together with choices."""
    numbers = (value.get(name) for name in CODE_FIELDS)
    wrong = (number for number in numbers if re.fullmatch(r"-?\d+", str(number)) and not _means_success(number))
    return next(wrong, None) is not None and bool(_sentence(value) or not value.get("choices"))


def _sentence(value: dict[str, Any]) -> str:
    return next((text for text, _ in _walk(value) if text), "")


def _means_success(stated: Any) -> bool:
    return str(stated).strip().lower() in SUCCESS


def _read(value: Any) -> ServerMessage:
    found = list(_walk({"error": value} if isinstance(value, str) else value))
    texts = list(dict.fromkeys(text for text, _ in found if text and not _means_success(text)))
    codes = frozenset(code for _, code in found if code and not _means_success(code))
    # a sentence that is contained in another one is not shown twice
    texts = [text for text in texts if not any(text != other and text in other for other in texts)]
    text = ": ".join(texts) or ", ".join(sorted(codes)) or ("" if isinstance(value, dict | list) else str(value))
    return ServerMessage(_one_line(text), codes, value)


def _walk(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Pairs of a sentence or a code, the other empty."""
    if depth > DEEPEST:
        return
    if isinstance(value, list):
        for each in value:
            yield from _walk(each, depth + 1)
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _walk_field(name.lower(), each, depth + 1)


def _walk_field(name: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if ERROR_FLAGS.fullmatch(name):
        yield "", name
    if IGNORED_KEYS.fullmatch(name):
        return
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, dict | list):
            yield from _walk(item, depth)
        elif isinstance(item, str) and MESSAGES.fullmatch(name):
            inner = _object_in(item) if depth <= DEEPEST else None
            if inner is None:
                yield item.strip(), ""
            else:
                yield from _walk(inner, depth)
        elif isinstance(item, str | int) and not isinstance(item, bool) and CODES.fullmatch(name):
            yield "", str(item).strip().lower()


def _object_in(text: str) -> Any:
    """The JSON object or array in a text, also in the form of a stream's event; None where there is none."""
    text = re.sub(r"\A(?:\s*(?:event|id|retry)?:.*\n)*\s*data:\s*", "", text)
    if not text.startswith(("{", "[")):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _page_text(text: str) -> str:
    """The title of an HTML page, else its text without tags."""
    title = HTML_TITLE.search(text[:20_000])
    return unescape(title[2] if title else HTML_NOISE.sub(" ", text[:20_000]))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
