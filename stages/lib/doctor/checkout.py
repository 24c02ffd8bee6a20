"""The git repository that DVC and ``dvc metrics diff`` work in: a copy without one (a ZIP, an image) has no history.

python -m stages.lib.doctor.checkout    # one line and exit code 1 where it is missing; 'make demo' begins with it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from stages.lib.doctor import FAIL, Finding, fail, last_line, ok, output_of, warn

ROOT = Path(__file__).resolve().parents[3]
MAKE_ONE = "git init && git add -A && git commit -m 'As it came'"


def repository() -> Iterator[Finding]:
    """A git repository of its own, with a commit in it."""
    code, said = git("rev-parse", "--show-toplevel")
    if code is None:
        yield fail("git", f"it cannot be started ({said})", "install git")
    elif code and not any((folder / ".git").exists() for folder in (ROOT, *ROOT.parents)):
        yield fail("git", f"{ROOT} is a copy without .git, and DVC needs one", f"git clone it instead, or: {MAKE_ONE}")
    elif code:  # such as a folder of another user's ('dubious ownership'): git says what to type
        yield fail("git", f"git refuses {ROOT}: {' '.join(said.split())[:200]}", "do as git says, or clone it again")
    elif Path(said.strip()).resolve() != ROOT:
        found = f"{ROOT} has no .git of its own, but lies in the repository {said.strip()}"
        yield warn("git", found, f"git clone it instead, or: {MAKE_ONE}")
    elif git("rev-parse", "--verify", "HEAD")[0]:
        yield warn("git", "no commit yet, so nothing can be compared", "git add -A && git commit -m 'As it came'")
    else:
        yield ok("git", f"{last_line(git('--version')[1])}, a repository of its own")


def git(*arguments: str) -> tuple[int | None, str]:
    """A git command in the project's folder."""
    return output_of(["git", "-C", str(ROOT), *arguments], 10)


def main() -> int:
    """Say what is missing, before anything is installed."""
    (finding,) = repository()
    if finding.state == FAIL:
        sys.stderr.write(f"Error: {finding.found}. {finding.fix[0].upper()}{finding.fix[1:]}\n")
    return int(finding.state == FAIL)


if __name__ == "__main__":
    sys.exit(main())
