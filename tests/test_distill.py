"""Distill as a whole: what it buys, what it keeps, and what becomes of every way a server and a file can misbehave."""

import asyncio
import json
import os
import pty
import random
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from stages.distill import main

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk-a-key-that-nobody-may-see-0123456789"
BASE: dict[str, Any] = {
    "distill.prompt": "step_by_step",
    "distill.samples_per_question": 1,
    "distill.max_failed_share": 0.0,
    "distill.teacher.backend": "embedded",
    "distill.teacher.base_url": None,
    "distill.teacher.model": "chain-sum-solver",
    "distill.teacher.temperature": None,
    "distill.teacher.top_p": None,
    "distill.teacher.max_tokens": None,
    "distill.teacher.embedded.slip_share": 0.3,
    "distill.teacher.embedded.seed": 3,
    "run.concurrency": 4,
    "run.timeout_s": 20.0,
    "run.max_attempts": 3,
    "run.backoff_s": 0.001,
    "run.embedded_latency_s": 0.0,
    "run.embedded_port": 0,
}
RUN_FACTS = {"bought": 0, "from_store": 0, "paid_now": 0.0, "saved_by_store": 0.0, "currency": "CNY", "seconds": 0}
OUTPUTS = ("distilled.jsonl", "distill_failures.jsonl", "metrics.json")


def question(number: int, text: str | None = None) -> dict[str, Any]:
    terms = [number + 1, number % 7 + 2, number % 11 + 3]
    return {
        "id": f"q-{number}",
        "question": text or f"What is {terms[0]} + {terms[1]} - {terms[2]}?",
        "answer": str(terms[0] + terms[1] - terms[2]),
        "solution": None,
        "source": "made up here",
    }


def wait_until(condition: Callable[[], bool], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


class Desk:
    """A folder with questions, params and a store, and the stage run on them."""

    def __init__(self, folder: Path, project_params: Callable[..., Path]) -> None:
        self.folder = folder
        self.store = folder / "store" / "answers.jsonl"
        self.requests = folder / "requests.jsonl"
        self._project_params = project_params
        self.settings: dict[str, Any] = dict(BASE)

    def ask(self, *rows: dict[str, Any]) -> None:
        """These are the questions from now on."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (self.folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")

    def set(self, **values: Any) -> None:
        """``set(concurrency=1)``: change a value by the last word of its key."""
        for name, value in values.items():
            (key,) = [key for key in self.settings if key.rsplit(".", 1)[1] == name]
            self.settings[key] = value

    def use(self, server: "Server") -> None:
        """From now on the teacher is this server."""
        self.set(backend="openai_compatible", base_url=server.base_url)

    def arguments(self, out: str = "out", **paths: object) -> list[str]:
        named = {
            "questions": self.folder / "questions.jsonl",
            "distilled": self.folder / out / "distilled.jsonl",
            "failures": self.folder / out / "distill_failures.jsonl",
            "metrics": self.folder / out / "metrics.json",
            "store": self.store,
            "params": self._project_params(self.settings),
        } | paths
        return [text for name, path in named.items() for text in (f"--{name}", str(path))]

    def run(self, out: str = "out", **paths: object) -> Result:
        """The stage in this process; it must end well."""
        result = CliRunner().invoke(main, self.arguments(out, **paths))
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result

    def refused(self, out: str = "out", leaves: tuple[str, ...] = (), **paths: object) -> str:
        """The one line of a stage that must end with exit code 1, no traceback and no outputs but those it leaves."""
        result = CliRunner().invoke(main, self.arguments(out, **paths))
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        (line,) = result.stderr.splitlines()
        assert [name for name in OUTPUTS if (self.folder / out / name).exists()] == list(leaves)
        assert not list(self.folder.rglob("*.tmp"))
        return line.removeprefix("Error: ")

    def start(self, out: str = "out", **more: Any) -> subprocess.Popen[str]:
        """The stage as a process of its own, the leader of its group."""
        return subprocess.Popen(
            [sys.executable, "-m", "stages.distill", *self.arguments(out)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
            text=True,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more),
        )

    def rows(self, name: str, out: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / out / name).read_bytes().splitlines()]

    def distilled(self, out: str = "out") -> list[dict[str, Any]]:
        return self.rows("distilled.jsonl", out)

    def failures(self, out: str = "out") -> list[dict[str, Any]]:
        return self.rows("distill_failures.jsonl", out)

    def metrics(self, out: str = "out") -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.folder / out / "metrics.json").read_bytes())
        return metrics

    def outputs(self, out: str = "out") -> list[bytes]:
        return [(self.folder / out / name).read_bytes() for name in OUTPUTS]

    def requested(self) -> list[str]:
        """What the embedded server was asked so far, one text a request."""
        if not self.requests.exists():
            return []
        bodies = self.requests.read_bytes().split(b"\n")[:-1]
        return [json.loads(body)["messages"][0]["content"] for body in bodies]

    def wait_for_a_request(self, stage: subprocess.Popen[str], before: int) -> None:
        """Until the embedded server was asked more than ``before`` times, or the stage has ended."""
        wait_until(lambda: len(self.requested()) > before or stage.poll() is not None)

    def stored(self) -> int:
        """How many whole records the store holds."""
        return self.store.read_bytes().count(b"\n") if self.store.exists() else 0


@pytest.fixture
def desk(tmp_path: Path, project_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path, project_params)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DISTILLERY_EMBEDDED_REQUESTS", str(desk.requests))
    monkeypatch.setenv("API_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return desk


def prompted(text: str) -> str:
    """The whole message that a question becomes."""
    before, after = (ROOT / "stages/prompts/step_by_step.txt").read_text(encoding="utf-8").split("{question}")
    return before + text + after


Route = Callable[[web.Request, str, int], Awaitable[web.StreamResponse]]


class Server:
    """A real server in a thread. ``route(request, content, attempt)`` answers; what came in is kept."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(listening),))
        self._thread.start()
        assert listening.wait(10)

    async def _serve(self, listening: threading.Event) -> None:
        application = web.Application(client_max_size=2**26)
        application.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        listening.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        content = body["messages"][-1]["content"]
        self.bodies.append(body)
        self.times.append(time.monotonic())
        self.keys.add(request.headers.get("Authorization", ""))
        self.asked.append(content)
        return await self.route(request, content, self.asked.count(content))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Route], Server]]:
    servers: list[Server] = []

    def start(route: Route) -> Server:
        servers.append(Server(route))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def completion(finish_reason: str = "stop", **message: Any) -> web.Response:
    """An answer as it should be, but for what a test changes."""
    message = {"role": "assistant", "reasoning_content": "1 + 1 = 2", "content": "The answer is 2."} | message
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return web.json_response({"id": "c", "model": "served-model", "choices": [choice], "usage": usage})


async def good(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    return completion()


# ---- what is bought, and what is kept ----


def test_every_question_becomes_a_row_and_the_counts_add_up(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(30)), question(30, "Why is the sky blue?"))
    desk.set(max_tokens=17, max_failed_share=1.0)
    desk.run()
    distilled, failures, metrics = desk.distilled(), desk.failures(), desk.metrics()
    assert metrics["in"] == 31 == len(distilled) + len(failures)
    assert metrics["distilled"] == len(distilled) > 0
    assert metrics["failed"] == len(failures) > 0
    assert metrics["failed_by_reason"] == dict(Counter(row["reason"] for row in failures))
    assert sorted(row["id"] for row in distilled + failures) == sorted(f"q-{number}" for number in range(31))
    assert metrics["completion_tokens"] == sum(row["usage"]["completion_tokens"] for row in distilled)
    assert metrics["prompt_tokens"] == sum(row["usage"]["prompt_tokens"] for row in distilled)


def test_a_row_holds_the_question_as_it_was_and_the_answer(desk: Desk) -> None:
    desk.set(slip_share=0.0)
    desk.ask(question(4) | {"solution": "worked", "source": "gsm8k/train"})
    desk.run()
    (row,) = desk.distilled()
    assert row | {"usage": {}} == {
        "id": "q-4",
        "question": "What is 5 + 6 - 7?",
        "answer": "4",
        "solution": "worked",
        "source": "gsm8k/train",
        "sample": 0,
        "reasoning": "5 + 6 = 11\n11 - 7 = 4",
        "response": "The answer is 4.",
        "finish_reason": "stop",
        "model": "chain-sum-solver",
        "usage": {},
    }
    assert row["usage"]["completion_tokens"] > 0


def test_rows_stand_in_the_order_of_the_questions(desk: Desk, serve: Callable[[Route], Server]) -> None:
    async def later_and_later_first(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(random.uniform(0, 0.03))
        return completion()

    desk.use(serve(later_and_later_first))
    desk.ask(*(question(number) for number in range(40)))
    desk.set(concurrency=16)
    desk.run()
    assert [row["id"] for row in desk.distilled()] == [f"q-{number}" for number in range(40)]


def test_second_run_makes_no_teacher_calls(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(20)))
    desk.run()
    assert len(desk.requested()) == 20
    facts = desk.folder / "metrics" / "runs" / "distill.json"
    assert json.loads(facts.read_text()) | {"seconds": 0} == RUN_FACTS | {"bought": 20}
    desk.run("again")
    assert len(desk.requested()) == 20
    assert json.loads(facts.read_text()) | {"seconds": 0} == RUN_FACTS | {"from_store": 20}
    assert desk.outputs("again") == desk.outputs()


def test_twice_the_questions_ask_only_the_new_ones(desk: Desk) -> None:
    questions = [question(number) for number in range(40)]
    desk.ask(*questions[10:30])
    desk.run()
    asked = len(desk.requested())
    desk.ask(*questions)
    desk.run()
    new = desk.requested()[asked:]
    assert sorted(new) == sorted(prompted(row["question"]) for row in questions[:10] + questions[30:])
    assert len(desk.distilled()) == 40


@pytest.mark.parametrize(
    ("name", "value", "asked"),
    [
        ("model", "another-model", 5),
        ("temperature", 0.6, 5),
        ("top_p", 0.9, 5),
        ("max_tokens", 500, 5),
        ("prompt", "father", 5),
        ("samples_per_question", 2, 5),  # the first sample of each is there already
        ("concurrency", 1, 0),
        ("timeout_s", 5.0, 0),
        ("max_attempts", 1, 0),
        ("backoff_s", 0.5, 0),
        ("max_failed_share", 0.5, 0),
    ],
)
def test_what_shapes_the_answer_asks_anew_and_what_shapes_speed_does_not(
    desk: Desk, serve: Callable[[Route], Server], name: str, value: Any, asked: int
) -> None:
    server = serve(good)
    desk.use(server)
    desk.ask(*(question(number) for number in range(5)))
    desk.run()
    desk.set(**{name: value})
    desk.run()
    assert len(server.asked) == 5 + asked


@pytest.mark.parametrize(("name", "value"), [("slip_share", 0.9), ("seed", 4)])
def test_what_shapes_the_embedded_answers_asks_anew(desk: Desk, name: str, value: float) -> None:
    desk.ask(*(question(number) for number in range(5)))
    desk.run()
    desk.set(**{name: value})
    desk.run()
    assert len(desk.requested()) == 10


def test_another_server_with_the_same_model_is_asked_anew(desk: Desk, serve: Callable[[Route], Server]) -> None:
    desk.ask(question(0))
    for server in (serve(good), serve(good)):
        desk.use(server)
        desk.run()
        assert len(server.asked) == 1


@pytest.mark.parametrize("concurrency", [1, 7])
def test_as_many_calls_are_in_flight_as_concurrency_says(
    desk: Desk, serve: Callable[[Route], Server], concurrency: int
) -> None:
    in_flight, seen = 0, set()

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        nonlocal in_flight
        in_flight += 1
        seen.add(in_flight)
        await asyncio.sleep(0.02)
        in_flight -= 1
        return completion()

    desk.use(serve(route))
    desk.set(concurrency=concurrency)
    desk.ask(*(question(number) for number in range(21)))
    desk.run()
    assert max(seen) == concurrency


def test_sampling_values_are_sent_when_set_and_left_out_when_null(desk: Desk, serve: Callable[[Route], Server]) -> None:
    server = serve(good)
    desk.use(server)
    desk.ask(question(0))
    desk.run()
    assert not {"temperature", "top_p", "max_tokens", "sample", "endpoint"} & set(server.bodies[-1])
    desk.set(temperature=0.6, top_p=0.95, max_tokens=4096)
    desk.run()
    sent = server.bodies[-1]
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.6, 0.95, 4096)
    assert len(server.bodies) == 2


def test_two_samples_give_two_rows_of_each_question_with_different_keys(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(5)))
    desk.set(samples_per_question=2)
    desk.run()
    assert [(row["id"], row["sample"]) for row in desk.distilled()] == [(f"q-{n}", s) for n in range(5) for s in (0, 1)]
    assert Counter(desk.requested()) == {prompted(question(number)["question"]): 2 for number in range(5)}
    keys = [json.loads(line)["key"] for line in desk.store.read_bytes().splitlines()]
    assert len(set(keys)) == 10


def test_two_questions_with_the_same_text_are_asked_once(desk: Desk) -> None:
    desk.ask(question(1), question(2, question(1)["question"]), question(3))
    desk.run()
    assert len(desk.requested()) == 2
    first, second, _ = desk.distilled()
    assert (first["id"], second["id"]) == ("q-1", "q-2")
    assert first["reasoning"] == second["reasoning"]


@pytest.mark.parametrize(
    "text",
    [
        "{} {0} {question} {x!r:>{y}} }{ %s %(a)d %",
        "{question}",
        "{question} and again {question}",
        "🙂 两只鸡\u2028\u2029\x85 e\u0301 \U0001f468\u200d\U0001f469",
        'a\nb\r\n\tc "quoted" \\n \\u0041 \x01',
        "<think>1 + 1</think> <|im_end|>",
        "x" * 100_000,
        "两" * 35_000,
    ],
    ids=[
        "braces",
        "the placeholder",
        "twice the placeholder",
        "unicode",
        "line ends",
        "markers",
        "100 kB",
        "100 kB 两",
    ],
)
def test_the_question_is_sent_and_kept_to_the_letter(desk: Desk, serve: Callable[[Route], Server], text: str) -> None:
    server = serve(good)
    desk.use(server)
    desk.ask(question(0, text))
    desk.run()
    assert server.asked == [prompted(text)]
    (row,) = desk.distilled()
    assert row["question"] == text
    desk.run()
    assert len(server.asked) == 1


@pytest.mark.parametrize("text", ["{question} %s", "🙂\u2028\u2029\x85", "x" * 100_000 + "\r\n"])
def test_the_answer_is_kept_to_the_letter(desk: Desk, serve: Callable[[Route], Server], text: str) -> None:
    async def echo(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(reasoning_content=f"a{text}b", content=f"c{text}d")

    desk.use(serve(echo))
    desk.ask(question(0))
    desk.run()
    (row,) = desk.distilled()
    assert (row["reasoning"], row["response"]) == (f"a{text}b", f"c{text}d")


def test_a_prompt_without_a_place_for_the_question_is_refused(desk: Desk) -> None:
    desk.ask(question(0))
    desk.set(prompt="brief")
    line = desk.refused()
    assert "distill.prompt" in line
    assert "stages/prompts/brief.txt" in line
    assert desk.requested() == []


def test_an_old_answer_that_can_no_longer_be_read_is_a_failure_row(desk: Desk) -> None:
    desk.ask(question(0), question(1))
    desk.run()
    records = [json.loads(line) for line in desk.store.read_bytes().splitlines()]
    records[0]["body"] = '{"choices": []}'
    desk.store.write_text("".join(json.dumps(record) + "\n" for record in records))
    desk.set(max_failed_share=0.5)
    desk.run()
    assert [(row["reason"], row["status"]) for row in desk.failures()] == [("no_choices", 200)]
    assert len(desk.distilled()) == 1
    assert len(desk.requested()) == 2


def test_the_torn_last_line_of_a_killed_writer_is_repaired_and_asked_again(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(6)))
    desk.run()
    undisturbed = desk.outputs()
    desk.store.write_bytes(desk.store.read_bytes()[:-40])
    desk.run()
    assert len(desk.requested()) == 7
    assert desk.outputs() == undisturbed
    assert desk.stored() == 6


def test_a_broken_line_in_the_store_is_named_and_nothing_is_lost(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(3)))
    desk.run("first")
    lines = desk.store.read_bytes().splitlines(keepends=True)
    desk.store.write_bytes(lines[0] + b"garbage\n" + b"".join(lines[1:]))
    before = desk.store.read_bytes()
    assert desk.refused().startswith(f"{desk.store}:2: ")
    assert desk.store.read_bytes() == before


# ---- killed, stopped, two at once ----


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


def test_a_full_disk_under_the_store_is_one_line_and_loses_nothing(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(60)))
    with desk.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))) as stage:
        _, stderr = stage.communicate(timeout=30)
    assert stage.returncode == 1
    (line,) = stderr.splitlines()
    assert line.startswith(f"Error: {desk.store}: ")
    assert not (desk.folder / "out").exists()
    stored, asked = desk.stored(), len(desk.requested())
    assert 10 < stored < 60
    assert desk.store.read_bytes().endswith(b"\n")
    desk.run()
    assert len(desk.requested()) - asked == 60 - stored
    assert len(desk.distilled()) == 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("option", ["store", "distilled"])
def test_a_full_device_is_one_line_and_stays_a_device(desk: Desk, option: str) -> None:
    desk.ask(question(0))
    assert desk.refused("out", (), **{option: "/dev/full"}).startswith("/dev/full: ")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert not Path("/dev/full.lock").exists()


# ---- what it says while it works ----


def test_a_pipe_gets_plain_lines(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(20)))
    with desk.start() as stage:
        stdout, stderr = stage.communicate(timeout=60)
    assert stage.returncode == 0
    assert stdout == ""
    assert stderr == "distill: 20 of 20 answered (0 from the store, 20 bought), 0 failed\n"


def test_a_long_run_tells_a_pipe_how_far_it_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stages.lib.teacher.progress.LINE_EVERY_S", 0.05)
    desk.ask(*(question(number) for number in range(40)))
    desk.set(embedded_latency_s=0.03)
    desk.run()
    figures = r"distill: (\d+) of 40, 0 failed, \d+ in flight, \dk tokens, [\d.]+/s, \d+ s left$"
    lines = [re.match(figures, text) for text in caplog.messages]
    counts = [int(match[1]) for match in lines if match]
    assert 2 <= len(counts) <= 10
    assert counts == sorted(set(counts))


def test_a_terminal_gets_a_bar(desk: Desk) -> None:
    desk.ask(*(question(number) for number in range(20)))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with desk.start(stderr=theirs) as stage:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert stage.returncode == 0
    assert b"20/20" in shown
    assert b"100%" in shown


def test_the_api_key_goes_to_the_server_and_nowhere_else(desk: Desk, serve: Callable[[Route], Server]) -> None:
    async def mostly_good(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        sent = request.headers["Authorization"]
        if "99" in content:  # as some servers do: the key in the error
            return web.json_response({"error": {"message": f"Incorrect API key provided: {sent}"}}, status=401)
        if " 3 " in content:
            return web.json_response({"error": {"message": f"refused {sent}"}}, status=400)
        return completion()

    server = serve(mostly_good)
    desk.use(server)
    desk.set(max_failed_share=1.0)
    desk.ask(*(question(number) for number in range(10)))
    with desk.start() as stage:
        said = "".join(stage.communicate(timeout=60))
    assert stage.returncode == 0, said
    assert desk.metrics()["failed"] > 0
    desk.ask(*(question(number) for number in range(10)), question(99, "99 + 1"))
    with desk.start("refused") as stage:
        said += "".join(stage.communicate(timeout=60))
    assert stage.returncode == 1, said
    assert "Incorrect API key" in said
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in said
    files = [path for path in desk.folder.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_api_key_is_also_read_from_the_env_file(
    desk: Desk, serve: Callable[[Route], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY")
    (desk.folder / ".env").write_text("# mine\nAPI_KEY='from the file'\n")
    server = serve(good)
    desk.use(server)
    desk.ask(question(0))
    desk.run()
    assert server.keys == {"Bearer from the file"}


@pytest.mark.parametrize("value", [None, "", "sk-你的密钥", "sk-one\nX-Other: two"])
def test_an_api_key_that_is_none_is_one_line_before_any_call(
    desk: Desk, serve: Callable[[Route], Server], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("API_KEY")
    if value is not None:
        monkeypatch.setenv("API_KEY", value)
    server = serve(good)
    desk.use(server)
    desk.ask(question(0))
    line = desk.refused()
    assert line.startswith("API_KEY: ")
    assert "sk-" not in line
    assert server.asked == []


def test_a_proxy_is_not_asked_for_the_embedded_teacher(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    desk.ask(question(0))
    desk.run()
    assert len(desk.distilled()) == 1


def test_a_port_in_use_is_one_line(desk: Desk) -> None:
    desk.ask(question(0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        desk.set(embedded_port=port)
        line = desk.refused()
    assert line.startswith(f"127.0.0.1:{port}: ")
    assert "run.embedded_port" in line


# ---- servers that misbehave ----


def reset(request: web.Request) -> None:
    """Close the connection as a crashed host does."""
    assert request.transport
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


async def too_many(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})


async def broken_inside(request: web.Request) -> web.StreamResponse:
    html = "<html><body><h1>500 Internal Server Error</h1>\n</body></html>"
    return web.Response(text=html, content_type="text/html", status=500)


async def overloaded(request: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


async def connection_reset(request: web.Request) -> web.StreamResponse:
    reset(request)
    return web.Response()


async def reset_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "The ans')
    reset(request)
    return response


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def hang_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "The ans')
    await asyncio.sleep(30)
    return response


async def truncated(request: web.Request) -> web.StreamResponse:
    return web.Response(text='{"choices": [{"message": {"content": "The ans', content_type="application/json")


async def no_utf_8(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"choices": [{"message": {"content": "\xd0"}}]}', content_type="application/json")


async def html_page(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>Log in to the network</html>", content_type="text/html")


async def nothing(request: web.Request) -> web.StreamResponse:
    return web.Response(text="", content_type="application/json")


async def blank_lines(request: web.Request) -> web.StreamResponse:
    return web.Response(text="\n\n\n", content_type="application/json")


async def error_object(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "overloaded", "code": 503}})


async def without_choices(request: web.Request) -> web.StreamResponse:
    return web.json_response({"model": "served-model", "choices": []})


Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAULTS: list[tuple[Fault, str, int | None]] = [
    (too_many, "http_429", 429),
    (broken_inside, "http_500", 500),
    (overloaded, "http_503", 503),
    (connection_reset, "no_connection", None),
    (reset_in_the_middle, "no_connection", None),
    (hang, "timeout", None),
    (hang_in_the_middle, "timeout", None),
    (truncated, "not_json", 200),
    (no_utf_8, "not_json", 200),
    (html_page, "not_json", 200),
    (nothing, "empty_body", 200),
    (blank_lines, "empty_body", 200),
    (error_object, "no_choices", 200),
    (without_choices, "no_choices", 200),
]
with_each_fault = pytest.mark.parametrize(
    ("fault", "reason", "status"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS]
)


@with_each_fault
def test_a_fault_that_passes_costs_calls_and_no_answer(
    desk: Desk, serve: Callable[[Route], Server], fault: Fault, reason: str, status: int | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await fault(request) if attempt <= 2 and "99" in content else completion()

    server = serve(route)
    desk.use(server)
    desk.set(timeout_s=0.3)
    desk.ask(question(0), question(1, "99 + 1"), question(2))
    desk.run()
    assert Counter(server.asked) == {prompted(q["question"]): 1 for q in (question(0), question(2))} | {
        prompted("99 + 1"): 3
    }
    assert len(desk.distilled()) == 3
    assert desk.failures() == []


@with_each_fault
def test_a_fault_that_stays_is_a_row_with_its_reason_and_is_asked_again_next_time(
    desk: Desk, serve: Callable[[Route], Server], fault: Fault, reason: str, status: int | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await fault(request) if attempt <= 3 and "99" in content else completion()

    server = serve(route)
    desk.use(server)
    desk.set(timeout_s=0.3, max_failed_share=0.5)
    desk.ask(question(0), question(1, "99 + 1"), question(2))
    desk.run()
    (row,) = desk.failures()
    assert (row["id"], row["sample"], row["question"]) == ("q-1", 0, "99 + 1")
    assert (row["reason"], row["status"], row["attempts"]) == (reason, status, 3)
    assert desk.stored() == 2
    assert len(server.asked) == 5
    desk.run()
    assert server.asked[5:] == [prompted("99 + 1")]
    assert desk.failures() == []
    assert len(desk.distilled()) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": ""}, "empty_response"),
        ({"content": None}, "empty_response"),
        ({"reasoning_content": ""}, "empty_reasoning"),
        ({"reasoning_content": None}, "empty_reasoning"),
        ({"finish_reason": "length"}, "cut_off"),
        ({"finish_reason": "length", "content": ""}, "cut_off"),
        ({"finish_reason": "content_filter", "content": ""}, "refused"),
    ],
)
def test_an_answer_of_no_use_is_a_failure_row_and_is_paid_for_once(
    desk: Desk, serve: Callable[[Route], Server], answer: dict[str, Any], reason: str
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(**answer) if "99" in content else completion()

    server = serve(route)
    desk.use(server)
    desk.set(max_failed_share=0.5)
    desk.ask(question(0), question(1, "99 + 1"))
    for _ in range(2):
        desk.run()
        (row,) = desk.failures()
        assert (row["reason"], row["status"], row["attempts"]) == (reason, 200, 1)
        assert len(desk.distilled()) == 1
        assert len(server.asked) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_is_one_row_without_a_second_call(
    desk: Desk, serve: Callable[[Route], Server], status: int
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        error = {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}
        return web.json_response({"error": error}, status=status) if "99" in content else completion()

    server = serve(route)
    desk.use(server)
    desk.set(max_failed_share=0.5)
    desk.ask(question(0), question(1, "99 + 1"))
    desk.run()
    (row,) = desk.failures()
    assert (row["reason"], row["status"], row["attempts"]) == ("refused", status, 1)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "code"), [(401, None), (402, None), (403, None), (404, "model_not_found"), (429, "insufficient_quota")]
)
def test_a_refusal_of_everything_stops_the_run_in_one_line(
    desk: Desk, serve: Callable[[Route], Server], status: int, code: str | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while len(server.asked) < 4:  # all workers at once
            await asyncio.sleep(0.001)
        return web.json_response({"error": {"message": "No.\nNot you.", "code": code}}, status=status)

    server = serve(route)
    desk.use(server)
    desk.ask(*(question(number) for number in range(50)))
    line = desk.refused()
    assert line.startswith(f"{server.base_url}: ")
    assert str(status) in line
    assert len(server.asked) == 4


def test_what_is_under_way_when_a_refusal_comes_is_received_and_kept(
    desk: Desk, serve: Callable[[Route], Server]
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while len(server.asked) < 4:  # all workers at once
            await asyncio.sleep(0.001)
        if "99" in content:
            return web.json_response({"error": {"message": "no credit"}}, status=402)
        await asyncio.sleep(0.3)
        return completion()

    server = serve(route)
    desk.use(server)
    desk.ask(question(99, "99 + 1"), *(question(number) for number in range(50)))
    desk.refused()
    assert len(server.asked) == 4
    assert desk.stored() == 3


@pytest.mark.parametrize("finish_reason", ["insufficient_system_resource", "error", "abort"])
def test_an_answer_that_the_server_broke_off_is_asked_for_again(
    desk: Desk, serve: Callable[[Route], Server], finish_reason: str
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(finish_reason if attempt == 1 else "stop")

    server = serve(route)
    desk.use(server)
    desk.ask(question(1))
    desk.run()
    assert len(server.asked) == 2
    assert desk.metrics()["distilled"] == 1


def test_what_came_before_a_refusal_is_kept(desk: Desk, serve: Callable[[Route], Server]) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if len(server.asked) <= 20 else web.json_response({"error": {}}, status=402)

    server = serve(route)
    desk.use(server)
    desk.ask(*(question(number) for number in range(50)))
    desk.refused()
    assert desk.stored() == 20
    first, stored = len(server.asked), desk.stored()
    server.route = good
    desk.run()
    assert len(server.asked) - first == 50 - stored


@pytest.mark.parametrize("fault", [html_page, truncated, nothing, error_object, connection_reset, broken_inside])
def test_a_server_that_answers_nonsense_to_everything_fails_the_stage_in_one_line(
    desk: Desk, serve: Callable[[Route], Server], fault: Fault
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if content == prompted(question(0)["question"]) else await fault(request)

    server = serve(route)
    desk.use(server)
    desk.set(max_failed_share=0.5)
    desk.ask(*(question(number) for number in range(12)))
    line = desk.refused(leaves=("distill_failures.jsonl",))
    reason = next(reason for known, reason, _ in FAULTS if known is fault)
    assert "11 of 12" in line
    assert f"11 {reason}" in line
    assert len(desk.failures()) == 11, "they are there to be looked at"
    assert "max_failed_share" in line
    assert desk.stored() == 1, "what was received is kept"
    assert "The answer is 2." in desk.store.read_text()


def test_nobody_listening_is_one_line(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    desk.ask(question(0), question(1))
    desk.set(backend="openai_compatible", base_url=f"http://127.0.0.1:{port}/v1")
    line = desk.refused()
    assert line.startswith(f"http://127.0.0.1:{port}/v1: nobody answers there")
    assert "distill.teacher.base_url" in line


@pytest.mark.parametrize(("share", "ends_well"), [(0.2, True), (0.19, False), (0.0, False), (1.0, True)])
def test_the_share_of_failures_decides(
    desk: Desk, serve: Callable[[Route], Server], share: float, ends_well: bool
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(content="") if "99" in content else completion()

    desk.use(serve(route))
    desk.set(max_failed_share=share)
    desk.ask(*(question(number) for number in range(8)), question(8, "99 + 1"), question(9, "99 + 2"))
    if ends_well:
        desk.run()
        assert desk.metrics()["failed_by_reason"] == {"empty_response": 2}
        assert [row["id"] for row in desk.failures()] == ["q-8", "q-9"]
    else:
        assert "2 of 10" in desk.refused(leaves=("distill_failures.jsonl",))


def test_all_failing_is_counted_where_params_allow_it(desk: Desk, serve: Callable[[Route], Server]) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(content="")

    desk.use(serve(route))
    desk.set(max_failed_share=1.0)
    desk.ask(question(0), question(1))
    desk.run()
    assert (desk.metrics()["in"], desk.metrics()["distilled"], desk.metrics()["failed"]) == (2, 0, 2)
    assert desk.distilled() == []


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
    desk: Desk, serve: Callable[[Route], Server], header: Callable[[], str], least_s: float, most_s: float
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if attempt > 1 else web.Response(status=429, headers={"Retry-After": header()})

    server = serve(route)
    desk.use(server)
    desk.ask(question(0))
    desk.run()
    first, second = server.times
    assert least_s <= second - first < most_s


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"completion_tokens": None, "prompt_tokens": None},
        {"completion_tokens": "9", "prompt_tokens": [3]},
        {"completion_tokens": {"total": 9}},
    ],
)
def test_a_strange_usage_costs_no_answer(desk: Desk, serve: Callable[[Route], Server], usage: Any) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        message = {"reasoning_content": "1", "content": "2"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    desk.use(serve(route))
    desk.ask(question(0))
    desk.run()
    assert desk.distilled()[0]["usage"] == (usage or {})
    assert (desk.metrics()["completion_tokens"], desk.metrics()["prompt_tokens"]) == (0, 0)


# ---- bad input ----


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b'{"id": "a", "question": "1 + 1", "answer": "2"}\n{"id": "b", "question": "1', ":2: ", "not a JSON object"),
        (b"\n", ":1: ", "not a JSON object"),
        (b"[1]\n", ":1: ", "object"),
        (b'{"id": "a", "answer": "2"}\n', ":1: ", "no field 'question'"),
        (b'{"question": "1 + 1", "answer": "2"}\n', ":1: ", "no field 'id'"),
        (b'{"id": "a", "question": "1 + 1"}\n', ":1: ", "no field 'answer'"),
        (b'{"id": "a", "question": 5, "answer": "2"}\n', ":1: ", "field 'question'"),
        (b'{"id": "a", "question": "", "answer": "2"}\n', ":1: ", "field 'question'"),
        (b'{"id": "a", "question": "1 + 1", "answer": 2}\n', ":1: ", "field 'answer'"),
        (b'{"id": "a", "question": "\\ud83d", "answer": "2"}\n', ":1: ", "not a JSON object"),
        (2 * b'{"id": "a", "question": "1 + 1", "answer": "2"}\n', ":2: ", "id 'a' was on line 1 already"),
        (b"", ": ", "nothing in it"),
        ('{"id": "a", "question": "1 加 1", "answer": "2"}\n'.encode("gb18030"), ":1: ", "not UTF-8"),
        ('{"id": "a", "question": "1 + 1", "answer": "2"}\n'.encode("utf-16"), ":1: ", "not UTF-8"),
        (None, ": ", "no such file"),
    ],
    ids=[
        *("cut off", "blank", "a list", "no question", "no id", "no answer", "number for text", "empty question"),
        *("number for answer", "half a character", "twice the id", "empty", "GB18030", "UTF-16", "missing"),
    ],
)
def test_bad_questions_are_named_by_file_and_line_before_any_call(
    desk: Desk, content: bytes | None, where: str, what: str
) -> None:
    path = desk.folder / "questions.jsonl"
    if content is not None:
        path.write_bytes(content)
    line = desk.refused()
    assert line.startswith(f"{path}{where}")
    assert what in line
    assert desk.requested() == []


def test_a_folder_that_cannot_be_written_to_is_one_line(desk: Desk) -> None:
    desk.ask(question(0))
    (desk.folder / "file").write_text("in the way")
    assert desk.refused(distilled=desk.folder / "file" / "distilled.jsonl").startswith(f"{desk.folder / 'file'}")
    assert desk.stored() == 1, "what was received is kept"
    assert desk.refused(store=desk.folder / "file" / "answers.jsonl").startswith(f"{desk.folder / 'file'}")
    assert desk.refused(store=desk.folder).startswith(f"{desk.folder}: ")
