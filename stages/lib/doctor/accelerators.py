"""The device of ``run.device``: the CPU, a CUDA card or an Ascend NPU, as seen by the stages' torch."""

import os
import sys
from collections.abc import Iterator

from stages.lib.doctor import Finding, ascend, fail, ok, warn
from stages.lib.doctor.environment import Environment, inspect_environment
from stages.lib.params import Params


def device(params: Params) -> Iterator[Finding]:
    """Check torch, and whether it finds ``run.device``."""
    kind, _, index = params.run.device.partition(":")
    here = inspect_environment(sys.executable)
    if here.torch_error:
        yield fail("torch", here.torch_error[:160], torch_fix(here, kind))
    if kind == "npu":
        yield from ascend.driver()
        yield from ascend.cann()
        yield from ascend.variables("RANK" if params.train.trainer.kind == "openmind" else "NODE_RANK")
        yield from ascend.torch_npu("torch_npu", here, int(index or 0) + cards_of_trl(params) - 1)
    elif kind == "cpu":
        yield cpu(params.run.threads, here)
    elif kind == "cuda":
        yield cuda(int(index or 0), cards_of_trl(params), here)
    else:
        yield warn("device", f"run.device: {params.run.device}: not checked", "none: cpu, cuda and npu are checked")


def torch_fix(here: Environment, kind: str) -> str:
    """The fix for a torch that cannot be imported."""
    if "torch-npu" not in here.versions:
        return "rm -r .venv && make setup"
    if kind == "npu":
        return ascend.source_command()
    return "export TORCH_DEVICE_BACKEND_AUTOLOAD=0 (or source CANN's set_env.sh): torch imports torch_npu automatically"


def cpu(threads: int, here: Environment) -> Finding:
    """The CPU, its threads, and cards that would not be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > cores:
        return warn("device", f"cpu, {cores} cores for {threads} threads", f"set run.threads: {cores}")
    idle = [f"{count} {kind}" for kind, count in (("cuda", here.cuda), ("npu", here.npu)) if count]
    return ok("device", f"cpu, {cores} cores" + (f"; not used: {', '.join(idle)}" if idle else ""))


def cards_of_trl(params: Params) -> int:
    """How many cards our own training takes; the other trainers count their own."""
    return params.run.processes if params.train.trainer.kind == "trl" else 1


def cuda(index: int, processes: int, here: Environment) -> Finding:
    """Check for ``processes`` CUDA cards, from number ``index`` on."""
    if here.cuda >= index + processes:
        return ok("device", f"cuda, {here.cuda} cards")
    if here.cuda > index:
        found = f"run.processes needs {processes} cards from cuda:{index} on, torch sees {here.cuda}"
        return fail("device", found, f"set run.processes: {here.cuda - index}; CUDA_VISIBLE_DEVICES hides cards")
    fix = "check nvidia-smi, and CUDA_VISIBLE_DEVICES, which hides cards; or set run.device: cpu"
    return fail("device", f"run.device needs cuda:{index}, torch sees {here.cuda} cards", fix)
