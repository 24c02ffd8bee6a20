"""Experiments in folders of their own, one after another or two at a time: no answer is asked for that one has got."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workspace import Workspace, stages_in, wait_until

ROOT = Path(__file__).resolve().parents[1]


def queue(workspace: Workspace, name: str, change: str, *targets: str) -> None:
    workspace.run("dvc", "exp", "run", "--queue", "--name", name, "--set-param", change, *targets)


def run_the_queue(workspace: Workspace) -> None:
    """Run all that is queued, two at a time, to its good end."""
    workspace.run("dvc", "queue", "start", "-j", "2")
    wait_until(
        lambda: not re.search("Queued|Running|[1-9][0-9]* (active|idle)", status(workspace)), within_s=500, pause_s=1
    )
    assert "Failed" not in status(workspace)


def status(workspace: Workspace) -> str:
    return workspace.run("dvc", "queue", "status")


def executed(workspace: Workspace, name: str) -> set[str]:
    return stages_in(workspace.run("dvc", "queue", "logs", name))


@pytest.mark.heavy
def test_an_experiment_elsewhere_asks_for_nothing_that_is_in_the_store(workspace: Workspace) -> None:
    before, times = workspace.asked(), workspace.times()
    shown = workspace.run(
        *("dvc", "exp", "run", "--temp", "--name", "again", "--set-param", "distill.max_failed_share=0.06", "distill")
    )
    assert stages_in(shown) == {"distill"}
    assert workspace.asked() == before
    assert workspace.times() == times, "the experiment ran in a folder of its own"
    assert workspace.run("dvc", "exp", "list", "--name-only").split() == ["again"]


@pytest.mark.heavy
def test_experiments_side_by_side_ask_for_new_questions_only_and_for_each_once(workspace: Workspace) -> None:
    before = workspace.requested()
    queue(workspace, "again", "distill.max_failed_share=0.06", "distill")
    queue(workspace, "more", "collect.train_size=24", "distill")
    queue(workspace, "most", "collect.train_size=36", "distill")
    run_the_queue(workspace)
    assert executed(workspace, "again") == {"distill"}
    assert executed(workspace, "more") == executed(workspace, "most") == {"collect", "difficulty", "distill"}
    workspace.run("dvc", "exp", "apply", "most")
    assert len(workspace.messages()) == 36
    assert sorted(workspace.requested()[len(before) :]) == sorted(workspace.messages()[12:])


@pytest.mark.heavy
def test_what_an_experiment_elsewhere_paid_for_serves_the_workspace(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--temp", "--set-param", "collect.train_size=24", "distill")
    assert workspace.asked() == 24
    # another share, for else the run-cache would bring the rows and nobody would look into the store
    workspace.change({"collect.train_size": 24, "distill.max_failed_share": 0.06})
    assert workspace.repro("distill") == {"distill"}
    assert workspace.asked() == 24
    assert len((workspace.folder / "data" / "distilled.jsonl").read_bytes().splitlines()) == 24


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whole_chains_side_by_side_compute_what_each_of_them_changes(workspace: Workspace) -> None:
    before, times = workspace.asked(), workspace.times()
    queue(workspace, "control", "filter.control_seed=99")
    queue(workspace, "longer", "arms.filtered.num_train_epochs=2")
    run_the_queue(workspace)
    assert executed(workspace, "control") == {"filter", "convert@control"}
    assert executed(workspace, "longer") == {"train@filtered", "evaluate@filtered", "prefer", "compare", "report"}
    assert workspace.asked() == before
    assert workspace.times() == times
    shown = json.loads(workspace.run("dvc", "metrics", "diff", "--json", "HEAD", "longer"))
    steps = shown["metrics/compare.json"]["arms.filtered.training.steps"]
    assert steps["new"] == 2 * steps["old"]


@pytest.fixture
def workspace_in_chinese(finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(finished.folder, tmp_path / "工作", symlinks=True)
    yield Workspace(tmp_path / "工作")


@pytest.mark.heavy
def test_where_the_path_is_not_ascii_the_cache_must_lie_where_it_is(
    workspace_in_chinese: Workspace, tmp_path: Path
) -> None:
    """docs/experiments.md tells of it; the first half fails when DVC can do without."""
    workspace = workspace_in_chinese
    experiment = ("dvc", "exp", "run", "--temp", "--set-param", "collect.train_size=24", "distill")
    refused = workspace.try_to_run(*experiment)
    assert refused.returncode != 0
    assert "'ascii' codec can't encode" in refused.stderr
    mended = re.search(r"^mv \.dvc/cache .*$", (ROOT / "docs" / "experiments.md").read_text(), re.MULTILINE)
    assert mended
    workspace.run("bash", "-c", mended[0].replace("/srv/cache", os.fspath(tmp_path / "cache")))
    assert stages_in(workspace.run(*experiment)) == {"collect", "difficulty", "distill"}
    assert workspace.asked() == 24
