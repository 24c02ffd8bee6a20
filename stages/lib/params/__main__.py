"""Check a params file as a stage would, or rewrite an older file as tagged unions.

python -m stages.lib.params params.yaml
python -m stages.lib.params --arm filtered params.yaml
python -m stages.lib.params --migrate params.yaml
"""

import os
from pathlib import Path

import click

from stages.lib.command import one_line_errors
from stages.lib.params.base import ParamsError
from stages.lib.params.errors import nearest
from stages.lib.params.loading import load_params, read
from stages.lib.params.migration import migrated, needs_migration


@click.command(help="Check a params file against the schema.")
@click.option("--migrate", is_flag=True, help="Rewrite an older file in place, with choices as {kind: …}.")
@click.option("--arm", default="", help="An arm that it must have; base is the untrained student.")
@click.argument("path", type=click.Path(path_type=Path))
@one_line_errors
def main(path: Path, migrate: bool, arm: str) -> None:
    if not path.is_file() and path.parent.name == "profiles":
        raise ParamsError(f"{path}: no such profile.{nearest(path.stem, _profiles(path.parent))}")
    if migrate:
        return click.echo(_migrate(path))
    params = load_params(path)
    arms = ["base", *params.trained_arms]
    if arm and arm not in arms:
        raise ParamsError(f"{path}: no arm '{arm}'.{nearest(arm, arms)}")
    click.echo(f"{path}: valid; datasets {', '.join(params.datasets)}; arms {', '.join(arms)}")
    return None


def _profiles(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _migrate(path: Path) -> str:
    """Rewrite the file atomically; return the message about it."""
    text = read(path)
    if not needs_migration(text, path):
        return f"{path}: already in the new format, and valid; not changed"
    new = migrated(text, path)
    file = path.resolve()  # not a symbolic link to it
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(new.encode("utf-8"))
        unfinished.chmod(file.stat().st_mode)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    before, after = (len(each.splitlines()) for each in (text, new))
    return f"{path}: rewritten, {before} lines to {after}; 'git diff {path}' shows the removed keys, which nothing read"


if __name__ == "__main__":
    main()
