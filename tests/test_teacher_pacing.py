"""The pace: how many calls at once, how many a minute, how long after a refusal."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from statistics import median

import pytest
from aiohttp import web

from tests.distill_runner import DistillRunner, Serve, completion, good, question


@pytest.mark.parametrize("concurrency", [1, 7])
def test_as_many_calls_are_in_flight_as_concurrency_says(runner: DistillRunner, serve: Serve, concurrency: int) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return completion()

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=concurrency)
    runner.ask(*(question(number) for number in range(21)))
    runner.run()
    assert max(server.loads) == concurrency


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        (lambda: "1", 1.0, 4.0),
        (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True), 1.0, 5.0),
        (lambda: format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0.0, 3.0),
        (lambda: "soon", 0.0, 3.0),
        (lambda: "-5", 0.0, 3.0),
        (lambda: "inf", 0.0, 3.0),
        (lambda: "nan", 0.0, 3.0),
        (lambda: "", 0.0, 3.0),
    ],
    ids=["seconds", "a date", "a date gone by", "a word", "below zero", "inf", "nan", "nothing"],
)
@pytest.mark.timeout(60)
def test_retry_after_is_waited_for(
    runner: DistillRunner, serve: Serve, header: Callable[[], str], least_s: float, most_s: float
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if attempt > 1 else web.Response(status=429, headers={"Retry-After": header()})

    server = serve(route)
    runner.use(server)
    runner.ask(question(0))
    runner.run()
    first, second = server.times
    assert least_s <= second - first < most_s


LATE_S = 0.2  # a busy machine shows a request to the server so much after it was sent


def minute(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of the rates is so many seconds from now on."""
    monkeypatch.setattr("stages.lib.teacher.pacing.MINUTE_S", seconds)


def most_within(seconds: float, times: list[float], weight: int = 1) -> int:
    """The most calls (times their weight) that came within such a time, wherever it begins."""
    return max(weight * sum(first <= call < first + seconds for call in times) for first in times)


def test_no_minute_sees_more_requests_than_the_rate_allows(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    minute(1.0, monkeypatch)
    server = serve(good)
    runner.use(server)
    runner.set(concurrency=16, requests_per_minute=12)
    runner.ask(*(question(number) for number in range(24)))
    runner.run()
    assert most_within(1.0 - LATE_S, server.times) <= 12
    gaps = [second - first for first, second in pairwise(server.times)]
    assert median(gaps) < 2 * 1.0 / 12, "it is asked as fast as the rate allows"


def test_a_retry_passes_the_rate_again(runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if attempt > 2 else web.Response(status=500)

    minute(1.0, monkeypatch)
    server = serve(route)
    runner.use(server)
    runner.set(concurrency=16, requests_per_minute=12)
    runner.ask(*(question(number) for number in range(6)))
    runner.run()
    assert len(server.times) == 18
    assert most_within(1.0 - LATE_S, server.times) <= 12


def test_no_minute_sees_more_tokens_than_the_rate_allows(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(usage={"prompt_tokens": 60, "completion_tokens": 140})

    minute(0.8, monkeypatch)
    server = serve(route)
    runner.use(server)
    runner.set(concurrency=8, tokens_per_minute=1000)
    runner.ask(*(question(number) for number in range(15)))
    runner.run()
    after_the_first = server.times[8:]  # what an answer comes to is known from the first on
    assert most_within(0.8 - LATE_S, after_the_first, weight=200) <= 1000
    assert server.times[-1] - server.times[0] > 0.8 - LATE_S


def test_a_call_that_alone_is_above_the_rate_of_tokens_goes_alone(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    minute(0.4, monkeypatch)
    server = serve(good)
    runner.use(server)
    runner.set(tokens_per_minute=1)
    runner.ask(*(question(number) for number in range(3)))
    runner.run()
    assert most_within(0.4 - LATE_S, server.times) == 1


def test_a_429_halves_the_number_in_flight_and_answers_bring_it_back_to_the_cap(
    runner: DistillRunner, serve: Serve
) -> None:
    before = 300  # answers before the first refusal: they raise nothing above the cap
    refused: set[str] = set()

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if before < len(server.asked) <= before + 16:
            refused.add(content)
            while len(refused) < 16:  # all of them at once, so that it is one refusal
                await asyncio.sleep(0.001)
            return web.Response(status=429, headers={"Retry-After": "0"})
        await asyncio.sleep(0.02 if refused else 0.002)
        return completion()

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=16)
    runner.ask(*(question(number) for number in range(before + 320)))
    runner.run()
    after = server.loads[before + 16 :]
    assert max(after[:16]) == 8
    assert max(after) == 16
    assert len(runner.distilled()) == before + 320


def test_a_time_out_halves_the_number_in_flight(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(30 if len(server.asked) <= 8 else 0.02)
        return completion()

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=8, timeout_s=0.4)
    runner.ask(*(question(number) for number in range(12)))
    runner.run()
    after = server.loads[8:]
    assert max(after[:6]) == 4
    assert len(runner.distilled()) == 12


def test_waits_between_attempts_double_and_differ(runner: DistillRunner, serve: Serve) -> None:
    times: dict[str, list[float]] = {}

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        times.setdefault(content, []).append(time.monotonic())
        return completion() if attempt > 2 else web.Response(status=503)

    runner.use(serve(route))
    runner.set(concurrency=6, backoff_s=0.2)
    runner.ask(*(question(number) for number in range(6)))
    runner.run()
    first = [second - first for first, second, _ in times.values()]
    second = [third - second for _, second, third in times.values()]
    assert min(first) >= 0.2
    assert min(second) >= 0.4
    assert min(second) < 0.4 + 0.2 + 0.1
    assert max(first) - min(first) > 0.01, "calls that failed together do not come back together"
