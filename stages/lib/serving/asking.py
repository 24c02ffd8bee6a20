"""Start a server, wait until it answers, ask it questions with the OpenAI client, and compare with ``hf``'s answers."""

import logging
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stages.lib.serving import ServingError
from stages.lib.serving.arms import Arm, Expected, prompt_tokens
from stages.lib.serving.gguf import last_line

log = logging.getLogger("distillery.serve")

PAUSE_S = 0.3
GRACE_S = 20.0  # for a server to stop


@dataclass(frozen=True)
class Compared:
    """A server's answer beside ``hf``'s; ``prompt`` is its number of prompt tokens beside the evaluation's."""

    expected: Expected
    answer: str
    prompt: tuple[int | None, int | None]

    @property
    def is_same(self) -> bool:
        """Whether the texts are equal, white space at the ends aside."""
        return self.answer.strip() == self.expected.response.strip()

    def lines(self) -> Iterator[str]:
        """``heldout-0: same``, or both texts and the first word that differs."""
        ours, theirs = self.prompt
        if None not in self.prompt and ours != theirs:
            yield f"{self.expected.id}: the server's prompt has {ours} tokens, the evaluation's {theirs}"
        if self.is_same:
            yield f"{self.expected.id}: same: {shown(self.answer)}"
            return
        words = self.expected.response.split(), self.answer.split()
        place = next(
            (number for number, pair in enumerate(zip(*words, strict=False)) if pair[0] != pair[1]),
            min(map(len, words)),
        )
        yield f"{self.expected.id}: different from word {place + 1} on"
        yield f"  hf:     {shown(self.expected.response)}"
        yield f"  server: {shown(self.answer)}"


def shown(text: str) -> str:
    """A text in one line."""
    return " ".join(text.split())


@contextmanager
def started(
    command: list[str], cards: dict[str, str], log_path: Path, port: int
) -> Iterator["subprocess.Popen[bytes]"]:
    """The server's process, stopped at the end; ServingError if the port is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServingError(f"port {port}: {error.strerror}. Name another one: PORT=8001.") from error
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=os.environ | cards,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 1.0)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(grace_s)


def wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, log_path: Path, wait_s: float) -> None:
    """Return when the server has loaded the model; ServingError if it ends before, or does not in time."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingError(
                f"the server ended (exit code {process.returncode}): {last_line(log_path)}. See {log_path}."
            )
        with suppress(OSError), direct.open(f"{url}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(PAUSE_S)
    raise ServingError(f"the server did not answer within {wait_s:.0f} s. See {log_path}, or set a longer --wait-s.")


def compared(arm: Arm, url: str, expected: list[Expected]) -> Iterator[Compared]:
    """Ask each question once, at temperature 0; ServingError if the server lists no such model or gives no answer."""
    from openai import DefaultHttpxClient, OpenAI, OpenAIError

    # without a proxy, as the evaluation asks its servers; a local server needs no key, but the client needs a word
    client = OpenAI(base_url=f"{url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False))
    try:
        names = [model.id for model in client.models.list()]
        if arm.name not in names:
            raise ServingError(f"{url}: no model '{arm.name}' there. It serves {', '.join(names) or 'none'}.")
        for each in expected:
            reply = client.chat.completions.create(
                model=arm.name,
                messages=each.messages,  # type: ignore[arg-type]  # a role is any text there
                temperature=0,
                max_tokens=arm.max_tokens,
            )
            counts = reply.usage.prompt_tokens if reply.usage else None, prompt_tokens(arm, each.prompt)
            yield Compared(each, reply.choices[0].message.content or "", counts)
    except OpenAIError as error:
        raise ServingError(f"{url}: {shown(str(error))}") from error
