"""Remove the outputs of arms and datasets that params.yaml no longer names.

    python -m stages.lib.prune --dry-run    # only list it
    python -m stages.lib.prune

When ``foreach`` no longer makes a stage, DVC leaves its files, its entry in dvc.lock and its lines in .gitignore. This
command compares dvc.lock, which lists what DVC made, with the stages that dvc.yaml and params.yaml make now:

    train@filtered_long: models/filtered_long (512 MB)
    train@filtered_long: metrics/train/filtered_long.json (1 kB)

Files that are in no entry of dvc.lock are not touched, such as the store of received answers. Removed outputs stay in
DVC's cache: name the arm again, and ``dvc repro`` restores its results without computing them ('dvc gc' empties it).
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
    """It cannot be determined which outputs are still in use."""


@dataclass(frozen=True)
class Leftover:
    """An output of a stage that no longer exists."""

    stage: str
    path: Path


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@one_line_errors
def main(dry_run: bool) -> None:
    with locked_pipeline() as pipeline:
        gone = {name: outs for name, outs in locked_outs(LOCK).items() if name not in stage_names(pipeline)}
        leftovers = find_leftovers(gone, outs_in_use(pipeline))
        for leftover in leftovers:
            click.echo(f"{leftover.stage}: {leftover.path} ({size_text(leftover.path)})")
        if not dry_run:
            for leftover in leftovers:
                remove(leftover.path)
            remove_entries(LOCK, set(gone))
    log.info("prune: %s", summary(gone, leftovers, dry_run))


@contextmanager
def locked_pipeline() -> Iterator[Any]:
    """DVC's view of this folder, locked so that no ``dvc repro`` runs at the same time."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            if Path(repo.root_dir) != Path.cwd():
                raise PruneError(f"{Path.cwd()}: not the project's folder. Run this in {repo.root_dir}.")
            yield repo
    except DvcException as error:
        raise PruneError(f"prune: DVC says: {error}. Fix that and prune again.") from error


def stage_names(pipeline: Any) -> set[str]:
    """The stages that dvc.yaml and params.yaml make now."""
    return {stage.addressing for stage in pipeline.index.stages}


def outs_in_use(pipeline: Any) -> set[Path]:
    """The outputs of the current stages, as paths in the project."""
    return {Path(out.fs_path).relative_to(pipeline.root_dir) for out in pipeline.index.outs}


def find_leftovers(gone: dict[str, list[Path]], in_use: set[Path]) -> list[Leftover]:
    """The outputs of removed stages, except paths that a current stage writes to, or into."""
    return [
        Leftover(stage, path)
        for stage, outs in gone.items()
        for path in outs
        if not any(used.is_relative_to(path) for used in in_use)
    ]


def locked_outs(lock: Path) -> dict[str, list[Path]]:
    """The outputs of each stage in dvc.lock."""
    if not lock.is_file():
        return {}
    stages = YAML(typ="safe").load(lock.read_bytes())["stages"]
    return {name: [Path(out["path"]) for out in entry.get("outs", [])] for name, entry in stages.items()}


def size_text(path: Path) -> str:
    """The size of a file or a folder: ``512 MB``, ``1 kB``; ``gone already`` where it does not exist."""
    if not path.exists():
        return "gone already"
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{-(-size // 1000)} kB"


def remove(path: Path) -> None:
    """Delete an output and its line in the .gitignore next to it, which DVC wrote."""
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


def remove_entries(lock: Path, stages: set[str]) -> None:
    """Remove entries from dvc.lock; the others keep their bytes."""
    if not stages:
        return
    from dvc.utils.serialize import dump_yaml

    content = YAML(typ="safe").load(lock.read_bytes())
    content["stages"] = {name: entry for name, entry in content["stages"].items() if name not in stages}
    dump_yaml(str(lock), content)


def summary(gone: dict[str, list[Path]], leftovers: list[Leftover], dry_run: bool) -> str:
    """``removed 5 outputs of train@old, evaluate@old``."""
    if not gone:
        return "nothing to remove"
    return f"{'would remove' if dry_run else 'removed'} {len(leftovers)} outputs of {', '.join(gone)}"


if __name__ == "__main__":
    main()
