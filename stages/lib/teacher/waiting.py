"""Read how long a server asks the client to wait: in a header, in its error object or in its sentence.

Retry-After: 30                                        seconds or a date (RFC 9110, 10.2.3)
retry-after-ms: 1500                                   Azure
X-RateLimit-Reset: 1767225600000                       OpenRouter: a timestamp, in its error object too
{"error": {"details": [{"retryDelay": "39s"}]}}        Gemini
Please try again in 9m38.016s.                         Groq, OpenAI

A time is compared with the server's own clock, which its Date header tells: that of this host may be minutes wrong.
"""

import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from stages.lib.replies.server_message import ServerMessage

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|days?|d|hours?|h|min(?:ute)?s?|m|sec(?:ond)?s?|s)(?![a-z])")
SENTENCE = re.compile(
    rf"\b(?:try again|retry|retrying|resets?|available)\b[^.!]{{0,24}}?\b(?:in|after)\s+((?:{PIECE.pattern}[\s,]*)+)"
)
FIRST_TIMESTAMP = 1_000_000_000  # a number above it is a time in seconds since 1970; above 1000 times it, milliseconds
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DELAYS = ("retrydelay", "retry_after", "retry_after_seconds")
RESET = "x-ratelimit-reset"


def asked_wait_s(headers: Mapping[str, str], message: ServerMessage) -> float:
    """The longest stated wait, in seconds; 0 where none is stated."""
    now = _date(headers.get("date", "")) or time.time()
    stated = [_header_s(headers.get("retry-after", ""), now), _milliseconds(headers.get("retry-after-ms", ""))]
    spent = headers.get("x-ratelimit-remaining", "0") == "0"
    stated += [_timestamp_s(headers.get(RESET, ""), now) if spent else 0.0, _sentence_s(message.text)]
    fields = _fields(message.value)
    stated += [_delay_s(value) if name in DELAYS else _timestamp_s(value, now) for name, value in fields]
    return max((seconds for seconds in stated if math.isfinite(seconds)), default=0.0)


def _header_s(header: str, now: float) -> float:
    try:
        return max(float(header), 0.0)
    except ValueError:
        return max(_date(header) - now, 0.0)


def _date(header: str) -> float:
    """The seconds since 1970 of a date; 0 where it is none."""
    try:
        return (parsedate_to_datetime(header) - EPOCH).total_seconds()
    except (ValueError, TypeError):  # TypeError: a date without a time zone
        return 0.0


def _milliseconds(header: str) -> float:
    return _number(header) / 1000


def _timestamp_s(value: Any, now: float) -> float:
    number = _number(value)
    timestamp = number / 1000 if number > 1000 * FIRST_TIMESTAMP else number
    return max(timestamp - now, 0.0) if timestamp > FIRST_TIMESTAMP else 0.0


def _delay_s(value: Any) -> float:
    return _number(value) or _duration_s(str(value))


def _sentence_s(text: str) -> float:
    found = SENTENCE.search(text.lower())
    return _duration_s(found[1]) if found else 0.0


def _duration_s(text: str) -> float:
    return sum(float(amount) * _unit_s(unit) for amount, unit in PIECE.findall(text.lower()))


def _unit_s(unit: str) -> float:
    return UNITS_S["ms" if unit.startswith(("ms", "milli")) else unit[0]]


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _fields(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The fields of an error object that may hold a delay or a timestamp."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        key = str(name).lower()
        if key in DELAYS or key == RESET:
            yield key, each
        elif depth < 6:
            yield from _fields(each, depth + 1)
