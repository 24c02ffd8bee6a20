"""One process for each card: the stage starts itself again through ``accelerate launch``.

    run.processes: 8, run.device: npu
    → python -m accelerate.commands.launch --num_processes 8 … -m stages.evaluate --arm filtered …

lm-eval's ``hf`` then deals the questions out among them. It knows this for accelerators alone, so on a CPU one process
asks. This was never run: no machine with several cards was available.
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


def wants_several(params: Evaluate, run: Run) -> bool:
    """Whether this process is to start several instead of asking itself; vllm spreads a model by backend.args."""
    if params.backend.kind != "hf" or run.processes == 1 or "LOCAL_RANK" in os.environ:
        return False
    if run.device == "cpu":
        log.info("evaluate: run.processes: %d, but lm-eval asks with one process on a CPU", run.processes)
        return False
    return True


def launch(context: click.Context, stage: str, processes: int) -> None:
    """Run this very command of a stage in so many processes; EvaluationError where one of them fails."""
    done = subprocess.run(command(stage, processes, arguments(context)), check=False)
    if done.returncode:
        raise EvaluationError(
            f"accelerate launch: one of the {processes} processes failed (exit code {done.returncode}). "
            "What went wrong stands above; with run.processes: 1 it may be plainer."
        )


def command(stage: str, processes: int, words: Sequence[str]) -> list[str]:
    """The command line of the several processes."""
    settings = {"num_processes": processes, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *flags, "-m", f"stages.{stage}", *words]


def arguments(context: click.Context) -> list[str]:
    """The words that the command was called with, whoever called it."""
    words = []
    for param in context.command.params:
        value = context.params.get(param.name or "")
        if value is not None and param.opts[0] != "--help":
            words += [param.opts[0], str(value)]
    return words
