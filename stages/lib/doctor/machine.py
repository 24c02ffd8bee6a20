"""Check Python and the environment, which all other checks need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from stages.lib.doctor import Finding, fail, ok, warn

OLDEST = (3, 11)
LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"
# packages that stages import, by their names in the lock
PACKAGES = (
    "click",
    "pydantic",
    "ruamel.yaml",
    "dvc",
    "torch",
    "transformers",
    "trl",
    "lm-eval",
    "openai",
    "modelscope",
)


def python() -> Iterator[Finding]:
    """Python 3.11 or newer."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST:
        yield fail("python", f"{version} ({sys.executable}), older than 3.11", "make setup PYTHON=python3.11")
    else:
        yield ok("python", f"{version} ({sys.executable})")


def environment() -> Iterator[Finding]:
    """The packages that the stages import, in the versions of the lock."""
    locked, missing, other = locked_versions(), [], []
    for name in PACKAGES:
        version = installed(name)
        if version is None:
            missing.append(name)
        elif version.partition("+")[0] != locked.get(name, version):  # +cpu: the same torch for another machine
            other.append(f"{name} {version} (lock: {locked[name]})")
    if missing:
        yield fail("environment", f"not installed: {', '.join(missing)}", "make setup")
    elif other:
        yield warn("environment", f"not as in requirements.lock: {', '.join(other)}", "rm -r .venv && make setup")
    else:
        yield ok("environment", f"torch {installed('torch')}, transformers {installed('transformers')}, as locked")


def installed(name: str) -> str | None:
    """A package's version, without importing it."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def locked_versions() -> dict[str, str]:
    """``{"torch": "2.13.0"}`` from requirements.lock."""
    lines = [line.strip().partition("==") for line in LOCK.read_text(encoding="utf-8").splitlines()]
    return {name: version for name, found, version in lines if found}
