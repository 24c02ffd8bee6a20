"""The pace: how many calls at once, how many a minute, how long after a refusal."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from tests.teacher_desk import Desk, Serve, completion, question


@pytest.mark.parametrize("concurrency", [1, 7])
def test_as_many_calls_are_in_flight_as_concurrency_says(desk: Desk, serve: Serve, concurrency: int) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return completion()

    server = serve(route)
    desk.use(server)
    desk.set(concurrency=concurrency)
    desk.ask(*(question(number) for number in range(21)))
    desk.run()
    assert max(server.loads) == concurrency


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        (lambda: "1", 1.0, 4.0),
        (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True), 1.0, 5.0),
        (lambda: format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0.0, 0.9),
        (lambda: "soon", 0.0, 0.9),
        (lambda: "-5", 0.0, 0.9),
        (lambda: "inf", 0.0, 0.9),
        (lambda: "nan", 0.0, 0.9),
        (lambda: "", 0.0, 0.9),
    ],
    ids=["seconds", "a date", "a date gone by", "a word", "below zero", "inf", "nan", "nothing"],
)
@pytest.mark.timeout(60)
def test_retry_after_is_waited_for(
    desk: Desk, serve: Serve, header: Callable[[], str], least_s: float, most_s: float
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if attempt > 1 else web.Response(status=429, headers={"Retry-After": header()})

    server = serve(route)
    desk.use(server)
    desk.ask(question(0))
    desk.run()
    first, second = server.times
    assert least_s <= second - first < most_s
