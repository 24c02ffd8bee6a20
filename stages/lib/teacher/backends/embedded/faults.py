"""Faults of a teacher, simulated: ``distill.teacher.faults: {rate_limit: 0.1}``.

A hash of the question and the seed decides which question meets which fault. Two kinds:

    transient   the first attempt at a question fails, the next is answered: rate limits, broken servers and connections
    permanent   every attempt fails: the answer is cut off, empty or refused

``Faults.for_attempt`` gives the fault of an attempt; ``shaped`` applies it to the answer, ``damaged`` to its bytes.
Streamed answers break off midway.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from stages.lib.params import Fault
from stages.lib.teacher.backends.embedded import protocol
from stages.lib.teacher.backends.embedded.protocol import EVENTS, KEEP_ALIVE, Reply
from stages.lib.teacher.backends.embedded.solver import Worked

PERMANENT: tuple[Fault, ...] = ("length", "empty_content", "empty_reasoning", "content_filter")
TRANSIENT: tuple[Fault, ...] = tuple(fault for fault in get_args(Fault) if fault not in PERMANENT)

RATE_LIMIT = protocol.error(429, "rate_limit_exceeded", "Requests come too fast.")
OVERLOADED = protocol.error_object("internal_error", "The model is overloaded.")
NO_CHOICES: dict[str, Any] = {"id": "chatcmpl-embedded", "object": "chat.completion", "choices": []}
BLANK_LINES = 10
BLANK_LINE_EVERY_S = 0.05


@dataclass
class Faults:
    """Shares of faults, and the questions that have met theirs."""

    shares: dict[Fault, float]
    seed: int
    _met: set[str] = field(default_factory=set)

    def for_attempt(self, question: str) -> Fault | None:
        """The fault that this attempt at the question meets."""
        fault = self.of(question)
        if fault in TRANSIENT:
            if question in self._met:
                return None
            self._met.add(question)
        return fault

    def of(self, question: str) -> Fault | None:
        """The fault of this question: each takes its share of all hashes, in the order of their names."""
        digest = hashlib.sha256(f"fault:{self.seed}:{question}".encode()).digest()
        place, end = int.from_bytes(digest[:8], "big") / 2**64, 0.0
        for fault, share in sorted(self.shares.items()):
            end += share
            if place < end:
                return fault
        return None


def shaped(worked: Worked, fault: Fault | None) -> Worked:
    """The answer after a fault that lies in the answer itself."""
    if fault == "length":
        return protocol.cut(worked, protocol.word_count(worked) // 2)
    if fault == "empty_content":
        return replace(worked, response="")
    if fault == "empty_reasoning":
        return replace(worked, reasoning="")
    return worked


def damaged(reply: Reply, fault: Fault | None, question: str) -> Reply:
    """The reply after a fault of the server or of the way to it."""
    if fault == "content_filter":
        return _refusal(question)
    return DAMAGES[fault](reply) if fault in DAMAGES else reply


def _page(status: int, title: str) -> Reply:
    """A proxy's own page, not the protocol's error object."""
    page = f"<html>\n<head><title>{status} {title}</title></head>\n<body><h1>{status} {title}</h1></body>\n</html>\n"
    return protocol.plain(page.encode(), status, "text/html")


def _refusal(question: str) -> Reply:
    """A filter's refusal, in the words of OpenAI's protocol or of DashScope's."""
    if hashlib.sha256(question.encode()).digest()[0] % 2:
        return protocol.error(400, "content_filter", "The prompt was held back by the content filter.")
    return protocol.error(400, "data_inspection_failed", "Input data may contain inappropriate content.")


def _half(reply: Reply) -> list[bytes]:
    """The first half of the bytes, in their pieces: the last of them breaks off within itself."""
    left = sum(map(len, reply.pieces)) // 2
    kept = []
    for piece in reply.pieces:
        kept.append(piece[:left])
        left -= len(kept[-1])
        if not left:
            break
    return kept


def _after_blank_lines(reply: Reply) -> Reply:
    """Empty lines (in a stream: comments) while the answer is waited for, then the answer."""
    blank = KEEP_ALIVE if reply.content_type == EVENTS else b"\n"
    body = b"".join(reply.pieces)
    return replace(reply, pieces=[*[blank] * BLANK_LINES, body], length=None, pause_s=BLANK_LINE_EVERY_S)


def _begun(reply: Reply) -> list[bytes]:
    """What is sent before the silence or the reset: half of a stream, nothing of a body in one piece."""
    return _half(reply) if reply.content_type == EVENTS else []


def _instead(reply: Reply, value: dict[str, Any]) -> Reply:
    """Another object in the answer's place, as one body or as one event."""
    if reply.content_type == EVENTS:
        return replace(reply, pieces=[protocol.event(value), b"data: [DONE]\n\n"])
    return protocol.plain(protocol.as_json(value))


DAMAGES: dict[Fault, Callable[[Reply], Reply]] = {
    "rate_limit": lambda _: RATE_LIMIT,
    "rate_limit_retry_after": lambda _: replace(RATE_LIMIT, headers={"Retry-After": "1"}),
    "server_error": lambda _: _page(500, "Internal Server Error"),
    "bad_gateway": lambda _: _page(502, "Bad Gateway"),
    "unavailable": lambda _: _page(503, "Service Temporarily Unavailable"),
    "hang": lambda reply: replace(reply, pieces=_begun(reply), ending="hang"),
    "reset": lambda reply: replace(reply, pieces=_begun(reply), ending="reset"),
    "body_cut": lambda reply: replace(reply, pieces=_half(reply), ending="cut"),
    "truncated_json": lambda reply: replace(reply, pieces=_half(reply), length=None),
    "empty_body": lambda reply: replace(reply, pieces=[], length=0),
    "blank_lines": _after_blank_lines,
    "error_object": lambda reply: _instead(reply, OVERLOADED),
    "no_choices": lambda reply: _instead(reply, NO_CHOICES),
}
