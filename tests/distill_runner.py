"""What the tests of asking a teacher share: a folder to run distill in, and a real server that behaves as told.

runner.ask(question(0), question(1))        # the questions
runner.use(serve(route))                    # the teacher: ``async def route(request, content, attempt)``
runner.set(concurrency=16)                  # params
runner.run()
"""

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from click.testing import CliRunner, Result

from stages.distill import main

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk-a-key-that-nobody-may-see-0123456789"
BASE: dict[str, Any] = {
    "distill.prompt": "step_by_step",
    "distill.samples_per_question": 1,
    "distill.max_failed_share": 0.0,
    "distill.teacher.kind": "embedded",
    "distill.teacher.base_url": None,
    "distill.teacher.model": "chain-sum-solver",
    "distill.teacher.temperature": None,
    "distill.teacher.extra_body": {},
    "distill.teacher.top_p": None,
    "distill.teacher.max_tokens": None,
    "distill.teacher.slip_share": 0.3,
    "distill.teacher.seed": 3,
    "distill.teacher.faults": {},
    "run.concurrency": 4,
    "run.requests_per_minute": None,
    "run.tokens_per_minute": None,
    "run.timeout_s": 20.0,
    "run.max_attempts": 3,
    "run.backoff_s": 0.001,
    "run.longest_wait_s": 900.0,
    "run.outage_s": 60.0,
    "run.grace_s": 10.0,
    "run.stream": False,
    "run.offline": False,
    "run.api_key_variables.teacher": "API_KEY",
    "run.prices.models": {},
    "run.budget": None,
    "run.embedded.latency_s": 0.0,
    "run.embedded.port": 0,
}
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


class DistillRunner:
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
        self.set(kind="openai_compatible", base_url=server.base_url)

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


def prompted(text: str) -> str:
    """The whole message that a question becomes."""
    before, after = (ROOT / "stages/prompts/step_by_step.txt").read_text(encoding="utf-8").split("{question}")
    return before + text + after


Route = Callable[[web.Request, str, int], Awaitable[web.StreamResponse]]
Serve = Callable[..., "Server"]  # (route, port=0)


class Server:
    """A real server in a thread. ``route(request, content, attempt)`` answers; what came in is kept.

    ``loads`` says for each call how many were in flight when it came, itself included.
    """

    def __init__(self, route: Route, port: int = 0) -> None:
        self.route = route
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.loads: list[int] = []
        self.port = port
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(listening),))
        self._thread.start()
        assert listening.wait(10)

    async def _serve(self, listening: threading.Event) -> None:
        application = web.Application(client_max_size=2**26)
        self._add_routes(application.router)
        app_runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await app_runner.setup()
        await web.TCPSite(app_runner, "127.0.0.1", self.port).start()
        self.port = app_runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        listening.set()
        await self._stop.wait()
        await app_runner.cleanup()

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/chat/completions", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        content = body["messages"][-1]["content"]
        self.bodies.append(body)
        self.times.append(time.monotonic())
        self.keys.add(request.headers.get("Authorization", ""))
        self.asked.append(content)
        self._in_flight += 1
        self.loads.append(self._in_flight)
        try:
            return await self.route(request, content, self.asked.count(content))
        finally:
            self._in_flight -= 1

    def close(self) -> None:
        """Break every connection and listen no more; a second time does nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()


USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}


def completion(finish_reason: str = "stop", usage: Any = USAGE, **message: Any) -> web.Response:
    """An answer as it should be, but for what a test changes."""
    message = {"role": "assistant", "reasoning_content": "1 + 1 = 2", "content": "The answer is 2."} | message
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return web.json_response({"id": "c", "model": "served-model", "choices": [choice], "usage": usage})


async def good(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    return completion()


def reset(request: web.Request) -> None:
    """Close the connection as a crashed host does."""
    assert request.transport
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
