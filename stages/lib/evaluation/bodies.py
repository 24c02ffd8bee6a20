"""Parse a served model's response body: the answer to each prompt, or the server's error message.

answers(b'{"choices": [{"message": {"content": "18"}, "finish_reason": "stop"}]}', 1)    → [Answer("18", "", False)]
answers(b'{"error": {"message": "token expired"}}', 1)                     raises NoAnswer("token expired")

lm-eval's own classes read an error, no choice or an invalid choice as an empty answer, score it as wrong and cache it.
"""

import json
import math
import re
from typing import Any, NamedTuple

ENDS = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call"}
LIMITS = {
    *("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
    "repetition",  # vLLM stopped an endless answer
}
# a request that failed with one of these may succeed on a retry (RFC 9110, 15.5; RFC 8470; RFC 6585)
RETRYABLE_STATUS = {408, 409, 425, 429}
FINAL_CODES = (
    *("invalid_request_error", "authentication_error", "invalid_api_key", "permission_denied", "model_not_found"),
    *("insufficient_quota", "exceeded_current_quota_error", "insufficient_balance"),
)
_MESSAGE_KEYS = ("message", "msg", "detail", "error_msg", "status_msg", "error_description", "type", "code")
_LONGEST = 200


class NoAnswer(Exception):
    """A response without a valid answer. Its text is the server's message; ``retryable``: a retry may succeed."""

    def __init__(self, error_message: str, retryable: bool = True, after_s: float = 0.0) -> None:
        super().__init__(error_message)
        self.retryable = retryable
        self.after_s = after_s


class Answer(NamedTuple):
    """A text, the thought that the server separated from it, and whether the server reports that it was cut off.

    ``cut_off`` is None if the server does not report it; then the number of tokens decides.
    """

    text: str
    reasoning: str = ""
    cut_off: bool | None = None


def answers(body: bytes, prompts: int) -> list[Answer]:
    """The generated answers in a body, in the prompts' order; NoAnswer if one is missing or invalid."""
    parsed_body = parsed(body)
    usage = parsed_body.get("usage") if prompts == 1 else None  # for several prompts it is their sum
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return [_answer(choice, tokens) for choice in _choices(parsed_body, prompts)]


def likelihoods(body: bytes, prompts: list[list[int]], contexts: list[int]) -> dict[str, Any]:
    """A body with the log-probabilities of each prompt's tokens; all that lm-eval reads is checked."""
    choices = _choices(parsed(body), len(prompts))
    for choice, prompt, context in zip(choices, prompts, contexts, strict=True):
        _check_likelihoods(choice.get("logprobs"), len(prompt), context)
    return {"choices": choices}


def status_error(status: int, body: bytes, after_s: float) -> NoAnswer:
    """The error for an HTTP status, with the body's message."""
    try:
        said = error_message(parsed(body))
    except NoAnswer as error:
        said = str(error)
    return NoAnswer(f"HTTP {status}: {said}", retryable=status >= 500 or status in RETRYABLE_STATUS, after_s=after_s)


def error_message(found: Any) -> str:
    """The error message in a body, wherever the server put it, in one line."""
    if isinstance(found, dict):
        # the error's own message says more than the body's "code" and "type"
        inner = [found[key] for key in ("error", "errors", "base_resp") if found.get(key)]
        said = [error_message(each) for each in inner] or [
            error_message(found[key]) for key in _MESSAGE_KEYS if found.get(key)
        ]
        return said[0] if said else _line(json.dumps(found, ensure_ascii=False))
    if isinstance(found, list):
        return error_message(found[0]) if found else "an empty list"
    return _line(str(found))


def _line(text: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    plain = title[1] if title else re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL)
    return " ".join(plain.split())[:_LONGEST]


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; NoAnswer if it is an error."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    if not text:
        raise NoAnswer("an empty body")
    try:
        parsed_body = json.loads(text)
    except ValueError as error:
        raise NoAnswer(f"not JSON: {_line(text)}") from error
    if not isinstance(parsed_body, dict):
        raise NoAnswer(f"not a JSON object: {_line(text)}")
    if parsed_body.get("error") or parsed_body.get("errors") or parsed_body.get("object") == "error":
        raise NoAnswer(error_message(parsed_body), retryable=_is_retryable(parsed_body))
    return parsed_body


def _is_retryable(found: dict[str, Any]) -> bool:
    """Whether an error may succeed on a retry: all but those with a final status or code."""
    places = [place for place in (found, found.get("error")) if isinstance(place, dict)]
    marks = [str(place.get(key)) for place in places for key in ("code", "status", "type")]
    statuses = [int(mark) for mark in marks if re.fullmatch(r"[1-5]\d\d", mark)]
    refused = any(400 <= status < 500 and status not in RETRYABLE_STATUS for status in statuses)
    return not refused and not any(mark.lower() in FINAL_CODES for mark in marks)


def _choices(parsed_body: dict[str, Any], prompts: int) -> list[dict[str, Any]]:
    """One choice for each prompt, in the prompts' order."""
    found = parsed_body.get("choices")
    if not isinstance(found, list) or not found:
        raise NoAnswer(f"no choices: {error_message(parsed_body)}", retryable=_is_retryable(parsed_body))
    if len(found) != prompts:
        raise NoAnswer(f"{len(found)} choices for {prompts} prompts")
    if not all(isinstance(choice, dict) for choice in found):
        raise NoAnswer(f"not a choice: {error_message(found)}")
    for choice in found:
        if choice.get("error"):
            raise NoAnswer(error_message(choice), retryable=_is_retryable(choice))
    numbered = {choice.get("index", 0 if prompts == 1 else None): choice for choice in found}
    if set(numbered) != set(range(prompts)):
        raise NoAnswer(f"the choices for {prompts} prompts have the numbers {', '.join(map(str, numbered))}")
    return [numbered[place] | {"index": place} for place in range(prompts)]


def _answer(choice: dict[str, Any], tokens: Any) -> Answer:
    cut_off = _cut_off(choice)
    message = choice.get("message", {"content": choice.get("text")})
    if not isinstance(message, dict):
        raise NoAnswer(f"a choice without a message: {error_message(choice)}")
    text, reasoning = _text(message.get("content")), _reasoning(message)
    if not text and not reasoning and not cut_off:
        # a student may end at once: the answer is then an empty text of one token
        generated = tokens if isinstance(tokens, int) else (text is not None or bool(message.get("tool_calls")))
        if not generated:
            raise NoAnswer("an answer without text, reasoning or tokens")
    return Answer(text or "", reasoning, cut_off)


def _cut_off(choice: dict[str, Any]) -> bool | None:
    """Whether the server reports that the limit ended an answer; NoAnswer if neither limit nor end of turn did."""
    reason = choice.get("finish_reason", "")
    if reason == "":
        return None
    if reason in (None, "null"):
        raise NoAnswer("finish_reason: null, so the answer is incomplete")
    if str(reason).lower() not in ENDS | LIMITS:
        raise NoAnswer(f"finish_reason: {_line(str(reason))}")
    return str(reason).lower() in LIMITS


def _text(content: Any) -> str | None:
    """A message's text; some servers send a list of parts."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "".join(part["text"] for part in parts)
    if content is not None and not isinstance(content, str):
        raise NoAnswer(f"not a text: {error_message(content)}")
    return content and _without_surrogates(content)


def _reasoning(message: dict[str, Any]) -> str:
    named = (message.get("reasoning_content"), message.get("reasoning"))
    return next((_without_surrogates(text) for text in named if isinstance(text, str)), "")


def _without_surrogates(text: str) -> str:
    """The text with each lone surrogate replaced, because UTF-8 cannot encode it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _check_likelihoods(found: Any, tokens: int, context: int) -> None:
    own, best = (found.get("token_logprobs"), found.get("top_logprobs")) if isinstance(found, dict) else (None, None)
    if not isinstance(own, list) or not isinstance(best, list):
        raise NoAnswer("no log-probabilities of the prompt's tokens: the server must support echo", retryable=False)
    if not len(own) == len(best) == tokens + 1:
        raise NoAnswer(
            f"{len(own)} log-probabilities for a prompt of {tokens} tokens and one more: the server must support echo",
            retryable=False,
        )
    if not all(_is_number(each) for each in own[context:-1]):
        raise NoAnswer("a log-probability that is not a number")
    if not all(isinstance(each, dict) and each and all(map(_is_number, each.values())) for each in best[context:-1]):
        raise NoAnswer("no top token beside a log-probability")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)
