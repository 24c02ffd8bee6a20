"""The embedded teacher: a small solver behind a real server, for machines without a key and without a network."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.lib.command import DistilleryError
from stages.lib.params import EmbeddedTeacher, Role, Run
from stages.lib.teacher.backends import Endpoint

REQUESTS_VARIABLE = "DISTILLERY_EMBEDDED_REQUESTS"  # names a file that gets the body of each request


@contextmanager
def connect(teacher: EmbeddedTeacher, run: Run, role: Role) -> Iterator[list[Endpoint]]:
    """Start the server, yield its address, then end it. It ends by itself if this process is killed.

    It needs no key and has one server, whatever its ``role``.
    """
    assert run.embedded  # params are valid
    command = [
        *(sys.executable, "-m", "stages.lib.teacher.backends.embedded.server"),
        *("--port", str(run.embedded.port), "--model", teacher.model),
        *("--slip-share", str(teacher.slip_share), "--seed", str(teacher.seed)),
        *("--latency-s", str(run.embedded.latency_s)),
        *("--faults", json.dumps(teacher.faults)),
    ]
    if os.environ.get(REQUESTS_VARIABLE):
        command += ["--requests", os.environ[REQUESTS_VARIABLE]]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C goes to the stage alone: the server still answers what is in flight
        ) as server,
    ):
        assert server.stdin and server.stdout
        port = server.stdout.readline().strip()
        if not port:
            server.wait()
            errors.seek(0)
            lines = errors.read().strip().splitlines()
            said = (lines[-1] if lines else "the embedded teacher did not start").removeprefix("Error: ")
            raise DistilleryError(said)
        try:
            yield [Endpoint(f"http://127.0.0.1:{port}/v1", api_key="embedded")]
        finally:
            server.stdin.close()


def identity(teacher: EmbeddedTeacher) -> str:
    """Identifies this teacher in the store's keys: all that shapes its answers, its source code included."""
    modules = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name != "__init__.py")
    source = b"".join(path.read_bytes() for path in modules)
    shape = json.dumps(teacher.model_dump(include={"slip_share", "seed", "faults"}), sort_keys=True)
    return f"embedded:{hashlib.sha256(source).hexdigest()[:12]}:{shape}"
