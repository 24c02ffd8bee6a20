"""Draws: a sample whose received answer is not usable is asked for again, as a new draw. One of its draws counts.

Draw 0 is the request itself, so its key never changes. A later draw holds its number:

    {"endpoint": "…", "model": "…", "messages": […], "sample": 0, "draw": 1}

All draws stay in the store. The latest usable one counts; where none is usable, the last one. This depends on the store
alone, so every run makes the same rows from the same store.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from stages.lib.replies.reading import Answer, BodyError, read_body
from stages.lib.store.answer_file import AnswerFile, Received
from stages.lib.store.answer_store import request_key

DRAW = "draw"


def with_draw(request: dict[str, Any], number: int) -> dict[str, Any]:
    """The request of a sample's draw ``number``; ``request`` is that of draw 0."""
    return {**request, DRAW: number} if number else request


def last_draw(request: dict[str, Any], answers: AnswerFile) -> int:
    """The number of the last received draw; 0 where there is no later draw than the first."""
    number = 0
    while answers.holds_draws and request_key(with_draw(request, number + 1)) in answers:
        number += 1
    return number


def received_draws(request: dict[str, Any], answers: AnswerFile) -> Iterator[Received]:
    """The received draws of a sample, the last one first; ``request`` may be that of any draw."""
    first = {name: value for name, value in request.items() if name != DRAW} if DRAW in request else request
    for number in range(last_draw(first, answers), -1, -1):
        try:
            yield answers.received(request_key(with_draw(first, number)))
        except KeyError:  # nothing was received yet
            return


def answer_that_counts(request: dict[str, Any], answers: AnswerFile) -> Answer:
    """The answer that counts; BodyError where it cannot be read, KeyError where no answer was received."""
    last = None
    for draw in received_draws(request, answers):
        last = last or draw
        try:
            answer = read_body(draw.body)
        except BodyError:
            continue
        if not answer.failure:
            return replace(answer, served_by=draw.served_by) if draw.served_by else answer
    if last is None:
        raise KeyError(request_key(request))
    return read_body(last.body)
