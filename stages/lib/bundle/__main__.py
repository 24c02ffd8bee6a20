"""Pack the project, with everything that a machine without a network lacks, into one file.

    python -m stages.lib.bundle --platform aarch64 --python-version 3.11 --out bundle.tar

In go the wheels of the lock for that platform, the repository with its history, data/eval_data, the student's folder
(a package's comes with the wheels), DVC's cache with its run-cache, and the store of received answers. What is not
there is left out and said. ``unbundle.py``, which lies in the file, lays it out on the other side.
"""

import hashlib
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from stages.lib.bundle import unbundle
from stages.lib.bundle.packing import files_in, pack
from stages.lib.bundle.wheels import BundleError, Target, download, target
from stages.lib.command import READ, WRITE, main_worktree, one_line_errors, params_option
from stages.lib.params import Student, load_params
from stages.lib.students import student_folder

log = logging.getLogger("distillery.bundle")

Files = dict[str, Path]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--platform", "platform_name", required=True, help="aarch64, x86_64, or as manylinux_2_34_aarch64.")
@click.option("--python-version", required=True, help="The Python there, as 3.11.")
@click.option("--out", type=WRITE, required=True, help="The bundle, written.")
@click.option("--requirements", type=READ, default=Path("requirements.txt"), show_default=True)
@click.option("--lock", type=READ, default=Path("requirements.lock"), show_default=True)
@click.option("--apart", multiple=True, help="A package to take without its dependencies.")
@params_option
@one_line_errors
def main(
    platform_name: str,
    python_version: str,
    out: Path,
    requirements: Path,
    lock: Path,
    apart: tuple[str, ...],
    params_path: Path,
) -> None:
    there = target(platform_name, python_version)
    student = load_params(params_path).train.student
    commit, branch = committed()
    with workroom() as room:
        download(requirements, lock, apart, there, room / "wheels")
        history(room / "repository.bundle", branch)
        placed, notes = place(student)
        files = {
            "unbundle.py": Path(unbundle.__file__),
            "repository.bundle": room / "repository.bundle",
            **dict(files_in(room / "wheels", "wheels")),
            **{f"place/{name}": path for name, path in placed.items()},
        }
        for part, count in sizes(files).items():
            log.info("bundle: %s: %s", part, count)
        size = pack(out, files, facts(there, commit, branch, [requirements, lock], notes))
    log.info("bundle: %s, %s, for %s and Python %s", out, in_words(size), there.machine, there.python)


def committed() -> tuple[str, str]:
    """HEAD's commit and branch; BundleError where something is not committed, for it would not travel."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    if changed:
        raise BundleError(f"git: '{changed.split()[1]}' is changed and not committed, so it would not travel. Commit.")
    branch = git("rev-parse", "--abbrev-ref", "HEAD")
    if branch == "HEAD":
        raise BundleError("git: no branch is checked out. Name the state: git switch -c NAME.")
    return git("rev-parse", "HEAD"), branch


def git(*arguments: str) -> str:
    """What git says; BundleError with its last line where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"git {arguments[0]}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done.stdout.strip()


@contextmanager
def workroom() -> Iterator[Path]:
    """A folder for what is made on the way, gone at the end; in .cache, for /tmp may be small."""
    parent = Path(".cache")
    parent.mkdir(exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix="bundle-", dir=parent))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def history(out: Path, branch: str) -> None:
    """The repository as a file that git clones from."""
    git("bundle", "create", "--quiet", str(out), "HEAD", branch)


def place(student: Student) -> tuple[Files, list[str]]:
    """What goes to the same path over there, and what is to be said there; a line for each part that is not here."""
    files: Files = {}
    parts = {
        "data/eval_data": (Path("data/eval_data"), "make eval-data"),
        ".dvc/cache": (Path(dvc_cache()), "make repro"),
    }
    for name, (folder, advice) in parts.items():
        found = dict(files_in(folder, name)) if folder.is_dir() else {}
        if not found:
            log.warning("bundle: no %s here, so none goes with it: '%s' makes it", name, advice)
        files |= found
    store = "data/store/answers.jsonl"
    if (main_worktree(Path.cwd()) / store).is_file():
        files[store] = main_worktree(Path.cwd()) / store
    weights, notes = place_student(student)
    return files | weights, notes


def dvc_cache() -> str:
    """Where DVC keeps its cache."""
    done = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ".dvc/cache"


def place_student(student: Student) -> tuple[Files, list[str]]:
    """The student's folder, as .cache/students/NAME; none for a package, which comes with the wheels."""
    if student.kind == "package":
        return {}, []
    folder = student_folder(student)
    if folder.resolve().is_relative_to(Path.cwd()) and ".cache" not in folder.parts:
        return dict(files_in(folder, folder.resolve().relative_to(Path.cwd()).as_posix())), []
    revision = student.revision or "main"
    named = folder.name if student.kind == "path" else f"{student.name}-{revision}".replace("/", "--")
    name = f".cache/students/{named}"
    note = f"params.yaml: the student lies in {name}: train.student: {{kind: path, name: {name}}}"
    return dict(files_in(folder, name)), [] if student.kind == "modelers" else [note]


def facts(there: Target, commit: str, branch: str, locks: list[Path], notes: list[str]) -> dict[str, Any]:
    """What unbundle.py must know before it lays anything out."""
    return {
        "machine": there.machine,
        "glibc": there.glibc,
        "python": there.python,
        "commit": commit,
        "branch": branch,
        "locks": {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in locks},
        "notes": notes,
    }


def sizes(files: Files) -> dict[str, str]:
    """How many files and bytes each part has."""
    parts: dict[str, list[int]] = {}
    for name, path in files.items():
        part = "/".join(name.removeprefix("place/").split("/")[: 2 if name.startswith("place/") else 1])
        parts.setdefault(part, []).append(path.stat().st_size)
    return {part: f"{len(each)} files, {in_words(sum(each))}" for part, each in parts.items()}


def in_words(size: int) -> str:
    """Bytes as people say them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


if __name__ == "__main__":
    main()
