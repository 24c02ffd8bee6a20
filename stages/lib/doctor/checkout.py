"""Check the git repository, which DVC and ``dvc metrics diff`` need. A ZIP or an image has no history.

python -m stages.lib.doctor.checkout    # one line and exit code 1 if it is missing; 'make demo' runs it first
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from stages.lib.doctor import FAIL, Finding, fail, last_line, ok, output_of, warn

ROOT = Path(__file__).resolve().parents[3]
MAKE_ONE = "git init && git add -A && git commit -m 'Initial commit'"


def repository() -> Iterator[Finding]:
    """Check that the project is a git repository with a commit."""
    code, said = git("rev-parse", "--show-toplevel")
    if code is None:
        yield fail("git", f"it cannot be started ({said})", "install git")
    elif code and not any((folder / ".git").exists() for folder in (ROOT, *ROOT.parents)):
        yield fail("git", f"{ROOT} is a copy without .git, and DVC needs one", f"git clone it instead, or: {MAKE_ONE}")
    elif code:  # such as a folder of another user ('dubious ownership'): git's message has the fix
        yield fail("git", f"git refuses {ROOT}: {' '.join(said.split())[:200]}", "do as git says, or clone it again")
    elif Path(said.strip()).resolve() != ROOT:
        found = f"{ROOT} has no .git, but is inside the repository {said.strip()}"
        yield warn("git", found, f"git clone it instead, or: {MAKE_ONE}")
    elif git("rev-parse", "--verify", "HEAD")[0]:
        yield warn("git", "no commit yet, so nothing can be compared", "git add -A && git commit -m 'Initial commit'")
    else:
        yield ok("git", f"{last_line(git('--version')[1])}, a repository with commits")


def git(*arguments: str) -> tuple[int | None, str]:
    """A git command in the project's folder."""
    return output_of(["git", "-C", str(ROOT), *arguments], 10)


def main() -> int:
    """Report a missing repository before anything is installed."""
    (finding,) = repository()
    if finding.state == FAIL:
        sys.stderr.write(f"Error: {finding.found}. {finding.fix[0].upper()}{finding.fix[1:]}\n")
    return int(finding.state == FAIL)


if __name__ == "__main__":
    sys.exit(main())
