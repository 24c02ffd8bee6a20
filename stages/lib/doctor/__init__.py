"""The findings of a check of this machine: ``python -m stages.lib.doctor`` prints one line for each.

    ok    python       3.11.7
    fail  cann         not sourced           source /usr/local/Ascend/ascend-toolkit/set_env.sh

Before the check of the environment, only the standard library is imported, and the code runs on Python 3.7: the doctor
must work on a machine where nothing is set up.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line: ok, warn or fail; what was checked; what was found; the command or the edit that fixes it."""

    state: str
    what: str
    found: str
    fix: str = ""


def ok(what: str, found: str) -> Finding:
    """A finding that needs no action."""
    return Finding(OK, what, found)


def warn(what: str, found: str, fix: str) -> Finding:
    """A finding that may cause a failure or an unintended result."""
    return Finding(WARN, what, found, fix)


def fail(what: str, found: str, fix: str) -> Finding:
    """A finding with which the params in use cannot run."""
    return Finding(FAIL, what, found, fix)


def guarded(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. An exception in it is a finding too, so that the other checks still run."""
    try:
        yield from check()
    except Exception as error:  # any exception becomes a line of the table
        yield warn(what, f"this check failed: {type(error).__name__}: {error!s:.120}", "check it by hand")


def table(findings: list[Finding]) -> str:
    """The findings in columns. The fix is on a separate line, so that long commands can be copied."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<4}  {finding.what:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':<4}  {'':<{width}}  → {finding.fix}")
    return "\n".join(lines)


def summary(findings: list[Finding]) -> str:
    """``12 ok, 1 warn, 0 fail``."""
    states = [finding.state for finding in findings]
    return ", ".join(f"{states.count(state)} {state}" for state in (OK, WARN, FAIL))


def output_of(
    command: list[str], timeout_s: float, environment: dict[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit code and output of a program; the code is None if it cannot be started or does not end in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"it did not end within {timeout_s:g} s"
    except OSError as error:
        return None, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def last_line(text: str) -> str:
    """The last line that is not empty; in a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no output"
