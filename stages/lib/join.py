"""Help node 0 to train an arm, as another of several nodes. Writes no outputs and does not use DVC.

    NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 make train ARM=filtered    # node 0
    NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 make join ARM=filtered     # node 1

In:   params.yaml and data/sharegpt/DATASET, the same as on node 0: git and 'make pull', or one shared folder
Out:  .cache/training/ARM.node-1.log    the output of this node's processes

It may start before node 0, and waits for it (NODES_TIMEOUT_S, 1800). It ends when node 0 has trained, or in one line
when the training failed on any node. It ends at once where nothing is left to train: node 0 has final weights, or does
not listen while the arm's result in dvc.lock is here and up to date. docs/hosts.md has more, with Slurm.
"""

import importlib
import logging
import os
from pathlib import Path

import click

from stages.lib.command import one_line_errors, params_option
from stages.lib.params import Params, ParamsError, load_params
from stages.lib.students import student_folder
from stages.lib.training import Job, Nodes, TrainingError
from stages.lib.training.dataset import ShareGpt
from stages.lib.training.meeting import listens
from stages.lib.training.nodes import KINDS, nodes_of
from stages.lib.training.rows_folder import rows_folder

log = logging.getLogger("distillery.train")


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--arm", "name", required=True, help="The arm's name in params.yaml.")
@params_option
@one_line_errors
def main(name: str, params_path: Path) -> None:
    params, nodes = load_params(params_path), nodes_of(os.environ)
    if name not in params.arms:
        raise ParamsError(f"params.yaml: arms: no arm '{name}'. Known: {', '.join(params.arms)}.")
    if (kind := params.train.trainer.kind) not in KINDS:
        raise TrainingError(f"train.trainer.kind: {kind} joins nodes itself: docs/ascend.md, 'Two hosts'.")
    if nodes.rank == 0:
        raise TrainingError(
            "NODE_RANK: this is node 0, or the only one. Run 'make train' here, and 'make join' on the others with "
            "NNODES, NODE_RANK (1, 2, …), MASTER_ADDR and MASTER_PORT."
        )
    if not listens(nodes) and is_trained(name):
        log.info(
            "train: %s: models/%s is up to date, so node 0 has finished and there is nothing to join. If node 0 is to "
            "train it again ('dvc repro --force'), start node 0 first.",
            name,
            name,
        )
        return
    with rows_folder(name) as rows:
        joined = importlib.import_module(f"stages.lib.trainers.{kind}").join(job_of(name, params, nodes, rows))
    if joined:
        log.info("train: %s: node 0 has trained and saved it; node %d is done", name, nodes.rank)
    else:
        log.info("train: %s: node 0 had its final weights already: there is nothing to join", name)


def job_of(name: str, params: Params, nodes: Nodes, rows: Path) -> Job:
    """The training that node 0 begins; ``rows`` is this node's own folder for them."""
    return Job(
        name=name,
        conversations=ShareGpt(Path("data/sharegpt") / params.arms[name].dataset),
        student=student_folder(params.train.student),
        train=params.train,
        arm=params.arms[name],
        run=params.run,
        markers=params.convert.markers,
        out=Path("models") / name,  # node 0 writes it
        nodes=nodes,
        rows=rows,
    )


def is_trained(name: str) -> bool:
    """Whether the arm's result is here and dvc.lock names it for these inputs: 'make train' would skip it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:  # without its lock: in a shared folder, node 0 may hold it or be about to
            stage = repo.stage.load_one(name=f"train@{name}")
            here = all(Path(out.fs_path).exists() for out in stage.outs)
            return here and not stage.changed_stage() and not any(dep.status() for dep in stage.deps)
    except DvcException:
        return False


if __name__ == "__main__":
    main()
