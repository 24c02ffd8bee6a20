"""Start the processes of a training and stop them when this process stops; read DeepSpeed's settings and a log's end.

launch(["torchrun", …], os.environ, Path(".cache/training/filtered.log"))    → the exit code; stderr shows its lines
last_lines(log)                                                              → "LOG ends: … | …", for an error message
"""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from stages.lib.command import project_root, stopping_on_signals
from stages.lib.training import TrainingError
from stages.lib.training.progress import is_for_the_log_alone

log = logging.getLogger("distillery.train")

LAST_LINES = 5  # of a log, in an error
GRACE_S = 30.0  # for torchrun to stop its workers
STOPPED = "train: stopped, with all its processes. Run 'dvc repro' to resume or restart it."


def deepspeed_file(name: str | None) -> str | None:
    """The path of DeepSpeed's settings file: in this project, or in OPENMIND_SRC, a checkout of openMind."""
    if name is None:
        return None
    folders = [project_root(), *([Path(os.environ["OPENMIND_SRC"])] if os.environ.get("OPENMIND_SRC") else [])]
    for folder in folders:
        if (folder / name).is_file():
            return str((folder / name).resolve())
    raise TrainingError(
        f"train.deepspeed: no file {name} in {' or '.join(map(str, folders))}. Name a "
        "file, such as profiles/deepspeed/ds_z2_config.json, or set OPENMIND_SRC to a checkout of openMind that has it."
    )


def zero_stage(path: str) -> int:
    """The ZeRO stage, which shards over the cards: 0 nothing, 1 moments, 2 gradients too, 3 weights too."""
    try:
        settings: dict[str, Any] = json.loads(Path(path).read_bytes())
        return int(settings.get("zero_optimization", {}).get("stage", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path}: not a DeepSpeed settings file ({error}). Fix it or name another one.") from error


def zero_of(name: str | None) -> int | None:
    """The ZeRO stage of the settings that ``train.deepspeed`` names; None without DeepSpeed."""
    settings = deepspeed_file(name)
    return zero_stage(settings) if settings else None


def launch(
    command: list[str],
    environment: Mapping[str, str],
    log_path: Path,
    cwd: Path | None = None,
    holds: tuple[int, ...] = (),
    beside: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
    follow: Callable[[str], None] = lambda _: None,
) -> int:
    """Run a command, with all output in the log; return its exit code.

    Its lines are on stderr too, but for the bars and dictionaries of its steps. ``holds``: descriptors to inherit.
    ``beside`` is entered with the process id while the command runs. ``follow`` is called with each line.
    """
    log.info("train: %s (log: %s)", shlex.join(command), log_path)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        log_path.open("wb", buffering=0) as file,
        subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=holds,
        ) as process,
        stopping_on_signals(STOPPED, lambda: _stop(process)),
        beside(process.pid),
    ):
        assert process.stdout is not None
        begun = b""
        while chunk := process.stdout.read1():  # type: ignore[attr-defined]  # a progress bar ends no line
            file.write(chunk)
            *lines, begun = re.split(rb"[\r\n]+", begun + chunk)
            _pass_on(lines, follow)
        _pass_on([begun], follow)
    return process.returncode


def _pass_on(lines: list[bytes], follow: Callable[[str], None]) -> None:
    for text in (line.decode(errors="replace") for line in lines if line.strip()):
        follow(text)
        if not is_for_the_log_alone(text):
            print(text, file=sys.stderr, flush=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop every worker, so that none keeps the cards busy."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def last_lines(log_path: Path) -> str:
    """The path of the log and its last lines, in one line."""
    parts = re.split(r"[\r\n]+", log_path.read_text(errors="replace"))
    lines = [line.strip() for line in parts if line.strip(" ^~")]  # a traceback underlines its lines
    return f"{log_path} ends: {' | '.join(lines[-LAST_LINES:]) or '(the log is empty)'}"
