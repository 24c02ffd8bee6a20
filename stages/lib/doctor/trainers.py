"""Check a trainer's own environment: installed, the right release, runs, library versions in its ranges.

The ranges are those of openMind 1.0.0's own package metadata, extra ``pt`` (its pins of torch 2.1.0 and torch_npu
2.1.0.post8 are not checked: it trained with torch 2.13.0), those that LLaMA-Factory 0.9.5 checks when it starts, and
those of ms-swift 4.6.0's package metadata.
"""

from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet

from stages.lib.command import DistilleryError
from stages.lib.doctor import Finding, fail, last_line, ok, output_of, warn
from stages.lib.doctor.environment import Environment, inspect_environment
from stages.lib.params import ExternalTrainer, LlamaFactory, OpenMind, Params, Swift
from stages.lib.training.external import Program

RANGES = {
    "openmind": {
        "transformers": ">=4.39.2,<=4.45.2",
        "accelerate": ">=0.28.0,<=1.0.0rc1",
        "datasets": ">=2.18.0,<=2.21.0",
        "deepspeed": ">=0.12.6,<=0.15.4",
        "peft": ">=0.12.0,<=0.14.0",
    },
    "llamafactory": {
        "transformers": ">=4.55.0,<=5.6.0",
        "accelerate": ">=1.3.0,<=1.15.0",
        "datasets": ">=2.16.0,<=4.0.0",
        "deepspeed": ">=0.10.0,<=0.18.4",
        "peft": ">=0.18.0,<=0.20.0",
        "trl": ">=0.18.0,<=0.24.0",
    },
    "swift": {
        "transformers": ">=4.33,<5.20.0",
        "datasets": ">=4.0,<4.8.5",
        "peft": ">=0.11,<0.21",
        "trl": ">=0.15,<1.0",
    },
}
RELEASES = {"openmind": "1.0.0", "llamafactory": "0.9.5", "swift": "4.6.0"}  # of which these are the ranges
RUN_S = 120


def program(params: Params) -> Iterator[Finding]:
    """For a trainer that has its own environment, check its program and that environment."""
    trainer = params.train.trainer
    if not isinstance(trainer, ExternalTrainer):
        return
    try:
        own = checked(trainer)
        command = own.command_line(trainer, Path("train.yaml"))
    except DistilleryError as error:
        found, _, fix = str(error).partition(". ")
        yield fail(trainer.kind, found, fix)
        return
    yield runs(own, command)
    python = Path(command[0]).with_name("python")
    if python.is_file():
        yield from environment(own, inspect_environment(str(python)), params)
    else:
        found = f"no python beside {command[0]}, so its versions were not read"
        yield warn(f"{own.kind} env", found, " ".join([command[0], *own.checks]))


def checked(trainer: OpenMind | LlamaFactory | Swift) -> Program:
    """The trainer's program; DistilleryError if it is not installed or has another release than params name."""
    from stages.lib.trainers import llamafactory, openmind, swift

    if isinstance(trainer, OpenMind):
        openmind.find_openmind(trainer)
        return openmind.PROGRAM
    return llamafactory.PROGRAM if isinstance(trainer, LlamaFactory) else swift.PROGRAM


def runs(own: Program, command: list[str]) -> Finding:
    """Run a command of it that trains nothing. A command with arguments of its own is not run."""
    if command[1:] != [own.starts, "train.yaml"]:
        return warn(own.kind, f"{' '.join(command)}: not run", "try it with a YAML of .cache/training")
    check = [command[0], *own.checks]
    code, text = output_of(check, RUN_S)
    if code == 0:
        return ok(own.kind, f"{command[0]} runs")
    said = " ".join(check)
    return fail(own.kind, f"'{said}': {last_line(text)} (exit code {code})", f"run {said}, or make {own.kind}-env")


def environment(own: Program, there: Environment, params: Params) -> Iterator[Finding]:
    """Check the versions beside the program, and torch_npu if the device is an NPU."""
    from stages.lib.doctor import ascend

    ranges, name, make = RANGES[own.kind], f"{own.kind} env", f"make {own.kind}-env"
    release = there.versions.get(own.package, "from a checkout")
    named = ("torch", "transformers", "deepspeed")
    found = f"{own.name} {release}, " + ", ".join(f"{each} {there.versions.get(each, '(none)')}" for each in named)
    outside = out_of_range(there.versions, ranges) if release == RELEASES[own.kind] else []
    if there.torch_error:
        yield fail(name, there.torch_error[:160], f"source CANN's set_env.sh, or run {make} again")
    elif params.train.deepspeed and "deepspeed" not in there.versions:
        yield fail(name, found, f"{there.python} -m pip install 'deepspeed{ranges.get('deepspeed', '')}'")
    elif outside:
        yield warn(name, f"{found}; outside the release's ranges: {', '.join(outside)}", make)
    else:
        yield ok(name, found)
    if params.run.device.startswith("npu"):
        yield from ascend.torch_npu(f"{own.kind} torch_npu", there)


def out_of_range(versions: dict[str, str], ranges: dict[str, str]) -> list[str]:
    """``["peft 0.21.2 (>=0.12.0,<=0.14.0)"]``."""
    pairs = [(name, versions[name], SpecifierSet(asked)) for name, asked in ranges.items() if name in versions]
    return [f"{name} {version} ({ranges[name]})" for name, version, fits in pairs if not fits.contains(version, True)]
