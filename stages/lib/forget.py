"""Remove what DVC knows of a stage's results, so that DVC runs the stage and does not restore it.

    python -m stages.lib.forget distill

Where dependencies and params are unchanged, DVC restores the results that dvc.lock or its run-cache names. The results
of ``distill`` also depend on the store of received answers, which DVC does not know: after a retry that was killed, DVC
would restore results that are older than the store.

In:       a stage's name
Removed:  its outputs in dvc.lock, and its entries in the run-cache for its present dependencies and params
Kept:     its files, and the results of other params
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
    """Remove the run-cache's entry for the stage's present dependencies and params."""
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _can_hash, _get_stage_hash  # StageCache finds its entries with these

    try:
        stage.save_deps()
    except DvcException:
        return  # a dependency does not exist yet, so nothing can be restored
    if _can_hash(stage):
        key = _get_stage_hash(stage)
        shutil.rmtree(runs / key[:2] / key, ignore_errors=True)


def forget_outputs(lock: Path, name: str) -> None:
    """Remove the outputs from the stage's entry, which keeps its position; the next run writes them again."""
    from dvc.utils.serialize import dump_yaml

    content = YAML(typ="safe").load(lock.read_bytes())
    if content["stages"].get(name, {}).pop("outs", None):
        dump_yaml(str(lock), content)


if __name__ == "__main__":
    main()
