"""Whether locks work in a folder: one process takes two kinds of lock there, a second one must be refused them.

    python -m stages.lib.doctor.locking FOLDER    # holds the locks until its standard input is closed

Some filesystems refuse locks (NFS without a lock daemon, Lustre mounted without ``flock``), some grant them to
everybody, some keep them within one host. The store of received answers, DVC, a training and SQLite all rest on them.
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

ANSWERS_S = 10.0  # a lock daemon that is down lets a lock call hang
KINDS = {"flock": fcntl.flock, "lockf": fcntl.lockf}  # the store's two: of a file, and of a byte of it
MOUNTS = Path("/proc/self/mounts")
# mount options under which locks are kept, but no other host sees them: of NFS, Lustre and CIFS
ON_THIS_HOST = ("nolock", "local_lock=all", "local_lock=flock", "local_lock=posix", "localflock", "nobrl")


def locks(folders: dict[str, Path]) -> Iterator[Finding]:
    """A finding for each folder, by what it is for."""
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        yield finding(f"locks of {name}", there)


def finding(what: str, folder: Path) -> Finding:
    """Whether the locks of a folder hold."""
    move = "use a folder on a local disk, and leave a symbolic link in its place; or mount it with locks"
    try:
        with tempfile.TemporaryDirectory(prefix=".locks-", suffix=".tmp", dir=folder) as place:
            trouble = troubles(Path(place))
    except OSError as error:
        return warn(what, f"{folder}: cannot be tried: {error.strerror}", "see that you may write there")
    if trouble:
        return fail(what, f"{folder}: {trouble}", move)
    options = mount_options(folder)
    alone = sorted(set(ON_THIS_HOST) & set(options))
    if alone:
        found = f"{folder}: they hold on this host alone (mounted with {', '.join(alone)})"
        return warn(what, found, "let one host at a time work there, or mount it with locks")
    return ok(what, f"{folder}: a second process is held off")


def troubles(place: Path) -> str:
    """What went wrong, or nothing."""
    command = [sys.executable, "-m", "stages.lib.doctor.locking", str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            said = first_line(first)
            return second(command) if said == in_words("held", "held") else said
        except subprocess.TimeoutExpired:
            return f"no answer to a lock within {ANSWERS_S:g} s"
        finally:
            first.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """What the first process says; TimeoutExpired where its lock hangs."""
    import threading

    lines: list[str] = []
    assert process.stdout
    reading = threading.Thread(target=lambda out: lines.append(out.readline().strip()), args=(process.stdout,))
    reading.daemon = True
    reading.start()
    reading.join(ANSWERS_S)
    if reading.is_alive():
        raise subprocess.TimeoutExpired(process.args, ANSWERS_S)
    return lines[0]


def second(command: list[str]) -> str:
    """What a second process gets while the first one holds the locks: it must be refused."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=ANSWERS_S, check=False
    )
    said = done.stdout.strip()
    return "" if said == in_words("refused", "refused") else f"a second process was not held off ({said})"


def take(name: str, file: IO[str]) -> str:
    """``held``, ``refused``, or why the lock cannot be had; the file holds it for as long as it is open."""
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
    """The options that the folder's filesystem is mounted with; none where this system does not say."""
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
