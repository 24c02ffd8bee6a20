"""Test whether locks work in a folder: one process takes two kinds of lock, and a second process must be refused.

    python -m stages.lib.doctor.locking FOLDER    # holds the locks until its standard input is closed

Some filesystems refuse locks (NFS without a lock daemon, Lustre mounted without ``flock``), some grant them to every
process, some enforce them only within one host. The answer store, DVC, training and SQLite depend on locks.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from stages.lib.doctor import Finding, fail, ok, warn

TIMEOUT_S = 10.0  # without a running lock daemon, a lock call hangs
KINDS = {"flock": fcntl.flock, "lockf": fcntl.lockf}  # the store uses both: of a file, and of a byte range
MOUNTS = Path("/proc/self/mounts")
# mount options of NFS, Lustre and CIFS with which locks work only within this host
ON_THIS_HOST = ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix", "localflock", "nobrl")


def locks(folders: dict[str, Path]) -> Iterator[Finding]:
    """A finding for each folder, by its purpose."""
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        yield finding(f"locks of {name}", there)


def finding(what: str, folder: Path) -> Finding:
    """Whether locks work in a folder."""
    move = "use a folder on a local disk, and leave a symbolic link in its place; or mount it with locks"
    try:
        with tempfile.TemporaryDirectory(prefix=".locks-", suffix=".tmp", dir=folder) as place:
            problem = lock_problem(Path(place))
    except OSError as error:
        return warn(what, f"{folder}: cannot be tested: {error.strerror}", "check its write permission")
    if problem:
        return fail(what, f"{folder}: {problem}", move)
    options = mount_options(folder)
    alone = sorted(set(ON_THIS_HOST) & set(options))
    if alone:
        found = f"{folder}: they work only within this host (mounted with {', '.join(alone)})"
        return warn(what, found, "use it from one host at a time, or mount it with locks")
    return ok(what, f"{folder}: a second process is refused")


def lock_problem(place: Path) -> str:
    """What is wrong with the locks; empty if they work."""
    command = [sys.executable, "-m", "stages.lib.doctor.locking", str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            said = first_line(first)
            return second(command) if said == in_words("held", "held") else said
        except subprocess.TimeoutExpired:
            return f"no result of a lock call within {TIMEOUT_S:g} s"
        finally:
            first.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """The output of the first process; TimeoutExpired if its lock call hangs."""
    import threading

    lines: list[str] = []
    assert process.stdout
    reading = threading.Thread(target=lambda out: lines.append(out.readline().strip()), args=(process.stdout,))
    reading.daemon = True
    reading.start()
    reading.join(TIMEOUT_S)
    if reading.is_alive():
        raise subprocess.TimeoutExpired(process.args, TIMEOUT_S)
    return lines[0]


def second(command: list[str]) -> str:
    """The problem if a second process is not refused while the first one holds the locks; empty otherwise."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False
    )
    said = done.stdout.strip()
    return "" if said == in_words("refused", "refused") else f"a second process was not refused ({said})"


def take(name: str, file: IO[str]) -> str:
    """``held``, ``refused``, or the error of the lock call. The lock is held until the file is closed."""
    try:
        KINDS[name](file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return "refused"
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "held"


def in_words(*states: str) -> str:
    """``flock: held, lockf: held``."""
    return ", ".join(f"{name}: {state}" for name, state in zip(KINDS, states, strict=True))


def mount_options(folder: Path) -> list[str]:
    """The mount options of the folder's filesystem; empty if this system does not list them."""
    try:
        lines = [line.split() for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []
    real = folder.resolve()
    above = [line for line in lines if len(line) > 3 and Path(line[1].replace("\\040", " ")) in (real, *real.parents)]
    return max(above, key=lambda line: len(line[1]))[3].split(",") if above else []


if __name__ == "__main__":
    files = [(Path(sys.argv[1]) / name).open("a") for name in KINDS]
    print(in_words(*map(take, KINDS, files)), flush=True)
    sys.stdin.read()
