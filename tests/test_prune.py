"""make prune: what removed arms and datasets left behind goes, and nothing else."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.workspace import Workspace

pytestmark = pytest.mark.heavy

LEFT_BY_FILTERED = {
    "data/scores/filtered.parquet",
    "metrics/score/filtered.json",
    "data/eval/filtered.examples.jsonl",
    "data/eval/filtered.jsonl",
    "data/train/filtered.left_out.jsonl",
    "metrics/eval/filtered.json",
    "metrics/eval/filtered.scores.csv",
    "metrics/train/filtered.json",
    "metrics/train/filtered.loss.csv",
    "models/filtered",
}
LEFT_BY_CONTROL = {"data/sharegpt/control", "metrics/convert/control.json", "metrics/convert/control.lengths.csv"}


def without_filtered_and_control(workspace: Workspace) -> None:
    yaml = YAML()
    params = yaml.load(workspace.folder / "params.yaml")
    del params["arms"]["filtered"], params["datasets"]["control"]
    params["compare"]["pairs"] = [["unfiltered", "base"]]
    yaml.dump(params, workspace.folder / "params.yaml")


def files(workspace: Workspace) -> dict[str, bytes]:
    """What stands in the folder, but for git's and DVC's own files and the caches: bytes by path."""
    found = {
        path.relative_to(workspace.folder).as_posix(): path.read_bytes()
        for path in workspace.folder.rglob("*")
        if path.is_file()
        and not {".git", ".dvc", ".cache", "__pycache__"} & set(path.relative_to(workspace.folder).parts)
    }
    assert "data/store/answers.jsonl" in found
    return found


def listed(text: str) -> set[str]:
    return {line.split(": ")[1].rpartition(" (")[0] for line in text.splitlines() if ": " in line}


def test_nothing_is_left_behind_by_a_finished_chain(workspace: Workspace) -> None:
    before = files(workspace)
    assert not listed(workspace.make("-s", "prune"))
    assert files(workspace) == before


def test_a_dry_run_lists_and_removes_nothing(workspace: Workspace) -> None:
    without_filtered_and_control(workspace)
    before = files(workspace)
    assert listed(workspace.make("-s", "prune", "DRY_RUN=1")) == LEFT_BY_FILTERED | LEFT_BY_CONTROL
    assert files(workspace) == before


def test_a_removed_arm_and_dataset_go_and_all_else_stays_to_the_byte(workspace: Workspace) -> None:
    (workspace.folder / "models" / "my own").mkdir()
    (workspace.folder / "models" / "my own" / "weights").write_text("mine")
    without_filtered_and_control(workspace)
    before = files(workspace)
    assert listed(workspace.make("-s", "prune")) == LEFT_BY_FILTERED | LEFT_BY_CONTROL
    after = files(workspace)
    gone = {path for path in before if path not in after}
    assert gone == {
        path for path in before if any(Path(path).is_relative_to(left) for left in LEFT_BY_FILTERED | LEFT_BY_CONTROL)
    }
    changed = {path for path in after if after[path] != before[path]}
    ignoring = {
        f"{folder}/.gitignore" for folder in ("data/eval", "data/scores", "data/sharegpt", "data/train", "models")
    }
    assert changed == {"dvc.lock"} | ignoring
    for path in changed:
        assert not [line for line in after[path].splitlines() if line not in before[path].splitlines()], path
    assert b"filtered" not in after["models/.gitignore"].replace(b"unfiltered", b"")
    locked = YAML(typ="safe").load(after["dvc.lock"])["stages"]
    assert not {"convert@control", "train@filtered", "evaluate@filtered"} & set(locked)
    assert "data/store/answers.jsonl" in after
    assert workspace.repro("train") == set(), "the arms that stay are untouched"


def test_an_arm_that_comes_back_is_not_trained_again(workspace: Workspace) -> None:
    params = (workspace.folder / "params.yaml").read_bytes()
    without_filtered_and_control(workspace)
    workspace.make("prune")
    (workspace.folder / "params.yaml").write_bytes(params)
    assert workspace.repro("evaluate@filtered", "convert@control") == set()
    assert (workspace.folder / "models" / "filtered" / "model.safetensors").is_file()


def test_an_output_that_another_stage_has_taken_over_stays(workspace: Workspace) -> None:
    lock, pipeline = workspace.folder / "dvc.lock", workspace.folder / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("  evaluate-base:", "  evaluate-untrained:"))
    assert not listed(workspace.make("-s", "prune"))
    assert (workspace.folder / "data" / "eval" / "base.jsonl").is_file()
    assert "evaluate-base" not in YAML(typ="safe").load(lock)["stages"]


def test_params_that_dvc_cannot_read_remove_nothing_and_are_named(workspace: Workspace) -> None:
    (workspace.folder / "params.yaml").write_text("arms: [")
    before = files(workspace)
    done = workspace.try_to_run("python", "-m", "stages.lib.prune")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "params.yaml" in done.stderr
    assert files(workspace) == before
