"""Check this machine for the params in use (params.yaml), and report what would fail.

    make doctor
    python -m stages.lib.doctor --params params.yaml

Out, on stdout: one line for each finding, ok, warn or fail; the latter two with their fix. The exit code is 1 if one is
fail, else 0. Only what the profile needs is checked. Nothing is left on the disk: locks are tested on two empty files,
which are removed again. Nothing is downloaded: the only requests are a HEAD, with a timeout of 3 s, to each hub that
the profile downloads from, a greeting to the cluster of run.engine, and one row to the server that ``score`` names, if
its weights are here too.
"""

# only the standard library before the check of the environment; argparse, because click may not be installed
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
    """Print the table; return 1 if a finding is fail."""
    parser = argparse.ArgumentParser(prog="make doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the params in use")
    path = parser.parse_args(arguments).params
    findings = list(guarded("doctor", lambda: check_machine(path)))
    write(f"{table(findings)}\n\n{summary(findings)}\n")
    return int(any(finding.state == FAIL for finding in findings))


def write(text: str) -> None:
    """Print with any encoding of the terminal, and without an error if the reader stops (``make doctor | head``)."""
    data = text.encode(sys.stdout.encoding or "utf-8", "replace")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit


def check_machine(path: Path) -> Iterator[Finding]:
    """All findings; each check runs after those that it depends on."""
    basis = [*machine.python(), *guarded("environment", machine.environment)]
    yield from guarded("git", checkout.repository)
    yield from basis
    if any(finding.state == FAIL for finding in basis):
        yield warn("the rest", "not checked, because it needs the environment", "fix the above, then run 'make doctor'")
        return
    params, findings = profile(path)
    yield from findings
    if params:
        yield from check_profile(params)


def profile(path: Path) -> tuple[Params | None, list[Finding]]:
    """The params for the other checks, None if they are not valid, and the findings about them."""
    from stages.lib.params import ParamsError, load_params

    try:
        params = load_params(path)
    except (ParamsError, OSError) as error:
        return None, [fail("params", " ".join(str(error).split()), "fix it, then run 'make check'")]
    return params, [ok("params", f"{path}: valid")]


def check_profile(params: Params) -> Iterator[Finding]:
    """What this profile needs from the machine."""
    from stages.lib.doctor import accelerators, disk_and_memory, locking, needs, parity, trainers

    yield from guarded("disk", partial(disk_and_memory.disk, params))
    yield from guarded("locks", partial(locking.locks, disk_and_memory.locked_folders()))
    yield from guarded("memory", partial(disk_and_memory.memory, params))
    yield from guarded("device", partial(accelerators.device, params))
    yield from guarded("trainer", partial(trainers.program, params))
    yield from guarded("files", partial(needs.files, params))
    yield from guarded("cluster", partial(needs.cluster, params))
    yield from guarded("API key", partial(needs.keys, params))
    yield from guarded("downloads", partial(needs.downloads, params))
    yield from guarded("score", partial(parity.served_teacher, params))


if __name__ == "__main__":
    sys.exit(main())
