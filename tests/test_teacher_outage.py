"""A server that goes away: for a while, it costs time alone; for too long, the run ends and keeps what came."""

import asyncio
import threading
import time

import pytest
from aiohttp import web

from tests.distill_runner import DistillRunner, Serve, Server, completion, question


async def soon(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return completion()


def goes_after(answers: int, server: Server) -> threading.Thread:
    """Close a server in a moment when it was asked so often."""

    def wait_and_close() -> None:
        while len(server.asked) < answers:
            time.sleep(0.005)
        server.close()

    thread = threading.Thread(target=wait_and_close)
    thread.start()
    return thread


def comes_back(going: threading.Thread, away_s: float, server: Server, serve: Serve) -> list[Server]:
    """The server that will listen at the same place, so many seconds after the first has gone."""
    back: list[Server] = []

    def wait_and_serve() -> None:
        going.join()
        time.sleep(away_s)
        back.append(serve(soon, server.port))

    threading.Thread(target=wait_and_serve).start()
    return back


@pytest.mark.parametrize("away_s", [1.2, pytest.param(60.0, marks=pytest.mark.slow)])
def test_a_server_that_dies_and_returns_costs_no_answer(runner: DistillRunner, serve: Serve, away_s: float) -> None:
    server = serve(soon)
    runner.use(server)
    runner.set(concurrency=4, outage_s=away_s + 15)
    runner.ask(*(question(number) for number in range(20)))
    back = comes_back(goes_after(7, server), away_s, server, serve)
    runner.run()
    assert runner.failures() == []
    assert len(runner.distilled()) == 20
    (second,) = back
    assert len(server.asked) + len(second.asked) <= 20 + 4, "what was in flight is asked again, and nothing else"
    assert second.times[0] - server.times[-1] < 2.5 * away_s + 1, "it is seen that the server is back"


def test_the_rate_is_kept_when_a_server_returns(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.lib.teacher.pacing.MINUTE_S", 1.0)
    server = serve(soon)
    runner.use(server)
    runner.set(concurrency=12, requests_per_minute=20, outage_s=20.0)
    runner.ask(*(question(number) for number in range(30)))
    back = comes_back(goes_after(14, server), 1.0, server, serve)
    runner.run()
    times = back[0].times
    assert len(times) >= 12
    assert max(sum(first <= call < first + 0.45 for call in times) for first in times) <= 10


def test_an_outage_longer_than_params_allow_is_one_line_and_keeps_what_came(
    runner: DistillRunner, serve: Serve
) -> None:
    server = serve(soon)
    runner.use(server)
    runner.set(concurrency=4, outage_s=0.8)
    runner.ask(*(question(number) for number in range(40)))
    going = goes_after(12, server)
    started = time.monotonic()
    line = runner.refused()
    going.join()
    assert line.startswith(f"{server.base_url}: no server has answered for ")
    assert "for 1 s" in line
    assert time.monotonic() - started < 6
    assert 8 <= runner.stored() <= 12
    back = serve(soon, server.port)
    stored = runner.stored()
    runner.run()
    assert len(back.asked) == 40 - stored


def test_a_run_that_waits_says_for_what(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if attempt == 1 and "99" in content:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return completion()

    monkeypatch.setattr("stages.lib.teacher.progress.LINE_EVERY_S", 0.2)
    server = serve(route)
    runner.use(server)
    runner.set(concurrency=2, outage_s=20.0)
    runner.ask(question(0), question(1, "99 + 1"))
    runner.run("limited")
    assert any("1 of 2, 0 failed, 0 in flight, 1 waiting up to 1 s" in text for text in caplog.messages)
    runner.ask(*(question(number) for number in range(10, 22)))
    server.route = soon
    comes_back(goes_after(len(server.asked) + 4, server), 1.0, server, serve)
    runner.run("lost")
    assert any("in flight, the server cannot be reached" in text for text in caplog.messages)
