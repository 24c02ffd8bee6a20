"""Pack the project into one file, with all that a machine without a network needs.

    python -m stages.lib.bundle --platform aarch64 --python-version 3.11 --out bundle.tar

The file holds:

    the wheels of the lock for that platform
    the repository with its history
    data/eval_data
    the student's folder (that of a package is among the wheels)
    DVC's cache with its run-cache
    the store of received answers

A missing part is left out, and a line says so. ``unbundle.py``, which is in the file, unpacks it on the other machine.
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
from stages.lib.bundle.wheels import BundleError, Target, download, parse_target
from stages.lib.command import READ, WRITE, main_worktree, one_line_errors, params_option
from stages.lib.params import Student, load_params
from stages.lib.store.answer_file import files_of_hosts
from stages.lib.students import student_folder

log = logging.getLogger("distillery.bundle")

Files = dict[str, Path]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--platform", "platform_name", required=True, help="aarch64, x86_64, or such as manylinux_2_34_aarch64.")
@click.option("--python-version", required=True, help="The Python of that machine, such as 3.11.")
@click.option("--out", type=WRITE, required=True, help="The bundle, written.")
@click.option("--requirements", type=READ, default=Path("requirements.txt"), show_default=True)
@click.option("--lock", type=READ, default=Path("requirements.lock"), show_default=True)
@click.option("--apart", multiple=True, help="A package to include without its dependencies.")
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
    target = parse_target(platform_name, python_version)
    student = load_params(params_path).train.student
    commit, branch = committed()
    with work_folder() as folder:
        download(requirements, lock, apart, target, folder / "wheels")
        bundle_repository(folder / "repository.bundle", branch)
        placed, notes = files_to_place(student)
        files = {
            "unbundle.py": Path(unbundle.__file__),
            "repository.bundle": folder / "repository.bundle",
            **dict(files_in(folder / "wheels", "wheels")),
            **{f"place/{name}": path for name, path in placed.items()},
        }
        for part, count in sizes(files).items():
            log.info("bundle: %s: %s", part, count)
        size = pack(out, files, facts(target, commit, branch, [requirements, lock], notes))
    log.info("bundle: %s, %s, for %s and Python %s", out, size_text(size), target.machine, target.python)


def committed() -> tuple[str, str]:
    """HEAD's commit and branch; BundleError where a change is not committed: it would not be in the bundle."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    if changed:
        raise BundleError(
            f"git: '{changed.split()[1]}' is changed and not committed, so it would not be in the bundle. Commit it."
        )
    branch = git("rev-parse", "--abbrev-ref", "HEAD")
    if branch == "HEAD":
        raise BundleError("git: no branch is checked out. Create one: git switch -c NAME.")
    return git("rev-parse", "HEAD"), branch


def git(*arguments: str) -> str:
    """Git's output; BundleError with its last line where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"git {arguments[0]}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done.stdout.strip()


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder; in .cache, because /tmp may be small."""
    parent = Path(".cache")
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bundle-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bundle_repository(out: Path, branch: str) -> None:
    """Write the repository to a file that git can clone from."""
    git("bundle", "create", "--quiet", str(out), "HEAD", branch)


def files_to_place(student: Student) -> tuple[Files, list[str]]:
    """The files that keep their path on the other machine, and notes to print there; logs a line per missing part."""
    files: Files = {}
    parts = {
        "data/eval_data": (Path("data/eval_data"), "make eval-data"),
        ".dvc/cache": (Path(dvc_cache()), "make repro"),
    }
    for name, (folder, advice) in parts.items():
        found = dict(files_in(folder, name)) if folder.is_dir() else {}
        if not found:
            log.warning("bundle: no %s here, so the bundle has none: '%s' makes it", name, advice)
        files |= found
    store = main_worktree(Path.cwd()) / "data/store/answers.jsonl"
    for path in (store, *files_of_hosts(store)):
        if path.is_file():
            files[f"data/store/{path.relative_to(store.parent).as_posix()}"] = path
    weights, notes = student_files(student)
    return files | weights, notes


def dvc_cache() -> str:
    """The folder of DVC's cache."""
    done = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ".dvc/cache"


def student_files(student: Student) -> tuple[Files, list[str]]:
    """The files of the student, as .cache/students/NAME; none for a package, which is among the wheels."""
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


def facts(target: Target, commit: str, branch: str, locks: list[Path], notes: list[str]) -> dict[str, Any]:
    """What unbundle.py must know before it unpacks anything."""
    return {
        "machine": target.machine,
        "glibc": target.glibc,
        "python": target.python,
        "commit": commit,
        "branch": branch,
        "locks": {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in locks},
        "notes": notes,
    }


def sizes(files: Files) -> dict[str, str]:
    """The number of files and of bytes in each part."""
    parts: dict[str, list[int]] = {}
    for name, path in files.items():
        part = "/".join(name.removeprefix("place/").split("/")[: 2 if name.startswith("place/") else 1])
        parts.setdefault(part, []).append(path.stat().st_size)
    return {part: f"{len(each)} files, {size_text(sum(each))}" for part, each in parts.items()}


def size_text(size: int) -> str:
    """A number of bytes with a readable unit: ``1.2 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


if __name__ == "__main__":
    main()
