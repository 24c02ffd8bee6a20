"""Stages side by side, run by the real DVC: the same dvc.lock as one after another, whatever fails or is killed."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dump_yaml
from ruamel.yaml import YAML

from stages.lib.params import Run, load_params
from stages.lib.side_by_side.devices import DevicesError, environment, groups_of, slots
from tests.workspace import ALL, ARM, Workspace, kill, stages_in, wait_until

ROOT = Path(__file__).resolve().parents[1]
TRAINED = {name for name in ALL if name.startswith(("train", "evaluate"))}
# a chain of dvc.yaml's names; work.py stands in for what a stage computes, because here DVC is what is tested
PIPELINE = """\
stages:
  convert:
    foreach: ${datasets}
    do:
      cmd: python work.py convert ${key} converted/${key}
      params: ["datasets.${key}"]
      outs: ["converted/${key}"]
  train:
    foreach: ${arms}
    do:
      cmd: python work.py train ${key} models/${key}
      params: ["arms.${key}"]
      deps: ["converted/${item.dataset}"]
      outs: ["models/${key}"]
  evaluate-base:
    cmd: python work.py evaluate base eval/base
    outs: [eval/base]
  evaluate:
    foreach: ${arms}
    do:
      cmd: python work.py evaluate ${key} eval/${key}
      deps: ["models/${key}"]
      outs: ["eval/${key}"]
  report:
    cmd: python work.py report all report
    deps: [eval]
    outs: [report]
"""
# each run leaves a line in runs.jsonl; a file orders/STAGE-ARM makes it sleep, fail, or wait for a text in a file
WORK = """\
import json, os, pathlib, sys, time
stage, arm, out = sys.argv[1:]
order = pathlib.Path("orders", f"{stage}-{arm}")
words = order.read_text().split() if order.exists() else ["sleep", "0"]
names = ("CUDA_VISIBLE_DEVICES", "MASTER_PORT")
started = time.time()
pathlib.Path("started").mkdir(exist_ok=True)
pathlib.Path("started", f"{stage}-{arm}").touch()
if words[0] == "fail":
    sys.exit("Error: the loss is NaN at step 3. Lower the learning rate.")
deadline = time.time() + 100
while words[0] == "until" and time.time() < deadline:
    path, text = pathlib.Path(words[1]), (words[2] if len(words) > 2 else "")
    if path.exists() and text in path.read_text():
        break
    time.sleep(0.05)
time.sleep(float(words[1]) if words[0] == "sleep" else 0)
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(f"{stage} {arm}\\n")
seen = {name: os.environ.get(name) for name in names}
with open("runs.jsonl", "a") as runs:
    facts = {"stage": f"{stage}-{arm}", "started": started, "ended": time.time(), "cores": len(os.sched_getaffinity(0))}
    runs.write(json.dumps(facts | seen) + "\\n")
"""


class Project(Workspace):
    """A small DVC project with the names of ours."""

    def order(self, stage: str, words: str) -> None:
        (self.folder / "orders").mkdir(exist_ok=True)
        (self.folder / "orders" / stage).write_text(words)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "stages.lib.side_by_side", *arguments]

    def runs(self) -> dict[str, dict[str, Any]]:
        path = self.folder / "runs.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {row["stage"]: row for row in rows}

    def started(self, stage: str) -> bool:
        return (self.folder / "started" / stage).exists()

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text()

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


@pytest.fixture(scope="module")
def unrun(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which nothing ran."""
    project = Project(tmp_path_factory.mktemp("side") / "project")
    project.environment["PYTHONPATH"] = str(ROOT)
    shutil.copy(ROOT / "params.yaml", project.folder)
    arms = {"slow": ARM, "quick": ARM | {"dataset": "unfiltered"}}
    project.change({"arms": arms, "run.device": "cuda"})
    (project.folder / "dvc.yaml").write_text(PIPELINE)
    (project.folder / "work.py").write_text(WORK)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    return project


@pytest.fixture
def project(unrun: Project, tmp_path: Path) -> Project:
    copied = unrun.copy(tmp_path / "project")
    copied.environment["PYTHONPATH"] = str(ROOT)
    return copied


@pytest.mark.slow
def test_two_arms_at_once_on_their_own_cards_write_the_lock_of_a_serial_run(project: Project, tmp_path: Path) -> None:
    serial = project.copy(tmp_path / "serial")
    serial.run("dvc", "repro")
    project.order("train-slow", "until dvc.lock train@quick")
    project.order("train-quick", "until started/train-slow")
    project.environment["MASTER_PORT"] = "29500"
    project.run(*project.command("--devices", "0-3 4,5,6,7"))
    assert project.lock() == serial.lock()
    runs = project.runs()
    slow, quick = runs["train-slow"], runs["train-quick"]
    assert slow["started"] < quick["ended"] < slow["ended"], "both trained at once; the later one is first in the lock"
    cards = {(run["CUDA_VISIBLE_DEVICES"], run["MASTER_PORT"]) for run in (slow, quick)}
    assert cards == {("0,1,2,3", "29500"), ("4,5,6,7", "29510")}
    log = project.folder / ".cache" / "side_by_side" / "train@slow.log"
    assert "Running stage 'train@slow'" in log.read_text()
    # and a second time nothing runs
    before = (project.folder / "runs.jsonl").read_text()
    again = project.try_to_run(*project.command("--devices", "0-3 4-7", "train"))
    assert (again.returncode, (project.folder / "runs.jsonl").read_text()) == (0, before)
    assert "train@slow: unchanged" in again.stderr
    assert project.run("dvc", "status") == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_a_failed_arm_stops_what_needs_it_and_nothing_else(project: Project) -> None:
    project.order("train-quick", "fail")
    done = project.try_to_run(*project.command("--devices", "0 1", "evaluate"))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    failed = "failed: the loss is NaN at step 3. Lower the learning rate. (log: .cache/side_by_side/train@quick.log)"
    assert f"train@quick: {failed}" in lines
    assert "evaluate@quick: not run, because train@quick failed" in lines
    assert lines[-1] == "Error: 2 of 4 stages did not end well: train@quick, evaluate@quick."
    assert {"train-slow", "evaluate-slow"} <= set(project.runs())
    assert "train@slow" in project.lock()
    assert "train@quick" not in project.lock()
    # then the failed one alone runs, with what follows
    project.order("train-quick", "sleep 0")
    (project.folder / "runs.jsonl").unlink()
    project.run(*project.command("--devices", "0 1", "evaluate"))
    assert set(project.runs()) == {"train-quick", "evaluate-quick"}


@pytest.mark.slow
def test_a_known_run_is_restored_and_not_computed(project: Project, tmp_path: Path) -> None:
    project.run(*project.command("--devices", "0 1", "train"))
    (project.folder / "runs.jsonl").unlink()
    (project.folder / "dvc.lock").unlink()
    serial = project.copy(tmp_path / "serial")
    serial.run("dvc", "repro", "train")
    done = project.try_to_run(*project.command("--devices", "0 1", "train"))
    assert "train@quick: restored from the run-cache" in done.stderr
    # not the bytes: DVC's own order of the stages of a group depends on Python's hash seed, in a serial run too
    ours, theirs = (YAML(typ="safe").load(each.lock()) for each in (project, serial))
    assert (ours, project.runs()) == (theirs, {})


@pytest.mark.slow
def test_a_second_start_is_refused_while_the_first_one_trains(project: Project) -> None:
    project.order("train-slow", "sleep 60")
    first = project.start(*project.command("--devices", "0 1", "train"))
    wait_until(lambda: project.started("train-slow") and "train-quick" in project.runs())
    wait_until(lambda: "train@quick" in project.lock())
    second = project.try_to_run("dvc", "repro", "--single-item", "train@slow")
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130
    assert errors.splitlines()[-1].startswith("Error: stopped, with all stages.")
    assert "train@slow" not in project.lock(), "what was stopped is not taken for a result"
    assert "train@quick" in project.lock(), "what had ended stays"


@pytest.mark.slow
def test_after_kill_9_only_what_had_not_ended_runs_again(project: Project) -> None:
    project.order("train-slow", "sleep 60")
    process = project.start(*project.command("--devices", "0 1", "train"))
    wait_until(lambda: project.started("train-slow") and project.folder.joinpath("dvc.lock").exists())
    wait_until(lambda: "train@quick" in project.lock())
    workers = [int(line.split()[0]) for line in of_the_folder(project.folder)]
    kill(process)
    for pid in workers:
        if pid != process.pid and Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
    project.order("train-slow", "sleep 0")
    (project.folder / "runs.jsonl").unlink()
    project.run(*project.command("--devices", "0 1", "train"))
    assert set(project.runs()) == {"train-slow"}


def of_the_folder(folder: Path) -> list[str]:
    """The processes that work in a folder: ``PID COMMAND``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(f"{process.name} {(process / 'cmdline').read_text()}")
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_the_real_stages_side_by_side_write_the_lock_of_a_serial_run(workspace: Workspace) -> None:
    lock = workspace.folder / "dvc.lock"
    serial = lock.read_bytes()
    content = YAML(typ="safe").load(serial)
    again = [
        name for name in content["stages"] if name.startswith(("train", "evaluate", "prefer", "compare", "report"))
    ]
    dump_yaml(str(lock), {**content, "stages": {k: v for k, v in content["stages"].items() if k not in again}})
    shutil.rmtree(workspace.folder / ".dvc" / "cache" / "runs")
    shown = workspace.make("-o", "checkout", "repro", "JOBS=2", "DEVICES=")
    assert stages_in(shown) == {"prefer", "compare", "report"}, "the others are in logs of their own"
    logs = {path.stem: path.read_text() for path in (workspace.folder / ".cache" / "side_by_side").iterdir()}
    assert {name for name, log in logs.items() if stages_in(log) == {name}} == TRAINED
    assert lock.read_bytes() == serial


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("0-3 4-7", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("0,1 2,3", [(0, 1), (2, 3)]),
        (" 0-1,6  7 ", [(0, 1, 6), (7,)]),
        ("", []),
    ],
)
def test_groups_of_cards(text: str, groups: list[tuple[int, ...]]) -> None:
    assert groups_of(text) == groups


@pytest.mark.parametrize(
    ("jobs", "text", "changes", "said"),
    [
        (None, "", {}, "JOBS is missing"),
        (0, "", {}, "JOBS is missing"),
        (2, "0-3", {}, "'0-3' has 1 groups for JOBS=2. Name one group for each job."),
        (2, "0-3 3-7", {}, "3 is named twice"),
        (2, "0-3 cuda:4", {}, "'cuda:4' is no group of cards"),
        (2, "3-0 4", {}, "'3-0' is no group of cards"),
        (2, "", {}, "JOBS=2, but nothing divides the cards"),
        (2, "0-3 4-7", {"processes": 8}, "a group has 4 cards, but run.device and run.processes need 8"),
        (2, "0 1", {"device": "xpu"}, "'xpu' has no variable that limits its cards"),
        (2, "0 4095", {"device": "cpu"}, "this process has no core 4095"),
    ],
)
def test_groups_that_cannot_be_used(jobs: int | None, text: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DevicesError, match=said.replace("(", r"\(")):
        slots(jobs, text, run_section({"device": "cuda", "processes": 1} | changes))


def test_a_launcher_may_divide_the_cards_and_cores_need_no_division() -> None:
    launcher = {"train": "srun -N1 --gres=npu:8", "evaluate": None}
    assert slots(2, "", run_section({"device": "npu", "launcher": launcher})) == [(), ()]
    assert slots(3, "", run_section({"device": "cpu"})) == [(), (), ()]
    assert environment((4, 5), 1, run_section({"device": "npu"})) == {"ASCEND_RT_VISIBLE_DEVICES": "4,5"}


def run_section(changes: dict[str, Any]) -> Run:
    return Run.model_validate(load_params(ROOT / "params.yaml").run.model_dump() | changes)
