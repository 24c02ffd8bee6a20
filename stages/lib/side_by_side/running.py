"""Run stages side by side, each as ``dvc repro --single-item STAGE`` in a process group of its own.

Each of these processes is DVC's own: it decides whether the stage is unchanged, restores a run from the run-cache,
removes old outputs, holds DVC's lock on the stage's files, and writes dvc.lock when the stage has ended well. Another
``dvc repro`` of the same stage is refused while it runs.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never

from tqdm import tqdm

from stages.lib.command import last_line, stopping_on_signals
from stages.lib.params import Run
from stages.lib.side_by_side.devices import Group, bind, environment

log = logging.getLogger("distillery.side_by_side")

LOGS = Path(".cache/side_by_side")  # in the project's folder, where this runs
PAUSE_S = 0.2  # between two looks at the processes
GRACE_S = 30.0  # for the stages to stop on Ctrl-C
STOPPED = "stopped, with all stages. Run the same command to resume or restart them."
WIDTH = 40  # of a log's last line
# what DVC prints, and the word for it
OUTCOMES = {"Running stage": "done", "is cached - skipping run": "restored from the run-cache"}


@dataclass(frozen=True)
class Started:
    """A process of DVC with the number of its slot, its log and its start."""

    process: subprocess.Popen[bytes]
    slot: int
    log: Path
    at: float

    @property
    def minutes(self) -> str:
        """The time since its start, such as ``3:07``."""
        seconds = int(time.monotonic() - self.at)
        return f"{seconds // 60}:{seconds % 60:02}"


def run_side_by_side(needs: Mapping[str, tuple[str, ...]], slots: list[Group], run: Run) -> dict[str, str]:
    """Run these stages, as many at once as there are slots; return those that did not end well, with the reason.

    A stage starts when those that it needs have ended well. A failed one stops only those that need it.
    """
    waiting, running, failed = dict(needs), dict[str, Started](), dict[str, str]()
    # the stages get Ctrl-C first, so that they can stop their own processes
    stop = partial(_stop, running)
    with stopping_on_signals(STOPPED, stop), _progress(len(needs)) as bar:
        while waiting or running:
            for name in [name for name, each in running.items() if each.process.poll() is not None]:
                if reason := _ended(name, running.pop(name)):
                    failed[name] = reason
                bar.update()
            for name in [name for name, needed in waiting.items() if set(needed) & set(failed)]:
                failed[name] = f"not run, because {next(each for each in waiting.pop(name) if each in failed)} failed"
                log.warning("%s: %s", name, failed[name])
                bar.update()
            _start_what_can(waiting, running, slots, run)
            bar.set_postfix_str(
                " | ".join(f"{name} {each.minutes} {last_line(each.log)[:WIDTH]}" for name, each in running.items())
            )
            time.sleep(PAUSE_S)
    return failed


def _start_what_can(
    waiting: dict[str, tuple[str, ...]], running: dict[str, Started], slots: list[Group], run: Run
) -> None:
    """Start stages in the free slots. Those whose needs neither wait nor run have all that they need."""
    for name, needed in list(waiting.items()):
        free = [number for number in range(len(slots)) if number not in {each.slot for each in running.values()}]
        if not free:
            return
        if not set(needed) & ({*waiting, *running} - {name}):
            del waiting[name]
            running[name] = _start(name, free[0], slots[free[0]], run)


def _start(name: str, slot: int, group: Group, run: Run) -> Started:
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{name}.log"
    own = environment(group, slot, run)
    with path.open("wb") as file:
        process = subprocess.Popen(
            # the lock is DVC's short one on dvc.lock, which another stage may hold while its weights are hashed
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name],
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    bind(process.pid, group, run)
    cards = "".join(f" {variable}={value}" for variable, value in own.items())
    log.info("%s: started%s (log: %s)", name, cards, path)
    return Started(process, slot, path, time.monotonic())


def _ended(name: str, each: Started) -> str:
    """The reason why a stage failed; empty if it ended well."""
    text = each.log.read_text(errors="replace")
    if each.process.returncode == 0:
        outcome = next((word for said, word in OUTCOMES.items() if said in text), "unchanged")
        log.info("%s: %s (%s)", name, outcome, each.minutes)
        return ""
    errors = [line.strip() for line in re.split(r"[\r\n]+", text) if line.startswith(("Error: ", "ERROR: "))]
    said = f": {errors[0].partition(': ')[2]}" if errors else f" with exit code {each.process.returncode}"
    reason = f"failed{said} (log: {each.log})"
    log.error("%s: %s", name, reason)
    return reason


def _progress(total: int) -> "tqdm[Never]":
    bar = "{n_fmt} of {total_fmt} stages, {elapsed}{postfix}"
    return tqdm(total=total, bar_format=bar, disable=not sys.stderr.isatty(), leave=False, dynamic_ncols=True)


def _stop(running: Mapping[str, Started]) -> None:
    processes = [each.process for each in running.values()]
    for number, grace_s in ((signal.SIGINT, GRACE_S), (signal.SIGTERM, GRACE_S), (signal.SIGKILL, 1.0)):
        _signal(processes, number)
        deadline = time.monotonic() + grace_s
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        if all(process.returncode is not None for process in processes):
            break
    _signal(processes, signal.SIGKILL)  # what they started and left behind


def _signal(processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
