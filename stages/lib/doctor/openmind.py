"""Check openMind in its own environment: installed, the right release, runs, library versions in its ranges.

The ranges are those of openMind 1.0.0's own package metadata, extra ``pt``
(its pins of torch 2.1.0 and torch_npu 2.1.0.post8 are not checked: it trained with torch 2.13.0).
"""

from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet

from stages.lib.command import DistilleryError
from stages.lib.doctor import Finding, fail, last_line, ok, output_of, warn
from stages.lib.doctor.environment import Environment, inspect_environment
from stages.lib.params import OpenMind, Params

RANGES = {
    "transformers": ">=4.39.2,<=4.45.2",
    "accelerate": ">=0.28.0,<=1.0.0rc1",
    "datasets": ">=2.18.0,<=2.21.0",
    "deepspeed": ">=0.12.6,<=0.15.4",
    "peft": ">=0.12.0,<=0.14.0",
}
RUN_S = 120


def program(params: Params) -> Iterator[Finding]:
    """For ``train.trainer.kind: openmind``, check the program and its environment."""
    from stages.lib.trainers.openmind import command_line

    trainer = params.train.trainer
    if not isinstance(trainer, OpenMind):
        return
    try:
        command = command_line(trainer, Path("train.yaml"))
    except DistilleryError as error:
        found, _, fix = str(error).partition(". ")
        yield fail("openmind", found, fix)
        return
    yield runs(command)
    python = Path(command[0]).with_name("python")
    if python.is_file():
        yield from environment(inspect_environment(str(python)), params, trainer.version)
    else:
        yield warn("openmind env", f"no python beside {command[0]}, so its versions were not read", f"{command[0]} env")


def runs(command: list[str]) -> Finding:
    """Run ``openmind-cli env``, which trains nothing. A command with arguments of its own is not run."""
    if command[1:] != ["train", "train.yaml"]:
        return warn("openmind", f"{' '.join(command)}: not run", "try it with a YAML of .cache/training")
    code, text = output_of([command[0], "env"], RUN_S)
    if code == 0:
        return ok("openmind", f"{command[0]} runs")
    return fail(
        "openmind",
        f"'{command[0]} env': {last_line(text)} (exit code {code})",
        f"run {command[0]} env, or make openmind-env",
    )


def environment(there: Environment, params: Params, version: str) -> Iterator[Finding]:
    """Check the versions beside the program, and torch_npu if the device is an NPU."""
    from stages.lib.doctor import ascend

    release = there.versions.get("openmind", "from a checkout")
    named = ("torch", "transformers", "deepspeed")
    found = f"openMind {release}, " + ", ".join(f"{name} {there.versions.get(name, '(none)')}" for name in named)
    outside = out_of_range(there.versions) if release == version else []
    if there.torch_error:
        yield fail("openmind env", there.torch_error[:160], "source CANN's set_env.sh, or run make openmind-env again")
    elif params.train.deepspeed and "deepspeed" not in there.versions:
        yield fail("openmind env", found, f"{there.python} -m pip install 'deepspeed{RANGES['deepspeed']}'")
    elif outside:
        yield warn("openmind env", f"{found}; outside the release's ranges: {', '.join(outside)}", "make openmind-env")
    else:
        yield ok("openmind env", found)
    if params.run.device.startswith("npu"):
        yield from ascend.torch_npu("openmind torch_npu", there)


def out_of_range(versions: dict[str, str]) -> list[str]:
    """``["peft 0.21.2 (>=0.12.0,<=0.14.0)"]``."""
    pairs = [(name, versions[name], SpecifierSet(asked)) for name, asked in RANGES.items() if name in versions]
    return [f"{name} {version} ({RANGES[name]})" for name, version, fits in pairs if not fits.contains(version, True)]
