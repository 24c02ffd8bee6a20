"""What the stand-ins for hubs share: a server that notes what it is asked, and each protocol's form of an answer.

A test's own handler says which address gives what; the real clients are told of it by ``client_environment``.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

Files = Mapping[str, bytes]


class StandInHub(ThreadingHTTPServer):
    """A server on 127.0.0.1; ``asked`` are the paths of its requests."""

    daemon_threads = True

    def __init__(self, answers: type["HubAnswers"]) -> None:
        super().__init__(("127.0.0.1", 0), answers)
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubAnswers(BaseHTTPRequestHandler):
    """Whatever revision is asked for, it is the one commit there is."""

    server: StandInHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.answer()

    def answer(self) -> None:
        """Give what the path asks for, or 404."""
        raise NotImplementedError

    def give(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def tree(files: Files) -> bytes:
    """The files as the Hugging Face hub lists them."""
    rows = [{"type": "file", "path": name, "size": len(data), "oid": COMMIT} for name, data in files.items()]
    return json.dumps(rows).encode()


def card(name: str, files: Files) -> bytes:
    """A repository as the Hugging Face hub describes it."""
    return json.dumps({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}).encode()


def listing(files: Files) -> bytes:
    """The files as ModelScope lists them."""
    rows: list[dict[str, Any]] = [
        {
            "Name": name.rpartition("/")[2],
            "Path": name,
            "Type": "blob",
            "Size": len(data),
            "Sha256": hashlib.sha256(data).hexdigest(),
            "Revision": COMMIT,
        }
        for name, data in files.items()
    ]
    return json.dumps({"Code": 200, "Success": True, "Data": {"Files": rows}}).encode()


H = TypeVar("H", bound=StandInHub)


@contextmanager
def served(hub: H) -> Iterator[H]:
    """The hub, answering."""
    with hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


def client_environment(home: Path, address: str) -> dict[str, str]:
    """For a process of its own, since clients read their address once: the hub's, and a home without settings."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "MODELSCOPE_ENDPOINT": address,
    }
