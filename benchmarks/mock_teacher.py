"""A teacher that only waits: the OpenAI protocol with prepared answers, so that only the client is measured.

    python -m benchmarks.mock_teacher --median-s 1 --sigma 0.7

Each answer has 3 to 6 KB of reasoning and a latency that depends on the number of its request (log-normal; with
``--sigma 0`` always the median). The server parses only as much of HTTP/1.1 as it needs to find the end of a request,
and it keeps connections open.

It prints its port when it listens, and it ends when its standard input is closed. Then it prints its measurements:

    {"answered": 2000, "asking_s": 13.9, "cpu_s": 0.2, "most_at_once": 30}

``asking_s`` is the time from the first request to the last answer, by one clock for all clients. ``cpu_s`` is the CPU
time of this server. ``answers_per_s`` measures how many answers it could give without latency.
"""

import asyncio
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import click
import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
BODIES = 64
WORDS = (
    "so",
    "the sum of",
    "both",
    "is then",
    "first",
    "we take away",
    "what remains,",
    "wait,",
    "let me check",
    "yes",
)


@dataclass
class Seen:
    """The teacher's measurements of its clients."""

    answered: int = 0
    waiting: int = 0
    most_at_once: int = 0
    first_request: float = 0.0
    last_answer: float = 0.0
    cpu_before_s: float = 0.0


@dataclass
class Running:
    """A mock teacher in a separate process; ``seen`` is filled when it has ended."""

    base_url: str
    seen: dict[str, float] = field(default_factory=dict)


@contextmanager
def mock_teacher(median_s: float, sigma: float, seed: int) -> Iterator[Running]:
    """Start a mock teacher, yield it, end it."""
    options = ["--median-s", str(median_s), "--sigma", str(sigma), "--seed", str(seed)]
    command = [sys.executable, "-m", "benchmarks.mock_teacher", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        running = Running(f"http://127.0.0.1:{process.stdout.readline().strip()}/v1")
        try:
            yield running
        finally:
            process.stdin.close()
            running.seen |= json.loads(process.stdout.read())


def latencies(median_s: float, sigma: float, seed: int) -> Iterator[float]:
    """The seconds that each request takes, as an infinite sequence."""
    rng = random.Random(seed)
    while True:
        yield median_s * math.exp(sigma * rng.gauss(0, 1))


def bodies(seed: int) -> list[bytes]:
    """Complete HTTP responses, head and body."""
    rng = random.Random(seed)
    return [response(rng.randint(3000, 6000), rng) for _ in range(BODIES)]


def response(length: int, rng: random.Random) -> bytes:
    """An HTTP response with a reasoning of about ``length`` characters."""
    reasoning = ""
    while len(reasoning) < length:
        reasoning += " ".join(rng.choices(WORDS, k=12)) + f" {rng.randint(1, 99)}.\n"
    message = {"role": "assistant", "reasoning_content": reasoning, "content": f"The answer is {rng.randint(1, 99)}."}
    words = len(reasoning.split())
    completion = {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": words, "total_tokens": 100 + words},
    }
    body = json.dumps(completion).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One client's connection: finds the end of each request, and answers after its latency."""

    def __init__(self, seen: Seen, waits: Iterator[float], ready: list[bytes]) -> None:
        self._seen = seen
        self._waits = waits
        self._ready = ready
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, which answers are written to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports have no class of asyncio

    def data_received(self, data: bytes) -> None:
        """Count every complete request."""
        self._received += data
        while (head_end := self._received.find(HEAD_END)) >= 0:
            end = head_end + len(HEAD_END) + _body_length(self._received[:head_end])
            if len(self._received) < end:
                return
            self._received = self._received[end:]
            self._take()

    def _take(self) -> None:
        seen = self._seen
        seen.first_request = seen.first_request or time.monotonic()
        seen.waiting += 1
        seen.most_at_once = max(seen.most_at_once, seen.waiting)
        asyncio.get_running_loop().call_later(next(self._waits), self._answer)

    def _answer(self) -> None:
        seen = self._seen
        seen.waiting -= 1
        if not self._transport.is_closing():
            self._transport.write(self._ready[seen.answered % BODIES])
            seen.answered += 1
            seen.last_answer = time.monotonic()


def _body_length(head: bytes) -> int:
    _, found, after = head.lower().partition(LENGTH)
    return int(after.split(b"\r\n", 1)[0]) if found else 0


async def serve(median_s: float, sigma: float, seed: int) -> Seen:
    """Listen, print the port, and serve until standard input is closed."""
    seen, waits, ready = Seen(), latencies(median_s, sigma, seed), bodies(seed)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(seen, waits, ready), "127.0.0.1", 0, backlog=4096
    )
    seen.cpu_before_s = time.process_time()
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return seen


def answers_per_s(count: int = 20_000, connections: int = 64) -> float:
    """How many answers per second a mock teacher gives without latency, to a minimal client."""
    with mock_teacher(0.0, 0.0, 0) as teacher:
        uvloop.run(_fetch(urlsplit(teacher.base_url).port, count, connections))
    return teacher.seen["answered"] / teacher.seen["asking_s"]


async def _fetch(port: int | None, count: int, connections: int) -> None:
    waiting = iter(range(count))

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        for _ in waiting:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            head = await reader.readuntil(HEAD_END)
            await reader.readexactly(_body_length(head))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())


@click.command(help="Answer on 127.0.0.1 with prepared answers until standard input is closed.")
@click.option("--median-s", type=float, default=0.0, show_default=True, help="Seconds an answer takes.")
@click.option("--sigma", type=float, default=0.0, show_default=True, help="Spread of the latencies (log-normal).")
@click.option("--seed", type=int, default=0, show_default=True)
def main(median_s: float, sigma: float, seed: int) -> None:
    seen = uvloop.run(serve(median_s, sigma, seed))
    facts = {
        "answered": seen.answered,
        "asking_s": seen.last_answer - seen.first_request,
        "cpu_s": time.process_time() - seen.cpu_before_s,
        "most_at_once": seen.most_at_once,
    }
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
