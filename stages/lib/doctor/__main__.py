"""Check this machine for the params in use (params.yaml), and say what would go wrong.

    make doctor
    python -m stages.lib.doctor --params params.yaml

Out, on stdout: one line a finding, ok, warn or fail, each of the latter two with what fixes it. The exit code is 1
where one fails, else 0. Only what the profile needs is looked at. Nothing stays written (locks are tried on two empty
files, which are removed again) and nothing is downloaded; the only requests are a HEAD to each hub that something must
be fetched from, with 3 s for it.
"""

# Python's own library alone up to the environment's check: argparse, for click may not be installed
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.doctor import FAIL, Finding, checkout, fail, guarded, machine, ok, summary, table, warn

if TYPE_CHECKING:
    from stages.lib.params import Params


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where a finding is a fail."""
    parser = argparse.ArgumentParser(prog="make doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the params in use")
    path = parser.parse_args(arguments).params
    findings = list(guarded("doctor", lambda: look(path)))
    say(f"{table(findings)}\n\n{summary(findings)}\n")
    return int(any(finding.state == FAIL for finding in findings))


def say(text: str) -> None:
    """Print, whatever the terminal's encoding, and whether or not anybody reads on (``make doctor | head``)."""
    data = text.encode(sys.stdout.encoding or "utf-8", "replace")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


def look(path: Path) -> Iterator[Finding]:
    """Every finding, in the order of what stands on what."""
    basis = [*machine.python(), *guarded("environment", machine.environment)]
    yield from guarded("git", checkout.repository)
    yield from basis
    if any(finding.state == FAIL for finding in basis):
        yield warn("the rest", "not looked at, for it needs the environment", "fix the above, then 'make doctor'")
        return
    params, findings = profile(path)
    yield from findings
    if params:
        yield from look_for(params)


def profile(path: Path) -> tuple[Params | None, list[Finding]]:
    """The params that everything else is measured by, and what is to be said of them."""
    from stages.lib.params import ParamsError, load_params

    try:
        params = load_params(path)
    except (ParamsError, OSError) as error:
        return None, [fail("params", " ".join(str(error).split()), "'make check' repeats this when it is fixed")]
    return params, [ok("params", f"{path}: valid")]


def look_for(params: Params) -> Iterator[Finding]:
    """What this profile needs of the machine."""
    from stages.lib.doctor import accelerators, locking, needs, openmind, room

    yield from guarded("disk", partial(room.disk, params))
    yield from guarded("locks", partial(locking.locks, room.locked_folders()))
    yield from guarded("memory", partial(room.memory, params))
    yield from guarded("device", partial(accelerators.device, params))
    yield from guarded("openmind", partial(openmind.program, params))
    yield from guarded("files", partial(needs.files, params))
    yield from guarded("API key", partial(needs.keys, params))
    yield from guarded("downloads", partial(needs.downloads, params))


if __name__ == "__main__":
    sys.exit(main())
