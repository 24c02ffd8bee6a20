"""The device of ``run.device``: the CPU, a CUDA card or an Ascend NPU, seen as the stages' torch sees it."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.lib.doctor import Finding, fail, last_line, ok, output_of, warn
from stages.lib.params import Params

PROBE = Path(__file__).with_name("probe.py")
PROBE_S = 120  # torch alone takes 3 s, ten times as long on a slow disk
PACKAGES = ("torch", "torch-npu", "transformers", "accelerate", "deepspeed", "peft", "datasets", "openmind")


@dataclass(frozen=True)
class Environment:
    """What probe.py says of one: versions by package, what failed, how many cards."""

    python: str
    versions: dict[str, str]
    torch_error: str = ""
    npu_error: str = ""
    cuda: int = 0
    npu: int = 0


def device(params: Params) -> Iterator[Finding]:
    """torch, and whether it finds ``run.device``."""
    from stages.lib.doctor import ascend

    kind, _, index = params.run.device.partition(":")
    here = look_into(sys.executable)
    if here.torch_error:
        yield fail("torch", here.torch_error[:160], torch_mend(here, kind))
    if kind == "npu":
        yield from ascend.driver()
        yield from ascend.cann()
        yield from ascend.variables()
        yield from ascend.torch_npu("torch_npu", here, int(index or 0) + cards_of_trl(params) - 1)
    elif kind == "cpu":
        yield cpu(params.run.threads, here)
    elif kind == "cuda":
        yield cuda(int(index or 0), cards_of_trl(params), here)
    else:
        yield warn("device", f"run.device: {params.run.device}: not looked at", "nothing: cpu, cuda and npu are known")


def look_into(python: str) -> Environment:
    """The environment of that program, asked in a process of its own."""
    code, text = output_of([python, "-c", PROBE.read_text(encoding="utf-8"), *PACKAGES], PROBE_S)
    if code != 0:
        return Environment(python, {}, torch_error=f"{python}: {last_line(text)} (exit code {code})")
    return Environment(python, **json.loads(text.strip().splitlines()[-1]))


def torch_mend(here: Environment, kind: str) -> str:
    """What mends a torch that cannot be imported."""
    from stages.lib.doctor import ascend

    if "torch-npu" not in here.versions:
        return "rm -r .venv && make setup"
    if kind == "npu":
        return ascend.source_command()
    return "export TORCH_DEVICE_BACKEND_AUTOLOAD=0 (or source CANN's set_env.sh): torch loads torch_npu by itself"


def cpu(threads: int, here: Environment) -> Finding:
    """The CPU, its threads, and cards that would lie idle."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > cores:
        return warn("device", f"cpu, {cores} cores for {threads} threads", f"set run.threads: {cores}")
    idle = [f"{count} {kind}" for kind, count in (("cuda", here.cuda), ("npu", here.npu)) if count]
    return ok("device", f"cpu, {cores} cores" + (f"; not used: {', '.join(idle)}" if idle else ""))


def cards_of_trl(params: Params) -> int:
    """How many cards our own training takes; openMind counts its own."""
    return params.run.processes if params.train.backend == "trl" else 1


def cuda(index: int, processes: int, here: Environment) -> Finding:
    """So many CUDA cards from that number on."""
    if here.cuda >= index + processes:
        return ok("device", f"cuda, {here.cuda} cards")
    if here.cuda > index:
        found = f"run.processes needs {processes} cards from cuda:{index} on, torch sees {here.cuda}"
        return fail("device", found, f"set run.processes: {here.cuda - index}; CUDA_VISIBLE_DEVICES hides cards")
    mend = "nvidia-smi shows whether the driver does; CUDA_VISIBLE_DEVICES hides cards; or set run.device: cpu"
    return fail("device", f"run.device needs cuda:{index}, torch sees {here.cuda} cards", mend)
