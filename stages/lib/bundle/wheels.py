"""Download the lock's wheels for another machine with pip.

pip can download wheels of other platforms (``pip download --platform``), but it evaluates a requirement's condition,
such as ``platform_machine == "x86_64"``, for the machine that it runs on. So it runs here with the name and the Python
version of the other machine. A package without a wheel is built here where the result fits any machine. For others, the
bundle holds the source and what builds it, and a line names them.
"""

import json
import logging
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.command import DistilleryError

log = logging.getLogger("distillery.bundle")

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
DEFAULT_GLIBC = 28  # that of the oldest systems that current torch has wheels for
# glibc by the older names (peps.python.org/pep-0600)
ALIASES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
PIP_FOR_TARGET = """
import platform, runpy, sys
machine, python = sys.argv[1:3]
del sys.argv[1:3]
platform.machine = lambda: machine
platform.python_version_tuple = lambda: tuple(python.split(".") + ["0"])[:3]
platform.python_version = lambda: ".".join(platform.python_version_tuple())
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
PLACEHOLDER_BUILD = "0standin"  # the build number of a placeholder wheel
# pip's messages on a package without a wheel: as a requirement, and as a pin of the lock that nothing can meet
NO_WHEEL = re.compile(
    r"No matching distribution found for ([A-Za-z0-9][A-Za-z0-9._-]*)"
    r"|The user requested \(constraint\) ([A-Za-z0-9][A-Za-z0-9._-]*)"
)


class BundleError(DistilleryError):
    """The bundle cannot be made."""


@dataclass(frozen=True)
class Target:
    """The machine that the bundle is for: its architecture, its glibc 2.N and its Python ("3.11")."""

    machine: str
    glibc: int
    python: str

    @property
    def tags(self) -> list[str]:
        """The platform tags whose wheels run on that machine, the best first."""
        tags = []
        for minor in range(self.glibc, 4, -1):
            tags += [f"manylinux_2_{minor}_{self.machine}"]
            tags += [f"{ALIASES[minor]}_{self.machine}"] if minor in ALIASES else []
        return [*tags, f"linux_{self.machine}"]


def parse_target(name: str, python: str) -> Target:
    """``aarch64``, ``x86_64`` or a tag with a glibc: ``manylinux_2_34_aarch64``; BundleError on anything else."""
    found = re.fullmatch(r"(?:manylinux_2_(\d+)_|manylinux(2014)_|linux_)?(\w+)", name)
    if not found or found[3] not in MACHINES:
        raise BundleError(
            f"PLATFORM={name}: unknown platform. Name aarch64, x86_64, or one with its glibc: manylinux_2_34_aarch64"
        )
    glibc = int(found[1]) if found[1] else 17 if found[2] else DEFAULT_GLIBC
    return Target(MACHINES[found[3]], glibc, python)


def download(requirements: Path, lock: Path, apart: Sequence[str], target: Target, wheels: Path) -> None:
    """Download every wheel that the requirements need on that machine, at the lock's versions, into ``wheels``.

    ``apart`` are packages that are included without their dependencies. BundleError, with pip's reason, where a package
    does not exist for that platform.
    """
    wheels.mkdir(parents=True)
    pins = pinned(lock)
    _downloaded(["-r", str(requirements)], lock, pins, target, wheels)
    for name in apart:
        _downloaded(["--no-deps", name], lock, pins, target, wheels)


def pinned(lock: Path) -> dict[str, str]:
    """The lock's versions by normalised name (peps.python.org/pep-0503)."""
    pairs = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)", lock.read_text(), re.MULTILINE)
    return {normalised(name): version for name, version in pairs}


def normalised(name: str) -> str:
    """A package's name in the form that the index uses."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _downloaded(packages: list[str], lock: Path, pins: dict[str, str], target: Target, wheels: Path) -> None:
    tags = [argument for tag in target.tags for argument in ("--platform", tag)]
    command = ["download", "--dest", str(wheels), "--find-links", str(wheels), "--only-binary=:all:", *tags]
    command += ["--implementation", "cp", "--python-version", target.python, "-c", str(lock), *packages]
    built: set[str] = set()
    while True:
        log.info("bundle: wheels for %s, glibc 2.%d, Python %s", target.machine, target.glibc, target.python)
        code, output = _pip(["-c", PIP_FOR_TARGET, target.machine, target.python, *command])
        if code == 0:
            return _remove_placeholders(wheels)
        missing = ({normalised(one or other) for one, other in NO_WHEEL.findall(output)} & pins.keys()) - built
        if not missing:
            raise BundleError(f"pip: {_complaint(output)}. No bundle was written.")
        if not built:  # pip names one at a time, and resolves everything again for each
            missing |= _without_wheels(packages, lock, wheels / ".report") & pins.keys()
        for name in sorted(missing):
            _build(name, pins[name], target, wheels)
        built |= missing


def _pip(arguments: list[str]) -> tuple[int, str]:
    """Run Python with pip; return its exit code and its output, which is also copied to stderr line by line."""
    output = []
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            output.append(line)
            sys.stderr.write(line)
    return process.returncode, "".join(output)


def _without_wheels(packages: list[str], lock: Path, report: Path) -> set[str]:
    """The packages that this machine would build from their sources; none where pip fails."""
    command = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    code, _ = _pip(["-m", "pip", *command, "-c", str(lock), *packages])
    if code:
        return set()
    found = json.loads(report.read_bytes())["install"]
    report.unlink()
    return {normalised(each["metadata"]["name"]) for each in found if not _url(each).endswith(".whl")}


def _url(reported: dict[str, Any]) -> str:
    return str(reported["download_info"]["url"])


def _complaint(output: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    return "; ".join(errors) or "no error message"


def _build(name: str, version: str, target: Target, wheels: Path) -> None:
    """Build a wheel from source, or add the source where the wheel fits this machine alone; BundleError on failure."""
    log.info("bundle: %s %s has no wheel for that machine: building one from its source", name, version)
    built = wheels / ".built"
    code, output = _pip(["-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(built), f"{name}=={version}"])
    try:
        wheel = next(iter(built.glob("*.whl")), None)
        if code or wheel is None:
            raise BundleError(
                f"{name} {version} has no wheel for {target.machine} and cannot be built here "
                f"({_complaint(output)}). Put a wheel of it where pip finds it (PIP_FIND_LINKS)."
            )
        if wheel.name.endswith("-none-any.whl") or _is_here(target):
            wheel.replace(wheels / wheel.name)
        else:
            _add_source(name, version, target, wheels, wheel)
    finally:
        shutil.rmtree(built, ignore_errors=True)


def _add_source(name: str, version: str, target: Target, wheels: Path, wheel: Path) -> None:
    """Add the package's source, to be built on the other machine, and a placeholder wheel.

    The placeholder is the wheel of this machine under the other one's name. pip accepts no sources for another
    platform, and reads the package's requirements from the placeholder. It is removed when pip is done
    (``_remove_placeholders``).
    """
    log.warning(
        "bundle: %s %s: the bundle has its source, and building it there needs a C compiler and Python's headers",
        name,
        version,
    )
    for packages in (["--no-binary=:all:", f"{name}=={version}"], ["--only-binary=:all:", "setuptools", "wheel"]):
        code, output = _pip(["-m", "pip", "download", "--no-deps", "--dest", str(wheels), *packages])
        if code:
            raise BundleError(
                f"{name} {version}: its source cannot be downloaded ({_complaint(output)}). No bundle was written."
            )
    python = f"cp{target.python.replace('.', '')}"
    distribution, number = wheel.name.split("-")[:2]
    wheel.replace(wheels / f"{distribution}-{number}-{PLACEHOLDER_BUILD}-{python}-{python}-linux_{target.machine}.whl")


def _remove_placeholders(wheels: Path) -> None:
    for placeholder in wheels.glob(f"*-{PLACEHOLDER_BUILD}-*.whl"):
        placeholder.unlink()


def _is_here(target: Target) -> bool:
    return (target.machine, target.python) == (platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}")
