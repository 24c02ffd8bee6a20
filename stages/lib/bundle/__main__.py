"""Pack the project into one file, with all that a machine without a network needs.

    python -m stages.lib.bundle --platform aarch64 --python-version 3.11 --out bundle.tar

The file holds:

    the wheels of the lock for that platform
    the repository with its history
    data/eval_data
    the folders of the student and of the models in teachers and score.teacher (packages are among the wheels)
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
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import click

from stages.lib.bundle import unbundle
from stages.lib.bundle.packing import files_in, pack
from stages.lib.bundle.wheels import BundleError, Target, download, parse_target
from stages.lib.command import READ, WRITE, main_worktree, one_line_errors, params_option
from stages.lib.params import FromTeacher, Params, Student, load_params
from stages.lib.store.answer_file import files_of_hosts
from stages.lib.students import TOKENIZER_FILES, StudentError, student_folder, tokenizer_folder

log = logging.getLogger("distillery.bundle")

Files = dict[str, Path]


@dataclass(frozen=True)
class Model:
    """A model that params name at ``key``; ``what`` it is, in words.

    ``tokenizer_only``: its weights are not read, because a server has them.
    """

    key: str
    what: str
    source: Student
    tokenizer_only: bool = False

    def folder(self) -> Path:
        """Its files here; StudentError if there are none."""
        try:
            return tokenizer_folder(self.source) if self.tokenizer_only else student_folder(self.source)
        except StudentError as error:
            raise StudentError(f"{self.key}: {error}") from error


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
    models = models_of(load_params(params_path))
    commit, branch = committed()
    with work_folder() as folder:
        download(requirements, lock, apart, target, folder / "wheels")
        bundle_repository(folder / "repository.bundle", branch)
        placed, notes = files_to_place(models)
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


def files_to_place(models: list[Model]) -> tuple[Files, list[str]]:
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
    weights, notes = model_files(models)
    return files | weights, notes


def dvc_cache() -> str:
    """The folder of DVC's cache."""
    done = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ".dvc/cache"


def models_of(params: Params) -> list[Model]:
    """The models that params name: the student, the teachers of on-policy arms, the one that scores the rows."""
    models = [Model("train.student", "the student", params.train.student)]
    models += [Model(f"teachers.{name}", f"teacher {name}", model) for name, model in params.teachers.items()]
    if isinstance(params.score, FromTeacher):
        served = params.score.served is not None
        models.append(Model("score.teacher", "the teacher of score", params.score.teacher, tokenizer_only=served))
    return models


def model_files(models: list[Model]) -> tuple[Files, list[str]]:
    """The files of the models, as .cache/students/NAME, and notes on those that params must name otherwise there.

    A package is among the wheels, and a folder of the project keeps its path.
    """
    files: Files = {}
    notes: list[str] = []
    places: dict[str, Path] = {}  # the folder that each place has the files of
    for model in models:
        source = model.source
        if source.kind == "package":
            continue
        folder = model.folder()
        if folder.resolve().is_relative_to(Path.cwd()) and ".cache" not in folder.parts:
            place = folder.resolve().relative_to(Path.cwd()).as_posix()
        else:
            revision = source.revision or "main"
            named = folder.name if source.kind == "path" else f"{source.name}-{revision}".replace("/", "--")
            place = unused(f".cache/students/{named}", folder, places)
            if source.kind != "modelers":
                notes.append(f"params.yaml: {model.what} lies in {place}: {model.key}: {{kind: path, name: {place}}}")
        places[place] = folder
        found = dict(files_in(folder, place))
        files |= {name: path for name, path in found.items() if not model.tokenizer_only or is_small(path)}
    return files, notes


def unused(place: str, folder: Path, places: dict[str, Path]) -> str:
    """The place, or with a number after it where another folder of that name has it."""
    numbered = (f"{place}-{number}" for number in count(2))
    return next(each for each in chain([place], numbered) if places.get(each, folder) == folder)


def is_small(path: Path) -> bool:
    """Whether a model's file is none of its weights."""
    return any(path.match(pattern) for pattern in TOKENIZER_FILES)


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
