"""A student from Modelers (modelers.cn), by id and revision: with openmind_hub if that is installed, else with git.

With git-lfs, the repository is cloned without its weights. The weights are then downloaded and moved to their places,
and ``.git`` is removed, so that they are on the disk once. The folder is ``.cache/students/OWNER--NAME-REVISION``.
Later runs use it and send no request to Modelers. Remove it to get a branch's newer commit. OPENMIND_HUB_ENDPOINT names
a mirror.
"""

import importlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.params import PublishedStudent
from stages.lib.students import TOKENIZER_FILES, StudentError

log = logging.getLogger("distillery.students")

# what a repository contains in place of a file in git-lfs (github.com/git-lfs/git-lfs, docs/spec.md)
POINTER = re.compile(rb"\Aversion https://git-lfs\S*\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n")
POINTER_BYTES = 1024
OFFLINE_ADVICE = "Without a network, set kind: path and name a local folder."


def folder(student: PublishedStudent) -> Path:
    """The downloaded repository."""
    return _download(student, files=None)


def tokenizer_folder(student: PublishedStudent) -> Path:
    """A folder with only the tokenizer's files, or the complete repository if it is already here."""
    return _download(student, files=TOKENIZER_FILES)


def clone_folder(student: PublishedStudent) -> Path:
    """The folder for a clone of the student; it may not exist."""
    name = f"{student.name}-{student.revision or 'main'}".replace("/", "--")
    return project_root() / ".cache" / "students" / name


def _download(student: PublishedStudent, files: list[str] | None) -> Path:
    if clone_folder(student).is_dir():
        return clone_folder(student)
    if importlib.util.find_spec("openmind_hub"):
        return _with_openmind_hub(student, files)
    if not (shutil.which("git") and shutil.which("git-lfs")):
        raise StudentError(
            "train.student.kind: modelers needs git and git-lfs, or the package openmind_hub. Install git-lfs, or "
            "set kind: path and name a local folder."
        )
    return _with_git(student, files)


def _with_openmind_hub(student: PublishedStudent, files: list[str] | None) -> Path:
    try:
        client = importlib.import_module("openmind_hub")
        return Path(client.snapshot_download(student.name, revision=student.revision, allow_patterns=files))
    except Exception as error:  # the client raises its own errors and those of requests
        raise _not_available(student, f"{type(error).__name__}: {error!s:.200}") from error


def _with_git(student: PublishedStudent, files: list[str] | None) -> Path:
    whole = clone_folder(student)
    out = whole if files is None else whole.with_name(f"{whole.name}-tokenizer")
    if out.is_dir():
        return out
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _clone(student, unfinished)
        _download_files(student, unfinished, files)
        shutil.rmtree(unfinished / ".git")
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _clone(student: PublishedStudent, out: Path) -> None:
    """Clone the repository at the student's revision, with pointers in place of the files in git-lfs."""
    endpoint = (os.environ.get("OPENMIND_HUB_ENDPOINT") or "https://modelers.cn").rstrip("/")
    log.info("students: cloning %s/%s", endpoint, student.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    _git(student, "clone", "--quiet", f"{endpoint}/{student.name}.git", str(out))
    if student.revision:
        _git(student, "-C", str(out), "checkout", "--quiet", "--detach", student.revision)
    log.info("students: commit %s", _git(student, "-C", str(out), "rev-parse", "HEAD").strip())


def _download_files(student: PublishedStudent, out: Path, files: list[str] | None) -> None:
    """Replace the pointers by their files. Pointers to unwanted files are removed, so that none is read as a file."""
    pointers = {path: oid for path in sorted(out.rglob("*")) if (oid := _pointer(path))}
    wanted = {path for path in pointers if files is None or any(fnmatch(path.name, name) for name in files)}
    if wanted:
        names = ",".join(path.relative_to(out).as_posix() for path in sorted(wanted))
        _git(student, "-C", str(out), "lfs", "fetch", "--include", names, "origin", "HEAD")
    for path, oid in pointers.items():
        if path not in wanted:
            path.unlink()
            continue
        stored = out / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        if not stored.is_file():
            raise _not_available(student, f"git-lfs: no {path.name}")
        stored.replace(path)  # moved, not copied: it may be 15 GB


def _pointer(path: Path) -> str | None:
    """The hash in a git-lfs pointer; None if the file is not a pointer."""
    if ".git" in path.parts or not path.is_file() or path.stat().st_size > POINTER_BYTES:
        return None
    found = POINTER.match(path.read_bytes())
    return found[1].decode() if found else None


def _git(student: PublishedStudent, *arguments: str) -> str:
    environment = os.environ | {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(["git", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise _not_available(student, f"git: {said:.200}")
    return done.stdout


def _not_available(student: PublishedStudent, why: str) -> StudentError:
    return StudentError(
        f"train.student.name: '{student.name}' cannot be downloaded from Modelers ({why}). {OFFLINE_ADVICE}"
    )
