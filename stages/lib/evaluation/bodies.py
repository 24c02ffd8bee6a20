"""Reading what a served model sent: each prompt's answer, or the words in which the server says that it has none.

answers(b'{"choices": [{"message": {"content": "18"}, "finish_reason": "stop"}]}', 1)    → [Answer("18", "", False)]
answers(b'{"error": {"message": "token expired"}}', 1)                     raises NoAnswer("token expired")

lm-eval's own classes read an error, no choice or a broken choice as an empty answer, score it as wrong and keep it.
"""

import json
import math
import re
from typing import Any, NamedTuple

ENDS = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call"}
LIMITS = {
    *("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
    "repetition",  # vLLM ended an answer that would not end
}
# a request that failed with one of these may succeed when it is repeated (RFC 9110, 15.5; RFC 8470; RFC 6585)
PASSING_STATUS = {408, 409, 425, 429}
FINAL_WORDS = (
    *("invalid_request_error", "authentication_error", "invalid_api_key", "permission_denied", "model_not_found"),
    *("insufficient_quota", "exceeded_current_quota_error", "insufficient_balance"),
)
_WORDS_IN = ("message", "msg", "detail", "error_msg", "status_msg", "error_description", "type", "code")
_LONGEST = 200


class NoAnswer(Exception):
    """What came is no answer: the server's words for it; ``passes`` where a repeated request may get one."""

    def __init__(self, words: str, passes: bool = True, after_s: float = 0.0) -> None:
        super().__init__(words)
        self.passes = passes
        self.after_s = after_s


class Answer(NamedTuple):
    """A text, the thought that the server took out of it, and whether the server says that it was cut off.

    ``cut_off`` is None where nobody said so: it must be told from the number of tokens.
    """

    text: str
    reasoning: str = ""
    cut_off: bool | None = None


def answers(body: bytes, prompts: int) -> list[Answer]:
    """The generated answers in a body, in the prompts' order; NoAnswer where one is none."""
    whole = parsed(body)
    usage = whole.get("usage") if prompts == 1 else None  # of several it is the sum
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return [_answer(choice, tokens) for choice in _choices(whole, prompts)]


def likelihoods(body: bytes, prompts: list[list[int]], contexts: list[int]) -> dict[str, Any]:
    """A body with the log-probability of each prompt's tokens, checked as far as lm-eval reads it."""
    choices = _choices(parsed(body), len(prompts))
    for choice, prompt, context in zip(choices, prompts, contexts, strict=True):
        _check_likelihoods(choice.get("logprobs"), len(prompt), context)
    return {"choices": choices}


def status_error(status: int, body: bytes, after_s: float) -> NoAnswer:
    """The error that an HTTP status says, with the body's words."""
    try:
        said = words(parsed(body))
    except NoAnswer as error:
        said = str(error)
    return NoAnswer(f"HTTP {status}: {said}", passes=status >= 500 or status in PASSING_STATUS, after_s=after_s)


def words(found: Any) -> str:
    """What a server says of an error, wherever in its answer it says so, in one line."""
    if isinstance(found, dict):
        # the body's "code" and "type" say less than the error's own message
        inner = [found[key] for key in ("error", "errors", "base_resp") if found.get(key)]
        said = [words(each) for each in inner] or [words(found[key]) for key in _WORDS_IN if found.get(key)]
        return said[0] if said else _line(json.dumps(found, ensure_ascii=False))
    if isinstance(found, list):
        return words(found[0]) if found else "an empty list"
    return _line(str(found))


def _line(text: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    plain = title[1] if title else re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL)
    return " ".join(plain.split())[:_LONGEST]


def parsed(body: bytes) -> dict[str, Any]:
    """The object in a body that reports no error."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    if not text:
        raise NoAnswer("an empty body")
    try:
        whole = json.loads(text)
    except ValueError as error:
        raise NoAnswer(f"no JSON: {_line(text)}") from error
    if not isinstance(whole, dict):
        raise NoAnswer(f"no JSON object: {_line(text)}")
    if whole.get("error") or whole.get("errors") or whole.get("object") == "error":
        raise NoAnswer(words(whole), passes=_passes(whole))
    return whole


def _passes(found: dict[str, Any]) -> bool:
    """Whether an error in a body may pass: all do but those with a status or a word that says no."""
    places = [place for place in (found, found.get("error")) if isinstance(place, dict)]
    marks = [str(place.get(key)) for place in places for key in ("code", "status", "type")]
    statuses = [int(mark) for mark in marks if re.fullmatch(r"[1-5]\d\d", mark)]
    refused = any(400 <= status < 500 and status not in PASSING_STATUS for status in statuses)
    return not refused and not any(mark.lower() in FINAL_WORDS for mark in marks)


def _choices(whole: dict[str, Any], prompts: int) -> list[dict[str, Any]]:
    """One choice for each prompt, in the prompts' order."""
    found = whole.get("choices")
    if not isinstance(found, list) or not found:
        raise NoAnswer(f"no choices: {words(whole)}", passes=_passes(whole))
    if len(found) != prompts:
        raise NoAnswer(f"{len(found)} choices for {prompts} prompts")
    if not all(isinstance(choice, dict) for choice in found):
        raise NoAnswer(f"no choice: {words(found)}")
    for choice in found:
        if choice.get("error"):
            raise NoAnswer(words(choice), passes=_passes(choice))
    numbered = {choice.get("index", 0 if prompts == 1 else None): choice for choice in found}
    if set(numbered) != set(range(prompts)):
        raise NoAnswer(f"the choices for {prompts} prompts have the numbers {', '.join(map(str, numbered))}")
    return [numbered[place] | {"index": place} for place in range(prompts)]


def _answer(choice: dict[str, Any], tokens: Any) -> Answer:
    cut_off = _cut_off(choice)
    message = choice.get("message", {"content": choice.get("text")})
    if not isinstance(message, dict):
        raise NoAnswer(f"a choice without a message: {words(choice)}")
    text, reasoning = _text(message.get("content")), _reasoning(message)
    if not text and not reasoning and not cut_off:
        # a student may end at once, and then says so: by an empty text of one token
        generated = tokens if isinstance(tokens, int) else (text is not None or bool(message.get("tool_calls")))
        if not generated:
            raise NoAnswer("an answer without text, thought or tokens")
    return Answer(text or "", reasoning, cut_off)


def _cut_off(choice: dict[str, Any]) -> bool | None:
    """Whether the server says that the limit ended an answer; NoAnswer where it was something else that ended it."""
    reason = choice.get("finish_reason", "")
    if reason == "":
        return None
    if reason in (None, "null"):
        raise NoAnswer("finish_reason: null, so the answer is not whole")
    if str(reason).lower() not in ENDS | LIMITS:
        raise NoAnswer(f"finish_reason: {_line(str(reason))}")
    return str(reason).lower() in LIMITS


def _text(content: Any) -> str | None:
    """A message's text, of which some servers make a list of parts."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "".join(part["text"] for part in parts)
    if content is not None and not isinstance(content, str):
        raise NoAnswer(f"no text: {words(content)}")
    return content and _whole_characters(content)


def _reasoning(message: dict[str, Any]) -> str:
    named = (message.get("reasoning_content"), message.get("reasoning"))
    return next((_whole_characters(text) for text in named if isinstance(text, str)), "")


def _whole_characters(text: str) -> str:
    """The text with a mark for each half of a broken character, which no file could take."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _check_likelihoods(found: Any, tokens: int, context: int) -> None:
    own, best = (found.get("token_logprobs"), found.get("top_logprobs")) if isinstance(found, dict) else (None, None)
    if not isinstance(own, list) or not isinstance(best, list):
        raise NoAnswer("no log-probabilities of the prompt's tokens: a server must echo them", passes=False)
    if not len(own) == len(best) == tokens + 1:
        raise NoAnswer(
            f"{len(own)} log-probabilities for a prompt of {tokens} tokens and one more: a server must echo them",
            passes=False,
        )
    if not all(_is_number(each) for each in own[context:-1]):
        raise NoAnswer("a log-probability that is no number")
    if not all(isinstance(each, dict) and each and all(map(_is_number, each.values())) for each in best[context:-1]):
        raise NoAnswer("no likeliest token beside a log-probability")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)
