"""Run one process for each card: the stage restarts itself through ``accelerate launch``.

    run.processes: 8, run.device: npu
    → python -m accelerate.commands.launch --num_processes 8 … -m stages.evaluate --arm filtered …

lm-eval's ``hf`` then splits the questions among them. It supports this only on accelerators, so a CPU has one process.
This was never run: no machine with several cards was available.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence

import click

from stages.lib.evaluation import EvaluationError
from stages.lib.params import Evaluate, Run

log = logging.getLogger("distillery.evaluate")


def needs_several_processes(params: Evaluate, run: Run) -> bool:
    """Whether this process starts several processes instead of evaluating itself; vllm uses backend.args for that."""
    if params.backend.kind != "hf" or run.processes == 1 or "LOCAL_RANK" in os.environ:
        return False
    if run.device == "cpu":
        log.info("evaluate: run.processes: %d, but lm-eval runs one process on a CPU", run.processes)
        return False
    return True


def launch(context: click.Context, stage: str, processes: int) -> None:
    """Run this command of a stage in that many processes; EvaluationError if one of them fails."""
    done = subprocess.run(command(stage, processes, arguments(context)), check=False)
    if done.returncode:
        raise EvaluationError(
            f"accelerate launch: one of the {processes} processes failed (exit code {done.returncode}). "
            "See its error above, or set run.processes: 1 for a shorter log."
        )


def command(stage: str, processes: int, words: Sequence[str]) -> list[str]:
    """The command line that starts all processes."""
    settings = {"num_processes": processes, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
    settings["main_process_port"] = 0  # any free one: another arm may be evaluated on other cards
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *flags, "-m", f"stages.{stage}", *words]


def arguments(context: click.Context) -> list[str]:
    """The arguments that the command was called with."""
    words = []
    for param in context.command.params:
        value = context.params.get(param.name or "")
        if value is not None and param.opts[0] != "--help":
            words += [param.opts[0], str(value)]
    return words
