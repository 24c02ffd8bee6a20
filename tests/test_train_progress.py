"""What a training shows while it runs: the loss curve that grows, and a line on stderr every few seconds."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.lib.params import load_params
from stages.lib.training import LossPoint
from stages.lib.training.launching import launch
from stages.lib.training.progress import Progress, curve, follow_file, follow_output, is_for_the_log_alone
from stages.train import write_plots

POINTS = [LossPoint(step, 5.0 / step, 0.001 / step) for step in range(1, 7)]
# lines of trainer_log.jsonl (LLaMA-Factory 0.9.5)
LLAMAFACTORY = (
    '{"current_steps": 1, "total_steps": 20, "loss": 5.5948, "lr": 0.0, "epoch": 0.2, "percentage": 5.0, '
    '"elapsed_time": "0:00:00", "remaining_time": "0:00:01"}\n'
    '{"current_steps": 20, "total_steps": 20, "epoch": 4.0, "percentage": 100.0, "elapsed_time": "0:00:01"}\n'
)
# a line of logging.jsonl (ms-swift 4.6.0)
SWIFT = (
    '{"loss": 5.5948, "grad_norm": 2.0, "learning_rate": 0.001, "epoch": 0.2, "global_step/max_steps": "3/20", '
    '"elapsed_time": "1s", "remaining_time": "9s", "train_speed(s/it)": 0.1}\n'
)
BAR = " 33%|███▎      | 4/12 [00:00<00:00,  8.61it/s]"
OPENMIND = "{'loss': 4.7201, 'grad_norm': 2.221, 'learning_rate': 6.699e-05, 'epoch': 0.33}"
END = "{'train_runtime': 0.4672, 'train_samples_per_second': 25.69, 'train_loss': 5.006, 'epoch': 4.0}"


def test_the_curve_grows_by_a_line_a_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "filtered.loss.csv"
    progress = Progress("filtered", path, 380)
    progress.start(6)
    assert path.read_text() == "step,loss,learning_rate\n"
    for number, point in enumerate(POINTS, start=1):
        progress.add(point)
        assert path.read_text() == curve(POINTS[:number])
    progress.end()
    assert path.read_text().splitlines()[-1] == "6,0.8333,0.000167"


def test_a_resumed_curve_goes_on_from_its_checkpoint_and_has_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "filtered.loss.csv"
    path.write_text(curve(POINTS[:5]))  # as the kill left it, two steps after the checkpoint
    progress = Progress("filtered", path, 380)
    progress.start(6, POINTS[:3])
    assert path.read_text() == curve(POINTS[:3])
    for point in (*POINTS[2:], POINTS[-1]):
        progress.add(point)
    assert path.read_text() == curve(POINTS)


def test_a_line_every_few_seconds_has_step_loss_speed_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes two seconds here; the time of the program's start is not counted."""
    caplog.set_level(logging.INFO, "distillery")
    clock = iter(range(100, 200, 2))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    progress = Progress("filtered", None, 380)
    progress.start(46)
    for point in POINTS:
        progress.add(point)
    progress.end()
    assert caplog.messages == [
        "train: filtered: step 1 of 46, loss 5",
        "train: filtered: step 4 of 46, loss 1.25, 190 tokens/s, 01:24 left",
        "train: filtered: step 6 of 46, loss 0.8333, 190 tokens/s, 01:20 left",
    ]


def test_json_lines_are_followed_from_where_the_run_began(tmp_path: Path) -> None:
    log, path = tmp_path / "trainer_log.jsonl", tmp_path / "loss.csv"
    log.write_text('{"current_steps": 3, "loss": 9.0, "lr": 0.1}\n')  # of the run that was killed
    progress = Progress("filtered", path, 380)
    progress.start(20)
    follow = follow_file(progress, log)
    follow(BAR)
    assert path.read_text() == curve([])
    for part in (LLAMAFACTORY[:30], LLAMAFACTORY[30:]):  # a line may be half written when it is read
        with log.open("a") as file:
            file.write(part)
        follow(BAR)
    with log.open("a") as file:
        file.write(SWIFT)
    follow(BAR)
    assert path.read_text() == curve([LossPoint(1, 5.5948, 0.0), LossPoint(3, 5.5948, 0.001)])


def test_dictionaries_are_counted_from_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    progress = Progress("filtered", path, 380)
    progress.start(30, [LossPoint(10, 5.0, 0.1)])
    follow = follow_output(progress, resumed_at=15, logging_steps=10)
    for text in ("***** Running training *****", BAR, OPENMIND, BAR, OPENMIND.replace("4.7201", "nan"), END):
        follow(text)
    assert path.read_text() == curve(
        [LossPoint(10, 5.0, 0.1), LossPoint(20, 4.7201, 6.699e-05), LossPoint(30, float("nan"), 6.699e-05)]
    )


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (BAR, True),
        (f"Train: {BAR}", True),
        ("Loading weights: 100%|██████████| 26/26 [00:00<00:00, 7041.51it/s]", True),
        (OPENMIND, True),
        (f"      {END}", True),
        ("***** Running training *****", False),
        ("{", False),
        ("ValueError: {'template': 'qwen'} is not known", False),
        ("  loss 50%", False),
    ],
)
def test_bars_and_dictionaries_are_for_the_log_alone(text: str, hidden: bool) -> None:
    assert is_for_the_log_alone(text) == hidden


def test_stderr_shows_a_programs_other_lines_and_the_log_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    said = f"begun\n{BAR}\r{BAR}\r   \r{OPENMIND}\n先想\nno end"
    (tmp_path / "said").write_text(said, newline="")
    launch(["cat", str(tmp_path / "said")], os.environ, tmp_path / "log", follow=seen.append)
    assert capfd.readouterr().err.splitlines()[-3:] == ["begun", "先想", "no end"]
    assert (tmp_path / "log").read_bytes() == (tmp_path / "said").read_bytes()
    assert seen == ["begun", BAR, BAR, OPENMIND, "先想", "no end"]


@pytest.mark.heavy
def test_dvc_draws_all_arms_in_one_picture_while_one_is_trained(
    tmp_path: Path, tiny_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_plots(load_params(tiny_params()))
    train, convert = tmp_path / "metrics" / "train", tmp_path / "metrics" / "convert"
    for folder in (train, convert):
        folder.mkdir()
    (train / "unfiltered.loss.csv").write_text(curve(POINTS))
    (train / "filtered.loss.csv").write_text(curve(POINTS[:2]))
    for name in ("unfiltered", "filtered"):
        (convert / f"{name}.lengths.csv").write_text("tokens,share\n60,0.0\n101,1.0\n")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    done = subprocess.run([*dvc, "plots", "show", "--json"], cwd=tmp_path, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert "errors" not in found
    drawn = {
        name: [(each["filename"], float(each["tokens" if name == "lengths" else "step"])) for each in values]
        for name, (plot,) in found["data"].items()
        for values in [plot["content"]["data"]["values"]]
    }
    steps = [("unfiltered.loss.csv", float(step)) for step in range(1, 7)]
    assert drawn["losses"] == [*steps, ("filtered.loss.csv", 1.0), ("filtered.loss.csv", 2.0)]
    names = [f"{name}.lengths.csv" for name in ("unfiltered", "filtered") for _ in range(2)]
    assert drawn["lengths"] == list(zip(names, [60.0, 101.0] * 2, strict=True))
