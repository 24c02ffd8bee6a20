"""Server processes: start them, wait until each is healthy, stop them all.

with started([Server("filtered", ["vllm", …], {}, "127.0.0.1", 8000, Path("x.log"))]) as running:
    wait_until_healthy(running, wait_s=900)
"""

import logging
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stages.lib.command import last_line
from stages.lib.serving import ServingError

log = logging.getLogger("distillery.serve")

PAUSE_S = 0.3
GRACE_S = 20.0  # for a server to stop
REPORT_S = 30.0  # between two log lines about servers that are still loading
WIDTH = 160  # of a log's last line in a message

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a server of this machine is behind no proxy


@dataclass(frozen=True)
class Server:
    """A server to be started: its command, the variables that limit it to its cards, its address and its log."""

    name: str
    command: list[str]
    variables: dict[str, str]
    host: str
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address, without ``/v1``."""
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class Running:
    """A started server and its process."""

    server: Server
    process: "subprocess.Popen[bytes]"

    def ended(self) -> str:
        """``NAME ended (exit code 1): the last line of its log. See LOG.``; empty while it runs."""
        if self.process.poll() is None:
            return ""
        code, log_path = self.process.returncode, self.server.log
        return f"{self.server.name} ended (exit code {code}): {last_words(log_path)}. See {log_path}."


@contextmanager
def started(servers: Sequence[Server]) -> Iterator[list[Running]]:
    """The servers' processes, all stopped at the end; ServingError if a port is in use."""
    for server in servers:
        _check_port(server)
    running: list[Running] = []
    with ExitStack() as stack:
        stack.callback(_stop_all, running)
        for server in servers:
            running.append(Running(server, _start(server)))
        yield running


def _check_port(server: Server) -> None:
    family, _, _, _, address = _address(server)
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ServingError(
                f"{server.host}: port {server.port}: {error.strerror}. Name another one: PORT={server.port + 1}."
            ) from error


def _address(server: Server) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServingError(
            f"HOST={server.host}: {error.strerror}. Name this machine or one of its addresses."
        ) from error
    return found  # type: ignore[return-value]  # the address of IPv6 has two more parts


def _start(server: Server) -> "subprocess.Popen[bytes]":
    server.log.parent.mkdir(parents=True, exist_ok=True)
    with server.log.open("wb") as file:
        return subprocess.Popen(
            server.command,
            env=os.environ | server.variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own workers are stopped with it, and Ctrl-C does not reach them first
        )


def _stop_all(running: Sequence[Running]) -> None:
    """Stop servers with all that they started; those that do not end in time are killed."""
    processes = [each.process for each in running]
    # a second Ctrl-C, or a SIGTERM after it, must not interrupt it
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _stop(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 1.0)):
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        deadline = time.monotonic() + grace_s
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


def wait_until_healthy(running: Sequence[Running], wait_s: float) -> None:
    """Return when every server has loaded its model; ServingError if one ends before, or does not in time."""
    begin = last = time.monotonic()
    loading = list(running)
    while True:
        for each in list(loading):
            if said := each.ended():
                raise ServingError(said)
            if is_healthy(each.server.url):
                loading.remove(each)
        if not loading:
            return
        now = time.monotonic()
        if now - begin > wait_s:
            first = loading[0].server
            raise ServingError(
                f"{first.name} did not answer within {wait_s:.0f} s. See {first.log}, or set a longer --wait-s."
            )
        if now - last > REPORT_S:
            last = now
            for each in loading:
                log.info("%s: loading for %.0f s: %s", each.server.name, now - begin, last_words(each.server.log))
        time.sleep(PAUSE_S)


def is_healthy(url: str) -> bool:
    """Whether ``/health`` answers 200: in vLLM, SGLang and llama.cpp once the model is loaded."""
    with suppress(OSError), DIRECT.open(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def last_words(log_path: Path) -> str:
    """The last line of a server's log, shortened."""
    return last_line(log_path)[:WIDTH] or "it printed nothing"
