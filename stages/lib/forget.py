"""Forget what DVC's run-cache holds of a stage as it stands now, so that the stage is run and not restored.

    python -m stages.lib.forget distill

DVC takes a stage's results from its run-cache where dependencies and params are the same. Those of ``distill`` also
follow from the store of received answers, which DVC does not know: what was restored would be older than the store. In
goes a stage's name; the entries of its present dependencies and params go, those of others stay.
"""

import logging
import shutil
from pathlib import Path

import click

from stages.lib.command import one_line_errors
from stages.lib.prune import locked_pipeline

log = logging.getLogger("distillery.forget")


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.argument("name")
@one_line_errors
def main(name: str) -> None:
    from dvc.exceptions import DvcException
    from dvc.stage.cache import _can_hash, _get_stage_hash  # as StageCache itself finds its entries

    with locked_pipeline() as pipeline:
        for stage in pipeline.stage.collect(name):
            try:
                stage.save_deps()
            except DvcException:
                continue  # a dependency is not there yet: nothing can be restored either
            if _can_hash(stage):
                forget(Path(pipeline.stage_cache.cache_dir), _get_stage_hash(stage))


def forget(runs: Path, key: str) -> None:
    """Remove the entries of a key, each the outputs of one run."""
    folder = runs / key[:2] / key
    if folder.is_dir():
        log.info("forget: %d entries of DVC's run-cache (%s)", len(list(folder.iterdir())), folder)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
