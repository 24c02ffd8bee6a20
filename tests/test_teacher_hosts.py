"""Several hosts ask for one store: their locks reach each other, or exclude the processes of one host only."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stages.lib.store.answer_file import files_of_hosts, open_answers
from stages.lib.store.answer_store import open_store
from stages.lib.store_tools.ledger import totals_by_model
from stages.lib.store_tools.record import stored_records
from stages.lib.store_tools.transfer import export_answers
from tests.batch_server import BATCH, BatchServer
from tests.distill_runner import ROOT, DistillRunner, Serve, completion, question, wait_until
from tests.local_locks import local_locks
from tests.test_teacher_store import asking, key_of

# a heartbeat each 0.2 s that expires after 3 s: the committed values are ten times as long; a clock that is wrong
QUICK = """
import os, runpy, sys, time
from stages.lib.store import hosts, presence
real, ahead_s = time.time, float(os.environ["AHEAD_S"])
time.time = lambda: real() + ahead_s
hosts.BEAT_S, hosts.EXPIRES_S, presence.EXPIRES_S = 0.2, 3.0, 3.0
sys.argv = ["stages.distill", *sys.argv[1:]]
runpy.run_module("stages.distill", run_name="__main__")
"""


async def slow(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return completion(content=f"It is {len(content)}.")


class Hosts:
    """Runs of distill on hosts of their own that share the runner's folder."""

    def __init__(self, runner: DistillRunner) -> None:
        self.runner = runner
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, local: bool, ahead_s: float = 0.0) -> subprocess.Popen[str]:
        env = local_locks(self.runner.folder, name)
        if not local:
            env["PYTHONPATH"] = str(ROOT)
        process = subprocess.Popen(
            [sys.executable, "-c", QUICK, *self.runner.arguments(name)],
            cwd=self.runner.folder,
            env=env | {"DVC_ROOT": str(self.runner.folder / name), "AHEAD_S": str(ahead_s)},
            text=True,
            stderr=subprocess.PIPE,
        )
        self.running.append(process)
        return process

    def end(self) -> list[str]:
        """What each said, when all have ended."""
        return [process.communicate(timeout=240)[1] for process in self.running]


@pytest.fixture
def hosts(runner: DistillRunner) -> Iterator[Hosts]:
    started = Hosts(runner)
    yield started
    for process in started.running:
        process.kill()
        process.wait()


def records(runner: DistillRunner) -> list[Any]:
    return list(stored_records(runner.store))


@pytest.mark.heavy
@pytest.mark.parametrize("local", [True, False], ids=["locks of one host only", "locks that reach"])
def test_three_hosts_ask_each_question_once_and_a_killed_one_costs_what_it_had_in_flight(
    local: bool, runner: DistillRunner, serve: Serve, hosts: Hosts
) -> None:
    gate = threading.Event()

    async def held(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while len(server.asked) > 20 and not gate.is_set():
            await asyncio.sleep(0.02)
        return await slow(request, content, attempt)

    server = serve(held)
    runner.use(server)
    runner.set(concurrency=4, timeout_s=300.0)
    count = 90
    runner.ask(*(question(number, f"Question {number}?") for number in range(count)))
    hosts.start("one", local)
    wait_until(lambda: len(server.asked) > 20, 120)
    doomed, _ = hosts.start("two", local, ahead_s=-60.0), hosts.start("three", local, ahead_s=60.0)
    wait_until(lambda: max(server.loads) == 12, 120)  # four calls of each host
    doomed.kill()
    gate.set()
    said = hosts.end()
    assert [process.returncode for process in hosts.running] == [0, -9, 0], said
    assert len(server.asked) == count + 4, "the killed one had four in flight"
    assert len({record.key for record in records(runner)}) == len(records(runner)) == count
    dates = [json.loads(line)["at"] for path in files_of_hosts(runner.store) for line in path.open("rb")]
    assert not dates or max(dates) - min(dates) > 60, "the clocks were apart"
    assert bool(files_of_hosts(runner.store)) == local
    assert ("it uses leases" in said[0]) == local
    assert not list((runner.store.parent / "answers.hosts").rglob("*.live"))
    # one host alone makes the same rows from the store, and asks nothing
    runner.run("alone")
    assert runner.outputs("alone") == runner.outputs("one") == runner.outputs("three")
    facts = json.loads((runner.folder / "one/metrics/runs/distill.json").read_bytes())
    assert facts["hosts"] >= 2
    assert facts["bought"] + facts["from_store"] == count
    assert len(server.asked) == count + 4


@pytest.mark.heavy
@pytest.mark.parametrize("local", [True, False], ids=["locks of one host only", "locks that reach"])
def test_hosts_keep_one_budget(local: bool, runner: DistillRunner, serve: Serve, hosts: Hosts) -> None:
    async def both(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while max(server.loads) < 5 and len(server.asked) > 8:  # until both hosts ask
            await asyncio.sleep(0.02)
        return await slow(request, content, attempt)

    server = serve(both)
    runner.use(server)
    prices = {"chain-sum-solver": {"input": 0.0, "cached_input": 0.0, "output": 1_000_000.0}}
    # a prompt's bytes are free and its answer has 9 tokens, so 40 answers have room and the 41st has none
    runner.set(concurrency=4, models=prices, budget=365.0, max_tokens=9, timeout_s=300.0)
    runner.ask(*(question(number, f"Question {number}?") for number in range(60)))
    for name in ("one", "two"):
        hosts.start(name, local)
    said = hosts.end()
    assert [process.returncode for process in hosts.running] == [1, 1], said
    assert all("run.budget = 365" in text for text in said)
    assert len(server.asked) == len(records(runner)) == 40
    runs = [json.loads((runner.folder / name / "metrics/runs/distill.json").read_bytes()) for name in ("one", "two")]
    assert sum(run["bought"] for run in runs) == 40
    assert min(run["bought"] for run in runs) > 0


@pytest.mark.heavy
@pytest.mark.parametrize("local", [True, False], ids=["locks of one host only", "locks that reach"])
def test_a_host_receives_the_batch_that_another_one_had_submitted_before_it_was_killed(
    local: bool, runner: DistillRunner, hosts: Hosts
) -> None:
    server = BatchServer()
    try:
        server.held = True
        runner.use(server)
        runner.ask(*(question(number) for number in range(10)))
        runner.settings["run.batch.teacher"] = dict(BATCH)
        killed = hosts.start("one", local)
        wait_until(lambda: server.calls.count("look") >= 2, 120)
        runner.settings.pop("run.batch.teacher")
        runner.ask(*(question(number) for number in range(15)))
        hosts.start("two", local, ahead_s=60.0)
        wait_until(lambda: len(records(runner)) == 5, 120)
        killed.kill()
        server.held = False
        said = hosts.end()
        assert [process.returncode for process in hosts.running] == [-9, 0], said
        assert [len(lines) for lines in server.submitted] == [10]
        assert len(server.bodies) == 5
        assert len(runner.distilled("two")) == 15
    finally:
        server.close()


def test_of_two_hosts_answers_the_earlier_one_counts_and_both_are_paid(tmp_path: Path) -> None:
    store = tmp_path / "answers.jsonl"
    (tmp_path / "answers.hosts").mkdir()
    for host, at, body in (("a", 20.0, "late"), ("b", 10.0, "early")):
        record = {"key": key_of(0), "request": asking(0), "at": at, "body": body}
        (tmp_path / f"answers.hosts/{host}.answers.jsonl").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    with open_store(store) as answers:
        assert len(answers) == 1
        assert answers.body(key_of(0)) == b"early"
    with open_answers(store) as read:
        assert read.body(key_of(0)) == b"early"
    assert [totals.entries for totals in totals_by_model(store).values()] == [2]
    export_answers(store, tmp_path / "exported.jsonl")
    with open_answers(tmp_path / "exported.jsonl") as exported:
        assert exported.body(key_of(0)) == b"early"


def test_a_host_that_begins_alone_uses_one_file_and_leaves_no_other(tmp_path: Path) -> None:
    store = tmp_path / "answers.jsonl"
    with open_store(store) as answers:
        assert (answers.mode, answers.hosts) == ("alone", 1)
        (live,) = (tmp_path / "answers.hosts").iterdir()
        assert json.loads(live.read_bytes())["mode"] == "alone"
    assert not list((tmp_path / "answers.hosts").iterdir())


def test_what_a_killed_process_of_this_host_left_delays_nothing(tmp_path: Path) -> None:
    store = tmp_path / "answers.jsonl"
    script = "import os, sys; from pathlib import Path; from stages.lib.store.answer_store import open_store\n"
    script += "with open_store(Path(sys.argv[1])) as store: store.claim('00' * 32); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(store)], cwd=ROOT, check=False)
    assert len(list((tmp_path / "answers.hosts").glob("*.live"))) == 1
    began = time.monotonic()
    with open_store(store) as answers:
        assert answers.mode == "alone"
        assert answers.claim("00" * 32)
    assert time.monotonic() - began < 10, "a heartbeat is waited for 30 s"
    assert not list((tmp_path / "answers.hosts").iterdir())


@pytest.mark.heavy
def test_a_suspended_host_that_others_took_for_ended_asks_only_what_it_had_claimed(
    runner: DistillRunner, serve: Serve, hosts: Hosts
) -> None:
    server = serve(slow)
    runner.use(server)
    runner.set(concurrency=2, timeout_s=300.0)
    runner.ask(*(question(number, f"Question {number}?") for number in range(100)))
    suspended = hosts.start("one", local=True)
    wait_until(lambda: len(server.asked) > 2, 120)
    os.kill(suspended.pid, signal.SIGSTOP)
    hosts.start("two", local=True).wait(240)
    os.kill(suspended.pid, signal.SIGCONT)
    said = hosts.end()
    assert [process.returncode for process in hosts.running] == [0, 0], said
    assert len({record.key for record in records(runner)}) == 100
    assert len(server.asked) <= 107, "two in flight, two received and not written yet, and three that it had claimed"
    assert runner.outputs("one") == runner.outputs("two")
