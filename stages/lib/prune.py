"""Remove what arms and datasets left behind that params.yaml no longer names.

    python -m stages.lib.prune --dry-run    # only list it
    python -m stages.lib.prune

DVC forgets a stage that ``foreach`` no longer makes, and leaves its files, its entry in dvc.lock and its lines in
.gitignore. In goes dvc.lock, which says what DVC made, and the stages that dvc.yaml and params.yaml make now:

    train@filtered_long: models/filtered_long (512 MB)
    train@filtered_long: metrics/train/filtered_long.json (1 kB)

A file that is in no entry of dvc.lock is not touched, the store of received answers among them. What goes stays in
DVC's cache: name the arm again and ``dvc repro`` brings its results back without computing them ('dvc gc' empties it).
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from stages.lib.command import DistilleryError, one_line_errors
from stages.lib.rows import writing

log = logging.getLogger("distillery.prune")

LOCK = Path("dvc.lock")


class PruneError(DistilleryError):
    """What dvc.lock names cannot be told from what is still in use."""


@dataclass(frozen=True)
class Leftover:
    """An output of a stage that is no more."""

    stage: str
    path: Path


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
@one_line_errors
def main(dry_run: bool) -> None:
    with locked_pipeline() as pipeline:
        gone = {name: outs for name, outs in locked_outs(LOCK).items() if name not in stage_names(pipeline)}
        leftovers = find_leftovers(gone, outs_in_use(pipeline))
        for leftover in leftovers:
            click.echo(f"{leftover.stage}: {leftover.path} ({in_words(leftover.path)})")
        if not dry_run:
            for leftover in leftovers:
                remove(leftover.path)
            forget(LOCK, set(gone))
    log.info("prune: %s", summary(gone, leftovers, dry_run))


@contextmanager
def locked_pipeline() -> Iterator[Any]:
    """DVC's view of this folder, locked so that no ``dvc repro`` runs meanwhile."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            if Path(repo.root_dir) != Path.cwd():
                raise PruneError(f"{Path.cwd()}: not the project's folder. Go to {repo.root_dir} and prune there.")
            yield repo
    except DvcException as error:
        raise PruneError(f"prune: DVC says: {error}. Mend that and prune again.") from error


def stage_names(pipeline: Any) -> set[str]:
    """The stages that dvc.yaml and params.yaml make now."""
    return {stage.addressing for stage in pipeline.index.stages}


def outs_in_use(pipeline: Any) -> set[Path]:
    """The outputs of these stages, as paths in the project."""
    return {Path(out.fs_path).relative_to(pipeline.root_dir) for out in pipeline.index.outs}


def find_leftovers(gone: dict[str, list[Path]], in_use: set[Path]) -> list[Leftover]:
    """The outputs of the stages that are gone, but for a path that another stage writes to, or into, now."""
    return [
        Leftover(stage, path)
        for stage, outs in gone.items()
        for path in outs
        if not any(used.is_relative_to(path) for used in in_use)
    ]


def locked_outs(lock: Path) -> dict[str, list[Path]]:
    """What each stage of dvc.lock wrote."""
    if not lock.is_file():
        return {}
    stages = YAML(typ="safe").load(lock.read_bytes())["stages"]
    return {name: [Path(out["path"]) for out in entry.get("outs", [])] for name, entry in stages.items()}


def in_words(path: Path) -> str:
    """How large a file or a folder is: ``512 MB``, ``1 kB``; ``gone already`` where there is none."""
    if not path.exists():
        return "gone already"
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{-(-size // 1000)} kB"


def remove(path: Path) -> None:
    """Delete an output and its line in the .gitignore beside it, which DVC wrote."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    ignored = path.parent / ".gitignore"
    if not ignored.is_file():
        return
    lines = [line for line in ignored.read_text().splitlines(keepends=True) if line.strip() != f"/{path.name}"]
    if lines:
        with writing(ignored) as file:
            file.write("".join(lines).encode())
    else:
        ignored.unlink()


def forget(lock: Path, stages: set[str]) -> None:
    """Take entries out of dvc.lock and leave the others as they stand, to the byte."""
    if not stages:
        return
    from dvc.utils.serialize import dump_yaml

    content = YAML(typ="safe").load(lock.read_bytes())
    content["stages"] = {name: entry for name, entry in content["stages"].items() if name not in stages}
    dump_yaml(str(lock), content)


def summary(gone: dict[str, list[Path]], leftovers: list[Leftover], dry_run: bool) -> str:
    """``removed 5 outputs of train@old, evaluate@old``."""
    if not gone:
        return "nothing is left behind"
    return f"{'would remove' if dry_run else 'removed'} {len(leftovers)} outputs of {', '.join(gone)}"


if __name__ == "__main__":
    main()
