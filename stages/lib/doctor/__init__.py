"""What a check of this machine says: ``python -m stages.lib.doctor`` prints one line for each finding.

    ok    python       3.11.7
    fail  cann         not sourced           source /usr/local/Ascend/ascend-toolkit/set_env.sh

Until the environment is known to be there, nothing but Python's own library is imported, and no newer Python than
3.7 is taken for granted: the doctor must speak on a machine where nothing is set up.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line: ok, warn or fail; what was looked at; what was found; the command or the edit that fixes it."""

    state: str
    what: str
    found: str
    fix: str = ""


def ok(what: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(OK, what, found)


def warn(what: str, found: str, fix: str) -> Finding:
    """It may go wrong, or go otherwise than meant."""
    return Finding(WARN, what, found, fix)


def fail(what: str, found: str, fix: str) -> Finding:
    """The params in use cannot run so."""
    return Finding(FAIL, what, found, fix)


def guarded(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The check's findings; a check that breaks is a finding too, so that the others are still made."""
    try:
        yield from check()
    except Exception as error:  # whatever it is, it becomes a line of the table
        yield warn(what, f"this check broke: {type(error).__name__}: {error!s:.120}", "look at it by hand")


def table(findings: list[Finding]) -> str:
    """The findings in columns; what to do stands on a line of its own, so that long commands can be copied."""
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
    """Exit code and all output of a program; None for the code where it cannot be started or does not end."""
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
        return None, f"no end within {timeout_s:g} s"
    except OSError as error:
        return None, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def last_line(text: str) -> str:
    """The last line with something in it: of a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no output"
