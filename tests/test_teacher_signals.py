"""Killed, stopped, two at once: what was received is kept, and what is missing is asked by whoever comes next."""

import asyncio
import fcntl
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from tests.distill_runner import DistillRunner, Route, Serve, completion, good, prompted, question, wait_until


@pytest.mark.heavy
def test_a_stage_killed_again_and_again_loses_only_what_was_in_flight(runner: DistillRunner) -> None:
    size, concurrency = 120, 4
    in_flight = 3 * concurrency  # twice as many may be received and wait for a disk that is slower than the teacher
    runner.ask(*(question(number) for number in range(size)))
    undisturbed_store, runner.store = runner.store, runner.folder / "undisturbed.jsonl"
    runner.set(concurrency=16)
    runner.run("undisturbed")
    runner.requests.unlink()
    runner.store = undisturbed_store
    runner.set(concurrency=concurrency, latency_s=0.02)
    rng = random.Random()
    kills = 0
    for _ in range(4):
        asked = len(runner.requested())
        with runner.start() as stage:
            runner.wait_for_a_request(stage, asked)
            time.sleep(rng.uniform(0, 0.25))
            os.killpg(stage.pid, signal.SIGKILL)
            stage.wait()
            kills += stage.returncode == -signal.SIGKILL
        assert len(set(runner.requested())) - runner.stored() <= in_flight
    assert kills >= 2
    runner.set(latency_s=0.0)
    runner.run()
    assert set(runner.requested()) == {prompted(question(number)["question"]) for number in range(size)}
    assert len(runner.requested()) <= size + in_flight * kills
    assert runner.outputs() == runner.outputs("undisturbed")


@pytest.mark.heavy
def test_the_embedded_server_does_not_outlive_a_killed_stage(runner: DistillRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runner.ask(*(question(number) for number in range(4)))
    runner.set(latency_s=20.0, port=port)
    with runner.start() as stage:
        wait_until(lambda: len(runner.requested()) == 4)
        socket.create_connection(("127.0.0.1", port)).close()
        os.kill(stage.pid, signal.SIGKILL)

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refused, within_s=8)


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_stage_in_one_line_and_keep_what_came(
    runner: DistillRunner, number: signal.Signals
) -> None:
    runner.ask(*(question(number) for number in range(60)))
    runner.set(latency_s=0.05)
    with runner.start() as stage:
        wait_until(lambda: runner.stored() >= 8)
        os.killpg(stage.pid, number)
        _, stderr = stage.communicate(timeout=10)
    assert stage.returncode == 130
    assert [line.split(";")[0] for line in stderr.splitlines()] == ["distill: stopping", "Error: distill: stopped"]
    assert not (runner.folder / "out").exists()
    stored, asked = runner.stored(), len(runner.requested())
    assert 8 <= stored < 60
    assert stored == asked, "what was in flight was received"
    runner.set(latency_s=0.0)
    runner.run()
    assert len(runner.requested()) == 60


@pytest.mark.heavy
def test_two_stages_at_once_on_one_store_ask_each_question_once(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(40)))
    runner.set(latency_s=0.02)
    with runner.start("one") as one, runner.start("two") as two:
        said = one.communicate(timeout=60)[1] + two.communicate(timeout=60)[1]
    assert (one.returncode, two.returncode) == (0, 0), said
    assert sorted(runner.requested()) == sorted(prompted(question(number)["question"]) for number in range(40))
    assert runner.outputs("one") == runner.outputs("two")


@pytest.mark.heavy
def test_the_questions_of_a_killed_sibling_are_taken_over(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if len(server.asked) <= 4:  # those of the one that will be killed
            await asyncio.sleep(30)
        return completion()

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(20)))
    with runner.start("killed") as killed:
        wait_until(lambda: len(server.asked) == 4)
        with runner.start("other") as other:
            wait_until(lambda: runner.stored() >= 8)
            time.sleep(0.5)  # enough for all that the first has not claimed
            assert other.poll() is None, "it waits for the answers of the other"
            killed.kill()
            said = other.communicate(timeout=30)[1]
    assert other.returncode == 0, said
    assert len(runner.distilled("other")) == 20
    assert len(server.asked) == 20 + 4, "each question of the killed is asked once more, and no other"


# ---- how long an end may take ----


@dataclass
class Stopping:
    """A stage that was told to stop while its calls hang."""

    stage: subprocess.Popen[str]
    told: float

    def ended(self) -> tuple[float, str]:
        """How many seconds that took, and what else it said."""
        _, stderr = self.stage.communicate(timeout=30)
        return time.monotonic() - self.told, stderr


@pytest.fixture
def stopping(runner: DistillRunner, serve: Serve) -> Iterator[Callable[..., Stopping]]:
    """``stopping(route)``: three questions of ten are answered, the others as the route does, then comes Ctrl-C."""
    stages: list[subprocess.Popen[str]] = []

    def stop(route: Route) -> Stopping:
        async def three_then(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
            return completion() if len(server.asked) <= 3 else await route(request, content, attempt)

        server = serve(three_then)
        runner.use(server)
        runner.ask(*(question(number) for number in range(10)))
        stages.append(runner.start())
        wait_until(lambda: len(server.asked) >= 7 and runner.stored() == 3)
        time.sleep(0.1)  # until the last of them is read
        stages[0].send_signal(signal.SIGINT)
        told = time.monotonic()
        assert stages[0].stderr
        assert stages[0].stderr.readline().startswith("distill: stopping; ")
        return Stopping(stages[0], told)

    yield stop
    for stage in stages:
        stage.kill()
        stage.communicate()


async def hang(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    await asyncio.sleep(30)
    return completion()


@pytest.mark.heavy
def test_calls_in_flight_get_their_grace_and_no_more(runner: DistillRunner, stopping: Callable[..., Stopping]) -> None:
    runner.set(grace_s=0.8)
    stopped = stopping(hang)
    took_s, said = stopped.ended()
    assert stopped.stage.returncode == 130
    assert 0.6 < took_s < 4
    assert said.splitlines() == [
        "Error: distill: stopped; 3 answers were received and are kept, 7 are missing. Run the stage again to resume."
    ]
    assert runner.stored() == 3


def test_a_second_ctrl_c_leaves_at_once_and_keeps_what_came(
    runner: DistillRunner, stopping: Callable[..., Stopping]
) -> None:
    runner.set(grace_s=25.0)
    stopped = stopping(hang)
    stopped.stage.send_signal(signal.SIGINT)
    took_s, said = stopped.ended()
    assert stopped.stage.returncode == 130
    assert took_s < 3
    assert said == ""
    assert runner.stored() == 3


@pytest.mark.heavy
def test_a_call_that_waits_out_a_retry_after_does_not_delay_the_end(
    runner: DistillRunner, stopping: Callable[..., Stopping]
) -> None:
    async def come_later(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "60"})

    runner.set(grace_s=25.0)
    stopped = stopping(come_later)
    took_s, said = stopped.ended()
    assert stopped.stage.returncode == 130
    assert took_s < 3
    assert "3 answers were received and are kept, 7 are missing" in said


@pytest.mark.heavy
def test_a_call_that_waits_for_its_rate_does_not_delay_the_end(runner: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    runner.use(server)
    runner.set(requests_per_minute=2, grace_s=25.0)
    runner.ask(*(question(number) for number in range(10)))
    with runner.start() as stage:
        wait_until(lambda: runner.stored() == 1)
        stage.send_signal(signal.SIGTERM)
        stage.communicate(timeout=5)
    assert stage.returncode == 130
    assert len(server.asked) == 1


@pytest.mark.heavy
def test_waiting_for_the_answers_of_another_run_does_not_delay_the_end(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await (good if content == prompted(question(4)["question"]) else hang)(request, content, attempt)

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(4)))
    with runner.start("asks") as asks:
        wait_until(lambda: len(server.asked) == 4)
        runner.ask(*(question(number) for number in range(5)))
        with runner.start("waits") as waits:
            wait_until(lambda: runner.stored() == 1)  # what is left are the questions of the other
            waits.send_signal(signal.SIGINT)
            _, said = waits.communicate(timeout=5)
        asks.kill()
    assert waits.returncode == 130, said
    assert len(server.asked) == 5


@pytest.mark.heavy
def test_ctrl_c_before_any_call_is_one_line_too(runner: DistillRunner) -> None:
    runner.ask(question(0))
    runner.store.parent.mkdir()
    with runner.store.with_suffix(".lock").open("a") as lock, runner.start() as stage:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a run does that writes to the store
        assert stage.stderr
        assert "waiting for it" in stage.stderr.readline()
        stage.send_signal(signal.SIGINT)
        _, said = stage.communicate(timeout=10)
    assert stage.returncode == 130
    assert said == "Error: stopped. Run the stage again to resume.\n"
