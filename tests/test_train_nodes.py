"""Two nodes train one arm on loopback: each has its own project folder and caches, as two hosts have."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.train import main as train
from tests.test_nodes import free_port
from tests.test_train_batches import uneven
from tests.test_train_llamafactory import PROGRAM
from tests.test_train_llamafactory import changed_params as llamafactory_params
from tests.test_train_processes import SHARED, ZERO2, difference, losses
from tests.trainings import installed, write_sharegpt
from tests.workspace import ROOT, write_changed_params

LOSS = 1e-4  # the largest difference of a step's loss from one node's
WEIGHT = 1e-6  # and of a weight


def host(tmp_path: Path, name: str, write_params: Callable[[Path], Any]) -> Path:
    """A project folder with params.yaml, the arm's dataset and DeepSpeed's settings."""
    folder = tmp_path / name
    (folder / "data" / "sharegpt").mkdir(parents=True)
    write_sharegpt(folder / "data" / "sharegpt" / "filtered", uneven(11))
    shutil.copytree(ROOT / "profiles" / "deepspeed", folder / "profiles" / "deepspeed")
    write_params(folder / "params.yaml")
    return folder


def options(folder: Path) -> list[str]:
    paths = {"dataset": folder / "data" / "sharegpt" / "filtered", "params": folder / "params.yaml"}
    paths |= {"model": folder / "model", "metrics": folder / "model.json"}
    paths |= {"left-out": folder / "model.jsonl", "loss": folder / "model.csv"}
    return ["--arm", "filtered", *(text for name, path in paths.items() for text in (f"--{name}", str(path)))]


def started(folder: Path, rank: int, port: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    nodes = {"NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = {"DVC_ROOT": str(folder), "PYTHONPATH": str(ROOT), "NODES_TIMEOUT_S": "480"}
    with (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=os.environ | own | nodes, stderr=stderr)


def train_together(folders: list[Path]) -> None:
    """Train on node 0 and join on node 1; both must succeed, and node 1 must leave nothing but its logs."""
    port = free_port()
    commands = [["-m", "stages.train", *options(folders[0])], ["-m", "stages.lib.join", "--arm", "filtered"]]
    running = [started(folder, rank, port, commands[rank]) for rank, folder in enumerate(folders)]
    for folder, process in zip(folders, running, strict=True):
        assert process.wait(540) == 0, (folder / "stderr").read_text()[-3000:]
    assert not (folders[1] / "models").exists()
    assert {path.suffix for path in (folders[1] / ".cache" / "training").iterdir()} == {".log"}
    last = (folders[1] / "stderr").read_text().splitlines()[-1]
    assert last == "train: filtered: node 0 has trained and saved it; node 1 is done"


@pytest.mark.heavy
def test_two_nodes_with_zero_2_learn_what_one_learns(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, runs: Callable[..., Result]
) -> None:
    own = {"train.student.kind": "path", "train.student.name": str(tiny_student)} | SHARED

    def write(changes: dict[str, Any]) -> Callable[[Path], None]:
        return lambda path: write_changed_params(ROOT / "params.yaml", own | changes, path)

    alone = host(tmp_path, "alone", write({}))
    monkeypatch.setenv("DVC_ROOT", str(alone))
    runs(train, *options(alone))
    together = [host(tmp_path, f"node-{rank}", write({"train.deepspeed": ZERO2})) for rank in (0, 1)]
    train_together(together)
    assert losses(together[0] / "model.csv") == pytest.approx(losses(alone / "model.csv"), abs=LOSS)
    assert difference(alone / "model", together[0] / "model") < WEIGHT
    one, two = (json.loads((folder / "model.json").read_bytes()) for folder in (alone, together[0]))
    assert two == one | {name: pytest.approx(one[name], abs=LOSS) for name in ("first_loss", "last_loss")}
    assert "2 processes (DEEPSPEED)" in (together[0] / ".cache" / "training" / "filtered.log").read_text()


@pytest.mark.slow  # six minutes; it needs LLaMA-Factory
def test_two_nodes_train_with_llamafactory(
    tmp_path: Path, older_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = installed(PROGRAM, "llamafactory-env")
    monkeypatch.setenv("LLAMAFACTORY_CLI", str(program))
    changes = {"arms.filtered.max_steps": 4, "train.per_device_train_batch_size": 2}
    folders = [
        host(tmp_path, f"node-{rank}", lambda path: llamafactory_params(path, older_student, changes))
        for rank in (0, 1)
    ]
    train_together(folders)
    metrics = json.loads((folders[0] / "model.json").read_bytes())
    assert (metrics["steps"], metrics["effective_batch"]) == (4, 4), "two rows of each node"
    assert metrics["last_loss"] < metrics["first_loss"]
