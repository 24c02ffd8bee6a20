"""Forget what DVC knows of a stage's results, so that the stage is run and not restored.

    python -m stages.lib.forget distill

DVC lays out the results that dvc.lock or else its run-cache names, wherever dependencies and params are the same.
Those of ``distill`` also follow from the store of received answers, which DVC does not know: what it restores after a
retry that was killed would be older than the store. In goes a stage's name. Its outputs in dvc.lock go, and its entries
in the run-cache for its present dependencies and params; the files stay, and so does what other params gave.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from stages.lib.command import one_line_errors
from stages.lib.prune import LOCK, locked_pipeline

log = logging.getLogger("distillery.forget")


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.argument("name")
@one_line_errors
def main(name: str) -> None:
    with locked_pipeline() as pipeline:
        for stage in pipeline.stage.collect(name):
            forget_runs(stage, Path(pipeline.stage_cache.cache_dir))
        if LOCK.is_file():
            forget_outputs(LOCK, name)


def forget_runs(stage: Any, runs: Path) -> None:
    """Remove what the run-cache holds for the stage's present dependencies and params."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _can_hash, _get_stage_hash  # as StageCache itself finds its entries

    try:
        stage.save_deps()
    except DvcException:
        return  # a dependency is not there yet: nothing can be restored either
    if _can_hash(stage):
        key = _get_stage_hash(stage)
        shutil.rmtree(runs / key[:2] / key, ignore_errors=True)


def forget_outputs(lock: Path, name: str) -> None:
    """Take the outputs out of the stage's entry, which keeps its place; the next run writes them in again."""
    from dvc.utils.serialize import dump_yaml

    content = YAML(typ="safe").load(lock.read_bytes())
    if content["stages"].get(name, {}).pop("outs", None):
        dump_yaml(str(lock), content)


if __name__ == "__main__":
    main()
