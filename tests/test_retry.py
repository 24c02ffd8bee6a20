"""``make retry`` by the real make and DVC: what it asks, what it lays out anew, and what a plain repro does then."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.workspace import Workspace, kill, wait_until

pytestmark = pytest.mark.heavy


@pytest.fixture
def asking(tmp_path: Path) -> Workspace:
    """A workspace whose chain ends with distill, committed and not run yet: what comes after takes minutes."""
    return ending_with_distill(tmp_path / "space")


def ending_with_distill(folder: Path) -> Workspace:
    workspace = Workspace.of_the_repository(folder, folder / "no student")
    path = workspace.folder / "dvc.yaml"
    stages = YAML().load(path)["stages"]
    YAML().dump({"stages": {name: stages[name] for name in ("eval-data", "collect", "difficulty", "distill")}}, path)
    workspace.commit()
    return workspace


@pytest.fixture
def with_failures(built_once: Callable[..., Path], tmp_path: Path) -> Workspace:
    """Some of its twelve answers came empty, as they will at each draw; a copy of one that was run once."""

    def build(folder: Path) -> None:
        asking = ending_with_distill(folder)
        faults = {"empty_content": 0.4}
        asking.change({"distill.teacher.faults": faults, "distill.max_failed_share": 0.9})
        assert asking.repro() == {"eval-data", "collect", "difficulty", "distill"}
        assert {row["reason"] for row in failures(asking)} == {"empty_response"}
        assert {row["attempts"] for row in failures(asking)} == {1}

    shutil.copytree(built_once("with failures", build), tmp_path / "space", symlinks=True)
    return Workspace(tmp_path / "space")


def failures(workspace: Workspace) -> list[dict[str, Any]]:
    lines = (workspace.folder / "data" / "distill_failures.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


def test_retry_without_kinds_asks_for_nothing_that_was_received(with_failures: Workspace) -> None:
    asked = with_failures.asked()
    with_failures.make("retry")
    assert with_failures.asked() == asked


def test_kinds_are_drawn_once_and_a_plain_repro_draws_nothing(with_failures: Workspace) -> None:
    asked, failed = with_failures.asked(), len(failures(with_failures))
    said = with_failures.try_to_run("make", "-o", ".venv/ready", "retry", "KINDS=empty_response")
    assert said.returncode == 0, said.stderr
    assert f"would ask {failed} of 12 ({12 - failed} are in the store, {failed} are drawn again)" in said.stdout
    assert with_failures.asked() == asked + failed
    assert [row["attempts"] for row in failures(with_failures)] == [2] * failed
    assert with_failures.repro() == set()
    assert with_failures.asked() == asked + failed


def test_a_misspelt_kind_leaves_the_data_as_they_are(with_failures: Workspace) -> None:
    before = with_failures.times()
    done = with_failures.try_to_run("make", "-o", ".venv/ready", "retry", "KINDS=empty")
    assert done.returncode == 2
    assert "KINDS: no answer fails as 'empty'" in done.stderr
    assert with_failures.times() == before


def test_after_a_retry_that_was_killed_a_plain_repro_makes_the_rows_of_the_store(with_failures: Workspace) -> None:
    """And not those from before, which DVC's run-cache had."""
    with_failures.change({"run.embedded.latency_s": 1.0, "run.concurrency": 1})
    asked, failed = with_failures.asked(), len(failures(with_failures))
    store = with_failures.folder / "data" / "store" / "answers.jsonl"
    process = with_failures.start("make", "-o", ".venv/ready", "retry", "KINDS=empty_response")
    lines = len(store.read_bytes().splitlines())
    wait_until(lambda: len(store.read_bytes().splitlines()) > lines or process.poll() is not None)
    kill(process)
    assert with_failures.repro() == {"distill"}
    drawn = len(store.read_bytes().splitlines()) - lines
    assert 0 < drawn <= failed
    assert sum(row["attempts"] - 1 for row in failures(with_failures)) == drawn
    assert with_failures.asked() <= asked + drawn + 1


def test_there_and_back_the_rows_are_those_of_the_store(with_failures: Workspace) -> None:
    with_failures.make("retry", "KINDS=empty_response")
    after = failures(with_failures)
    with_failures.change({"distill.max_failed_share": 0.8})
    with_failures.repro()
    assert failures(with_failures) == after
    with_failures.change({"distill.max_failed_share": 0.9})
    with_failures.repro()
    assert failures(with_failures) == after


def test_what_was_not_asked_offline_comes_by_a_retry(asking: Workspace) -> None:
    asking.repro()
    asking.change({"collect.train_size": 16, "run.offline": True})
    assert asking.repro() == {"collect", "difficulty", "distill"}
    assert [row["reason"] for row in failures(asking)] == ["not_asked"] * 4
    assert asking.asked() == 12
    asking.change({"run.offline": False})
    assert asking.repro() == set(), "no stage depends on run"
    asking.make("retry")
    assert failures(asking) == []
    assert asking.asked() == 16
