"""Train and evaluate several arms at once; the results and dvc.lock are those of a serial run.

python -m stages.lib.side_by_side --jobs 2 --devices "0-3 4-7" train     # make train JOBS=2 DEVICES="0-3 4-7"
python -m stages.lib.side_by_side --jobs 2                               # the whole pipeline: make repro JOBS=2

What the arms need runs first, by one ``dvc repro``. Then each training and evaluation runs as soon as what it needs has
ended, each on its own cards and with its own log, .cache/side_by_side/STAGE.log.
"""

import logging
import subprocess
import sys
from pathlib import Path

import click

from stages.lib.command import DistilleryError, one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.side_by_side.devices import slots
from stages.lib.side_by_side.plan import locked_names, plan, sort_lock
from stages.lib.side_by_side.running import run_side_by_side

log = logging.getLogger("distillery.side_by_side")


class SideBySideError(DistilleryError):
    """A stage failed."""


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.argument("targets", nargs=-1)
@click.option("--jobs", type=int, help="How many stages run at once; by default one for each group of --devices.")
@click.option("--devices", default="", help='The cards of each job, such as "0-3 4-7"; on a CPU its cores.')
@params_option
@one_line_errors
def main(targets: tuple[str, ...], jobs: int | None, devices: str, params_path: Path) -> None:
    run = load_params(params_path).run
    groups = slots(jobs, devices, run)
    whole = plan(list(targets))
    before = locked_names()
    try:
        repro(whole.first)
        if failed := run_side_by_side(whole.needs, groups, run):
            raise SideBySideError(f"{len(failed)} of {len(whole.needs)} stages did not end well: {', '.join(failed)}.")
        repro(whole.rest)
    finally:
        sort_lock(before, whole.order)


def repro(names: tuple[str, ...]) -> None:
    """Run stages one after another, each if it changed."""
    if (
        names
        and subprocess.run([sys.executable, "-m", "dvc", "repro", "--single-item", *names], check=False).returncode
    ):
        raise SideBySideError("dvc repro failed, see above. Fix that and run the same command again.")


if __name__ == "__main__":
    main()
