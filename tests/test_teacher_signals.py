"""Killed, stopped, two at once: what was received is kept, and what is missing is asked by whoever comes next."""

import os
import random
import signal
import socket
import time

from tests.teacher_desk import Desk, prompted, question, wait_until


def test_a_stage_killed_again_and_again_loses_only_what_was_in_flight(desk: Desk) -> None:
    size, concurrency = 120, 4
    desk.ask(*(question(number) for number in range(size)))
    undisturbed_store, desk.store = desk.store, desk.folder / "undisturbed.jsonl"
    desk.set(concurrency=16)
    desk.run("undisturbed")
    desk.requests.unlink()
    desk.store = undisturbed_store
    desk.set(concurrency=concurrency, embedded_latency_s=0.02)
    rng = random.Random()
    kills = 0
    for _ in range(4):
        asked = len(desk.requested())
        with desk.start() as stage:
            desk.wait_for_a_request(stage, asked)
            time.sleep(rng.uniform(0, 0.25))
            os.killpg(stage.pid, signal.SIGKILL)
            stage.wait()
            kills += stage.returncode == -signal.SIGKILL
        assert len(set(desk.requested())) - desk.stored() <= concurrency
    assert kills >= 2
    desk.set(embedded_latency_s=0.0)
    desk.run()
    assert set(desk.requested()) == {prompted(question(number)["question"]) for number in range(size)}
    assert len(desk.requested()) <= size + concurrency * kills
    assert desk.outputs() == desk.outputs("undisturbed")


def test_the_embedded_server_does_not_outlive_a_killed_stage(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    desk.ask(*(question(number) for number in range(4)))
    desk.set(embedded_latency_s=20.0, embedded_port=port)
    with desk.start() as stage:
        wait_until(lambda: len(desk.requested()) == 4)
        socket.create_connection(("127.0.0.1", port)).close()
        os.kill(stage.pid, signal.SIGKILL)

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refused, within_s=8)


def test_ctrl_c_ends_the_stage_in_one_line_and_keeps_what_came(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(60)))
    desk.set(embedded_latency_s=0.05)
    with desk.start() as stage:
        wait_until(lambda: desk.stored() >= 8)
        os.killpg(stage.pid, signal.SIGINT)
        _, stderr = stage.communicate(timeout=10)
    assert stage.returncode == 130
    assert [line.split(";")[0] for line in stderr.splitlines()] == ["distill: stopping", "Error: distill: stopped"]
    assert not (desk.folder / "out").exists()
    stored, asked = desk.stored(), len(desk.requested())
    assert 8 <= stored < 60
    assert stored == asked, "what was in flight was received"
    desk.set(embedded_latency_s=0.0)
    desk.run()
    assert len(desk.requested()) == 60


def test_two_stages_at_once_on_one_store_ask_each_question_once(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(40)))
    desk.set(embedded_latency_s=0.02)
    with desk.start("one") as one, desk.start("two") as two:
        said = one.communicate(timeout=60)[1] + two.communicate(timeout=60)[1]
    assert (one.returncode, two.returncode) == (0, 0), said
    assert sorted(desk.requested()) == sorted(prompted(question(number)["question"]) for number in range(40))
    assert desk.outputs("one") == desk.outputs("two")
