"""``run.report_to``: what experiment trackers get of a training, without a network. A tiny student, for real."""

import csv
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.params import ParamsError, load_params
from stages.lib.trainers.llamafactory import PROGRAM as LLAMAFACTORY
from stages.lib.trainers.llamafactory.inputs import training_yaml as llamafactory_yaml
from stages.lib.trainers.openmind.inputs import training_yaml as openmind_yaml
from stages.lib.trainers.swift.inputs import training_yaml as swift_yaml
from stages.lib.training import Job, TrainingError
from stages.lib.training.trackers import check_installed, is_importable, reporting
from stages.train import main as train
from tests.trainings import ON_POLICY, sums, train_options

STEPS = {"arms.filtered.max_steps": 6, "run.threads": 1}
OTHERS = ["swanlab", "wandb", "mlflow", "dvclive"]
KEYS = ("SWANLAB_API_KEY", "SWANLAB_MODE", "WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def job(tmp_path: Path, tiny_params: Callable[..., Path], tiny_student: Path) -> Callable[..., Job]:
    """``job(["wandb"])``: a training that reports to these, not begun."""

    def make(report_to: list[str], changes: dict[str, Any] | None = None) -> Job:
        params = load_params(tiny_params({"run.report_to": report_to} | (changes or {})))
        arm, markers = params.arms["filtered"], params.convert.markers
        return Job(
            "filtered", sums(3), tiny_student, params.train, arm, params.run, markers, tmp_path / "model", rows=tmp_path
        )

    return make


def losses(tmp_path: Path) -> list[float]:
    """Those of the loss curve."""
    with (tmp_path / "model.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_loaded(
    tmp_path: Path, job: Callable[..., Job]
) -> None:
    with pytest.raises(TrainingError, match=r"^run\.report_to: wandb: not installed\. Run 'make trackers', or remove"):
        check_installed(job(["swanlab", "wandb"]), has=lambda tracker: tracker == "swanlab")
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    (site / "tensorboard").mkdir(parents=True)
    program = tmp_path / "env" / "bin" / "llamafactory-cli"
    LLAMAFACTORY.check_trackers(job(["tensorboard"]), str(program))
    with pytest.raises(TrainingError, match=r"swanlab: not installed. Run '.*python -m pip install tensorboard"):
        LLAMAFACTORY.check_trackers(job(["tensorboard", "swanlab"]), str(program))
    LLAMAFACTORY.check_trackers(job(["swanlab"]), "/nowhere/a-wrapper")


def test_a_tracker_that_transformers_does_not_know_is_refused(tiny_params: Callable[..., Path]) -> None:
    with pytest.raises(ParamsError, match=r"run\.report_to"):
        load_params(tiny_params({"run.report_to": ["excel"]}))


def test_trackers_are_off_unless_they_are_named(job: Callable[..., Job], tmp_path: Path) -> None:
    """An installed tracker would get every training otherwise."""
    kinds = {"llamafactory": llamafactory_yaml, "openmind": openmind_yaml, "swift": swift_yaml}
    for kind, yaml in kinds.items():
        changes = {"train.trainer.kind": kind, "train.system_prompt": "in_user_turn"}
        scratch = tmp_path / ".cache" / "training" / "filtered"
        off = yaml(job([], changes), scratch)
        assert (off["report_to"], off.keys() & {"run_name", "logging_dir"}) == ("none", set())
        named = yaml(job(["tensorboard", "wandb"], changes), scratch)
        assert (named["report_to"], named["run_name"]) == (["tensorboard", "wandb"], "filtered")
        assert ("logging_dir" in named) == (kind == "openmind")
    with reporting(job([])):
        assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    assert not (tmp_path / ".cache" / "trackers").exists()


def test_no_host_is_called_without_a_key_and_the_environment_goes_first(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with reporting(job(OTHERS)):
        assert (os.environ["SWANLAB_MODE"], os.environ["WANDB_MODE"]) == ("offline", "offline")
        assert os.environ["MLFLOW_TRACKING_URI"].startswith(f"sqlite:///{tmp_path}")
        assert (os.environ["WANDB_PROJECT"], os.environ["SWANLAB_PROJECT"]) == ("mine", "distillery")
    assert not {"SWANLAB_MODE", "WANDB_MODE", "MLFLOW_TRACKING_URI"} & os.environ.keys()
    monkeypatch.setenv("SWANLAB_API_KEY", "k")
    with reporting(job(OTHERS)):
        assert "SWANLAB_MODE" not in os.environ


@pytest.mark.heavy
def test_tensorboards_file_holds_the_losses_of_the_training(
    tmp_path: Path, tiny_params: Callable[..., Path], runs: Callable[..., Result]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs(train, *train_options(tmp_path, tiny_params(STEPS | {"run.report_to": ["tensorboard"]})))
    (folder,) = (tmp_path / ".cache" / "trackers" / "tensorboard" / "filtered").iterdir()
    events = EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events] == pytest.approx(losses(tmp_path), abs=1e-4)


@pytest.mark.trackers
def test_the_other_trackers_keep_the_losses_in_files(
    tmp_path: Path, tiny_params: Callable[..., Path], runs: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training reports to all of them, with no key and no server."""
    if missing := [tracker for tracker in OTHERS if not is_importable(tracker)]:
        pytest.fail(f"not installed: {missing}: 'make trackers'")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    runs(train, *train_options(tmp_path, tiny_params(STEPS | {"run.report_to": OTHERS})))
    logs = tmp_path / ".cache" / "trackers"
    expected = pytest.approx(losses(tmp_path), abs=1e-4)

    with (logs / "dvclive" / "filtered" / "plots" / "metrics" / "loss.tsv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")] == expected
    with sqlite3.connect(logs / "mlflow" / "mlflow.db") as database:
        rows = database.execute("select value from metrics where key = 'loss' order by step").fetchall()
    assert [value for (value,) in rows] == expected
    (backup,) = (logs / "swanlab").glob("run-*/backup.swanlab")
    assert swanlab_losses(backup) == expected
    assert list((logs / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.trackers
def test_an_on_policy_training_reports_to_dvclive_too(
    tmp_path: Path, tiny_student: Path, tiny_params: Callable[..., Path], runs: Callable[..., Result]
) -> None:
    arm = ON_POLICY | {"teacher": {"source": "filtered", "worked_examples": 2}}
    params = tiny_params({"on_policy": {"polished": arm}, "run.report_to": ["dvclive"], "run.threads": 1})
    words = train_options(tmp_path, params)
    words[words.index("filtered")] = "polished"
    runs(train, *words, "--start-from", tiny_student, "--teacher", tiny_student)
    expected = pytest.approx(losses(tmp_path), abs=1e-4)
    metrics = tmp_path / ".cache" / "trackers" / "dvclive" / "polished" / "plots" / "metrics"
    with (metrics / "loss.tsv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")] == expected
    assert (metrics / "completions" / "mean_length.tsv").is_file()


def swanlab_losses(backup: Path) -> list[float]:
    """Read by SwanLab's own reader, as ``swanlab sync`` does."""
    import swanlab
    from swanlab.data.porter.datastore import DataStore

    swanlab.finish()
    store = DataStore()
    store.open_for_scan(str(backup))
    entries = [json.loads(text) for text in store]
    return [
        entry["data"]["metric"]["data"]
        for entry in entries
        if entry["model_type"] == "Scalar" and entry["data"]["key"] == "train/loss"
    ]
