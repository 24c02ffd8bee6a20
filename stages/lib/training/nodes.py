"""Which nodes (hosts) train an arm together, from the environment.

nodes_of(os.environ)        → Nodes(count=2, rank=0, address="10.0.0.1", port=29500)

    NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT    one at a time or all; they override what Slurm says
    SLURM_*                                        under srun: nodes, their list, this node's number, the job's id

Node 0 trains and saves; the others run ``make join ARM=…`` (join.py) and write no outputs. How they meet: meeting.py.
"""

import re
from collections.abc import Mapping

from stages.lib.training import Nodes, TrainingError

KINDS = ("trl", "llamafactory", "swift")  # trainers of train.trainer.kind; openMind starts its own other nodes
NAMES = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, PORTS = 20_000, 10_000  # for a Slurm job


def nodes_of(variables: Mapping[str, str]) -> Nodes:
    """The nodes that the environment names; one if it names none. TrainingError if it is incomplete."""
    given = {name: value for name in NAMES if (value := variables.get(name, "").strip())}
    if given.get("NNODES") == "1" or not ({"NNODES", "NODE_RANK"} & given.keys() or _slurm_nodes(variables) > 1):
        return Nodes()
    found = _of_slurm(variables) | given
    if missing := [name for name in NAMES if name not in found]:
        slurm = " Under Slurm, start each node with srun." if variables.get("SLURM_JOB_ID") else ""
        raise TrainingError(
            f"{missing[0]}: not set, while {' and '.join(sorted(found))} are. Several nodes need {', '.join(NAMES)} on "
            f"each; NNODES=1 trains on this one alone.{slurm}"
        )
    try:
        nodes = Nodes(int(found["NNODES"]), int(found["NODE_RANK"]), found["MASTER_ADDR"], int(found["MASTER_PORT"]))
    except ValueError as error:
        raise TrainingError(f"NNODES, NODE_RANK, MASTER_PORT: {error}. Set them to numbers.") from error
    if not 0 <= nodes.rank < nodes.count:
        raise TrainingError(f"NODE_RANK: {nodes.rank}, but the {nodes.count} nodes are 0 to {nodes.count - 1}.")
    return nodes


def _slurm_nodes(variables: Mapping[str, str]) -> int:
    """The nodes of this job step, else of the job; 0 outside Slurm."""
    names = ("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
    return next((int(text) for name in names if (text := variables.get(name, "")).isdigit()), 0)


def _of_slurm(variables: Mapping[str, str]) -> dict[str, str]:
    """What srun tells each node, by the names that torchrun uses."""
    if (count := _slurm_nodes(variables)) < 2:
        return {}
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    hosts = first_host(next((variables[name] for name in names if variables.get(name)), ""))
    job = variables.get("SLURM_JOB_ID", "")
    found = {
        "NNODES": str(count),
        "NODE_RANK": variables.get("SLURM_NODEID", ""),
        "MASTER_ADDR": hosts,
        "MASTER_PORT": str(FIRST_PORT + int(job) % PORTS) if job.isdigit() else "",
    }
    return {name: value for name, value in found.items() if value}


def first_host(hosts: str) -> str:
    """The first host of Slurm's list: ``node01`` of ``node[01-03,07],gpu5``, ``r1n2`` of ``r[1-2]n[2-4]``."""
    name = re.match(r"(?:[^\[,]|\[[^\]]*\])*", hosts.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", name[0] if name else "")


def variables_of(nodes: Nodes, port: int) -> dict[str, str]:
    """The variables for a program that starts torchrun itself; none for one node."""
    values = (nodes.count, nodes.rank, nodes.address, port)
    return dict(zip(NAMES, map(str, values), strict=True)) if nodes.count > 1 else {}
