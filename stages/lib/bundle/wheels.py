"""The lock's wheels for another machine, by pip itself.

pip takes wheels of other platforms (``pip download --platform``), but weighs a requirement's condition, such as
``platform_machine == "x86_64"``, by the machine that it runs on. So it runs here with the other machine's name and
Python's version in the place of this one's. A package without a wheel is built here where the result fits any machine;
of the others the source goes along, with what builds it, and they are named.
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
DEFAULT_GLIBC = 28  # that of the oldest systems for which today's torch has wheels
# glibc by the older names (peps.python.org/pep-0600)
ALIASES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
AS_ELSEWHERE = """
import platform, runpy, sys
machine, python = sys.argv[1:3]
del sys.argv[1:3]
platform.machine = lambda: machine
platform.python_version_tuple = lambda: tuple(python.split(".") + ["0"])[:3]
platform.python_version = lambda: ".".join(platform.python_version_tuple())
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
STAND_IN = "0standin"  # a wheel's build number
# what pip says of a package without a wheel: as a requirement, and as a pin of the lock that nothing can meet
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
        """The platform tags whose wheels run there, the best first."""
        tags = []
        for minor in range(self.glibc, 4, -1):
            tags += [f"manylinux_2_{minor}_{self.machine}"]
            tags += [f"{ALIASES[minor]}_{self.machine}"] if minor in ALIASES else []
        return [*tags, f"linux_{self.machine}"]


def target(name: str, python: str) -> Target:
    """``aarch64``, ``x86_64`` or a tag with a glibc: ``manylinux_2_34_aarch64``; BundleError on anything else."""
    found = re.fullmatch(r"(?:manylinux_2_(\d+)_|manylinux(2014)_|linux_)?(\w+)", name)
    if not found or found[3] not in MACHINES:
        raise BundleError(
            f"PLATFORM={name}: no platform known here. "
            "Name aarch64, x86_64, or one with its glibc: manylinux_2_34_aarch64"
        )
    glibc = int(found[1]) if found[1] else 17 if found[2] else DEFAULT_GLIBC
    return Target(MACHINES[found[3]], glibc, python)


def download(requirements: Path, lock: Path, apart: Sequence[str], there: Target, wheels: Path) -> None:
    """Every wheel that the requirements need there, at the lock's versions, into ``wheels``.

    ``apart`` are packages that are taken without their dependencies. BundleError, with pip's reason, where a package
    cannot be had for that platform.
    """
    wheels.mkdir(parents=True)
    pins = pinned(lock)
    _downloaded(["-r", str(requirements)], lock, pins, there, wheels)
    for name in apart:
        _downloaded(["--no-deps", name], lock, pins, there, wheels)


def pinned(lock: Path) -> dict[str, str]:
    """The lock's versions by normalised name (peps.python.org/pep-0503)."""
    pairs = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)", lock.read_text(), re.MULTILINE)
    return {normalised(name): version for name, version in pairs}


def normalised(name: str) -> str:
    """A package's name as the index knows it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _downloaded(wanted: list[str], lock: Path, pins: dict[str, str], there: Target, wheels: Path) -> None:
    tags = [argument for tag in there.tags for argument in ("--platform", tag)]
    command = ["download", "--dest", str(wheels), "--find-links", str(wheels), "--only-binary=:all:", *tags]
    command += ["--implementation", "cp", "--python-version", there.python, "-c", str(lock), *wanted]
    built: set[str] = set()
    while True:
        log.info("bundle: wheels for %s, glibc 2.%d, Python %s", there.machine, there.glibc, there.python)
        code, said = _pip(["-c", AS_ELSEWHERE, there.machine, there.python, *command])
        if code == 0:
            return _put_sources_in_place(wheels)
        missing = ({normalised(one or other) for one, other in NO_WHEEL.findall(said)} & pins.keys()) - built
        if not missing:
            raise BundleError(f"pip: {_complaint(said)}. No bundle was written.")
        if not built:  # pip names one at a time, and weighs everything anew for each
            missing |= _without_wheels(wanted, lock, wheels / ".report") & pins.keys()
        for name in sorted(missing):
            _build(name, pins[name], there, wheels)
        built |= missing


def _pip(arguments: list[str]) -> tuple[int, str]:
    """Run Python with pip: its exit code and what it said, which goes to stderr line by line as it comes."""
    said = []
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said.append(line)
            sys.stderr.write(line)
    return process.returncode, "".join(said)


def _without_wheels(wanted: list[str], lock: Path, report: Path) -> set[str]:
    """The packages that this machine would build from their sources; none where pip cannot say."""
    command = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    code, _ = _pip(["-m", "pip", *command, "-c", str(lock), *wanted])
    if code:
        return set()
    found = json.loads(report.read_bytes())["install"]
    report.unlink()
    return {normalised(each["metadata"]["name"]) for each in found if not _url(each).endswith(".whl")}


def _url(reported: dict[str, Any]) -> str:
    return str(reported["download_info"]["url"])


def _complaint(said: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return "; ".join(errors) or "it ended without a word"


def _build(name: str, version: str, there: Target, wheels: Path) -> None:
    """A wheel of a package that has none, built from its source; BundleError where it would fit this machine alone."""
    log.info("bundle: %s %s has no wheel for there: building one from its source", name, version)
    room = wheels / ".built"
    code, said = _pip(["-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(room), f"{name}=={version}"])
    try:
        wheel = next(iter(room.glob("*.whl")), None)
        if code or wheel is None:
            raise BundleError(
                f"{name} {version} has no wheel for {there.machine} and cannot be built here "
                f"({_complaint(said)}). Lay a wheel of it where pip finds it (PIP_FIND_LINKS)."
            )
        if wheel.name.endswith("-none-any.whl") or _is_here(there):
            wheel.replace(wheels / wheel.name)
        else:
            _carry_source(name, version, there, wheels, wheel)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _carry_source(name: str, version: str, there: Target, wheels: Path, wheel: Path) -> None:
    """The package's source, to be built over there, and the wheel of this machine under that one's name.

    pip, which takes no sources for another platform, finds the requirements of the package in it; it goes again when
    pip is done (``_put_sources_in_place``).
    """
    log.warning(
        "bundle: %s %s: its source goes along and is built there, which needs a C compiler and Python's headers",
        name,
        version,
    )
    for wanted in (["--no-binary=:all:", f"{name}=={version}"], ["--only-binary=:all:", "setuptools", "wheel"]):
        code, said = _pip(["-m", "pip", "download", "--no-deps", "--dest", str(wheels), *wanted])
        if code:
            raise BundleError(
                f"{name} {version}: its source cannot be had ({_complaint(said)}). No bundle was written."
            )
    python = f"cp{there.python.replace('.', '')}"
    distribution, number = wheel.name.split("-")[:2]
    wheel.replace(wheels / f"{distribution}-{number}-{STAND_IN}-{python}-{python}-linux_{there.machine}.whl")


def _put_sources_in_place(wheels: Path) -> None:
    for stand_in in wheels.glob(f"*-{STAND_IN}-*.whl"):
        stand_in.unlink()


def _is_here(there: Target) -> bool:
    return (there.machine, there.python) == (platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}")
