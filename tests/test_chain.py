"""The whole chain by the real ``dvc repro``, on a tiny student: what runs, what runs again, and what does not."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
DATASETS = {"convert@control", "convert@filtered", "convert@unfiltered"}
ARMS = {"train@filtered", "train@unfiltered", "evaluate@filtered", "evaluate@unfiltered"}
ALL = {"collect", "distill", "filter", "evaluate-base", "compare", "report"} | DATASETS | ARMS


class Workspace:
    """A copy of the repository with tiny params, and what ``dvc`` does in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / ".cache" / "requests.jsonl"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")} | {
            "DVC_SITE_CACHE_DIR": str(folder / ".cache" / "dvc"),
            "DISTILLERY_EMBEDDED_REQUESTS": str(self.requests),
            "PYTHONPATH": str(folder),
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def repro(self, *targets: str) -> set[str]:
        """Run ``dvc repro``; the stages that it executed, by its own output."""
        return set(re.findall(r"^Running stage '(.+)':$", self.run("dvc", "repro", *targets), re.MULTILINE))

    def change(self, changes: dict[str, Any]) -> None:
        yaml = YAML()
        path = self.folder / "params.yaml"
        params = yaml.load(path)
        for key, value in changes.items():
            *sections, name = key.split(".")
            section = params
            for part in sections:
                section = section[part]
            section[name] = value
        yaml.dump(params, path)

    def asked(self) -> int:
        """How many requests reached the teacher, counted by the teacher."""
        return len(self.requests.read_text().splitlines()) if self.requests.exists() else 0

    def times(self) -> dict[str, int]:
        """When each output was last written, by path."""
        paths = [path for name in ("data", "models", "metrics", "report") for path in (self.folder / name).rglob("*")]
        return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file() and "runs" not in path.parts}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Workspace:
    """A workspace in which the whole chain ran once."""
    workspace = Workspace(tmp_path_factory.mktemp("chain") / "a 工作 space")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
            (workspace.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, workspace.folder / name)
    workspace.change(
        {
            "collect.size": 12,
            "collect.heldout_size": 8,
            "train.student.source": "path",
            "train.student.name": str(tiny_student),
            "evaluate.max_gen_toks": 8,
            "evaluate.batch_size": 8,
            "report.samples": 2,
            "run.embedded_latency_s": 0.0,
        }
    )
    workspace.requests.parent.mkdir()
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"],
    ):
        workspace.run("git", *command)
    assert workspace.repro() == ALL
    return workspace


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the finished workspace, for a test to change."""
    shutil.copytree(finished.folder, tmp_path / "space", symlinks=True)
    yield Workspace(tmp_path / "space")
    shutil.rmtree(tmp_path / "space")


def test_every_stage_leaves_what_it_promises(finished: Workspace) -> None:
    for path in (
        "report/index.html",
        "metrics/compare.json",
        "models/filtered/model.safetensors",
        "data/eval/base.jsonl",
    ):
        assert (finished.folder / path).is_file(), path
    assert finished.asked() == 12
    status = finished.run("git", "status", "--short", "--untracked-files=all", "--", "data", "models", "report")
    assert {Path(line[3:].strip('"')).name for line in status.splitlines()} <= {".gitignore"}, "outputs in git"


def test_nothing_runs_again_where_nothing_changed(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.change({"run.concurrency": 3, "run.threads": 1})
    with (workspace.folder / "params.yaml").open("a") as file:
        file.write("# a remark\n")
    assert workspace.repro() == set()
    assert workspace.times() == before


def test_one_arms_epochs_touch_that_arm_alone_and_flipping_back_trains_nothing(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.change({"arms.filtered.num_train_epochs": 2.0})
    assert workspace.repro() == {"train@filtered", "evaluate@filtered", "compare", "report"}
    touched = {path for path, time in workspace.times().items() if before.get(path) != time}
    assert not [path for path in touched if "unfiltered" in path or "base" in path]
    workspace.change({"arms.filtered.num_train_epochs": 1.0})
    assert workspace.repro() == set(), "the run-cache had it"


def test_a_longer_training_set_asks_for_the_new_questions_only(workspace: Workspace) -> None:
    asked_before = workspace.asked()
    workspace.change({"collect.size": 24})
    executed = workspace.repro("distill")
    assert executed == {"collect", "distill"}
    assert workspace.asked() - asked_before == 12


def test_another_control_touches_neither_the_teacher_nor_the_arms(workspace: Workspace) -> None:
    asked_before = workspace.asked()
    workspace.change({"filter.control_seed": 99})
    assert workspace.repro("compare") == {"filter", "convert@control"}
    assert workspace.asked() == asked_before


def test_clean_keeps_the_store_of_received_answers(workspace: Workspace) -> None:
    store = workspace.folder / "data" / "store" / "answers.jsonl"
    received = store.read_bytes()
    clean = re.search(r"^clean:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert clean
    workspace.run("bash", "-c", clean[1])
    assert store.read_bytes() == received
    left = [
        path for name in ("data", "models", "report") for path in (workspace.folder / name).rglob("*") if path.is_file()
    ]
    assert {path.name for path in left} == {".gitignore", "answers.jsonl", "answers.lock"}
