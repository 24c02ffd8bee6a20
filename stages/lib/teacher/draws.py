"""Draws: asking again for a sample whose answer came and is of no use, and which of its answers counts.

Draw 0 is the request itself, so it has the key that it always had; a later draw holds its number:

    {"endpoint": "…", "model": "…", "messages": […], "sample": 0, "draw": 1}

All draws stay in the store. The latest one that is usable counts; where none is, the last one. What counts follows from
the store alone, so that every run makes the same rows of the same store.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from stages.lib.replies.reading import Answer, BodyError, read_body
from stages.lib.store.answer_file import AnswerFile
from stages.lib.store.answer_store import request_key

DRAW = "draw"


def drawn(request: dict[str, Any], number: int) -> dict[str, Any]:
    """The request of a sample's draw; ``request`` is that of draw 0."""
    return {**request, DRAW: number} if number else request


def last_draw(request: dict[str, Any], answers: AnswerFile) -> int:
    """The number of the last draw that was received; 0 where there is at most the first."""
    number = 0
    while answers.holds_draws and request_key(drawn(request, number + 1)) in answers:
        number += 1
    return number


def received(request: dict[str, Any], answers: AnswerFile) -> Iterator[bytes]:
    """The bodies of a sample's draws, of the last one first; ``request`` may be that of any draw."""
    first = {name: value for name, value in request.items() if name != DRAW}
    with suppress(KeyError):  # nothing was received yet
        for number in range(last_draw(first, answers), -1, -1):
            yield answers.body(request_key(drawn(first, number)))


def answer_that_counts(request: dict[str, Any], answers: AnswerFile) -> Answer:
    """The answer to a request; BodyError where the one that counts cannot be read, KeyError where none was received."""
    bodies = received(request, answers)
    last = next(bodies, None)
    if last is None:
        raise KeyError(request_key(request))
    for body in (last, *bodies):
        try:
            answer = read_body(body)
        except BodyError:
            continue
        if not answer.failure:
            return answer
    return read_body(last)
