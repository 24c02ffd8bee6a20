"""What the tests of trainings share: rows, datasets, the options of the stage, and trainings by a real program."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.lib.training import Conversation, external_inputs
from stages.lib.training.checkpoints import last_checkpoint
from stages.train import main as train
from tests.workspace import ROOT

SYSTEM = "Think first. 先想。"
FOUR_EPOCHS = {"arms.filtered.num_train_epochs": 4.0, "train.per_device_train_batch_size": 2}
# an arm of on_policy
ON_POLICY: dict[str, Any] = {"dataset": "filtered", "num_train_epochs": 1.0, "max_steps": 6, "learning_rate": 0.01}
ON_POLICY |= {"cutoff_len": 256, "start_from": "filtered", "teacher": {"source": "unfiltered", "worked_examples": 0}}
ON_POLICY |= {"max_new_tokens": 12, "temperature": 1.0, "top_k": 0, "beta": 1.0}
ZERO2 = "profiles/deepspeed/ds_z2_config.json"


def sums(count: int) -> list[Conversation]:
    return [
        Conversation(
            SYSTEM, f"What is {n} + 5?", f"<think>\n\n{n} + 5 = {n + 5}</think>\n\n<answer>\n\n{n + 5}</answer>"
        )
        for n in range(count)
    ]


def write_sharegpt(folder: Path, rows: list[Conversation]) -> Path:
    """A dataset's folder as convert writes it."""
    folder.mkdir()
    samples = [
        {
            "system": row.system,
            "conversations": [{"from": "user", "value": row.user}, {"from": "assistant", "value": row.assistant}],
        }
        for row in rows
    ]
    (folder / f"{folder.name}.json").write_text(json.dumps(samples))
    (folder / "dataset_info.json").write_text(
        json.dumps({folder.name: {"tags": external_inputs.TAGS | {"system_tag": "s"}}})
    )
    return folder


def train_options(tmp_path: Path, params: Path, rows: list[Conversation] | None = None) -> list[str]:
    dataset = tmp_path / "sums"
    if not dataset.exists():
        write_sharegpt(dataset, rows or sums(10))
    options = {"dataset": dataset, "model": tmp_path / "model", "metrics": tmp_path / "model.json"}
    options |= {"left-out": tmp_path / "model.left_out.jsonl", "loss": tmp_path / "model.csv", "params": params}
    return ["--arm", "filtered", *(text for name, path in options.items() for text in (f"--{name}", str(path)))]


def found_of(stage: subprocess.Popen[Any], tmp_path: Path, pattern: str) -> Path:
    """What a running stage writes in its scratch folder, as soon as it is there."""
    deadline = time.monotonic() + 300
    while not (found := sorted((tmp_path / ".cache" / "training" / "filtered").glob(pattern))):
        assert stage.poll() is None, "it ended before"
        if time.monotonic() > deadline:
            stage.kill()
            pytest.fail(f"no {pattern} within 300 s")
        time.sleep(0.002)
    return found[0]


def kill_all(stage: subprocess.Popen[Any]) -> None:
    """Kill a stage and all that it started, as a machine that goes down does."""
    started = descendants(stage.pid)
    assert started
    for pid in [stage.pid, *started]:
        os.kill(pid, signal.SIGKILL)
    stage.wait()
    for pid in started:  # until the last of its threads is dead it holds the lock
        while not is_dead(pid):
            time.sleep(0.01)


def is_dead(pid: int) -> bool:
    """Whether no thread of a process is left, or none but its first, which waits to be told of (Linux)."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended meanwhile: look again
        return False
    return all("State:\tZ" in text for text in texts)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started (Linux)."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for text in texts for child in text.split()]
    return [each for child in children for each in (child, *descendants(child))]


def error_of(result: Result, tmp_path: Path) -> str:
    """The error of a training that failed, the last line on stderr; no model may be left."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert not (tmp_path / "model").exists()
    return line.removeprefix("Error: ")


def installed(program: Path, target: str) -> Path:
    """A trainer's own program; without it the tests are skipped, but never where CI=true."""
    if not program.is_file():
        missing = f"no {program.relative_to(ROOT)}: 'make {target}' makes it"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return program


def rows_of_which_one_is_too_long() -> list[Conversation]:
    """Ten rows."""
    rows = sums(10)
    rows[3] = Conversation(SYSTEM, "Why?", "so " * 2000)
    return rows


def assert_loads_and_answers(saved: Path, older_student: Path) -> Any:
    """Saved weights differ from the student's, and answer; the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, student = (AutoModelForCausalLM.from_pretrained(each) for each in (saved, older_student))
    weights, before = model.state_dict(), student.state_dict()
    assert weights.keys() == before.keys()
    assert any(not weights[name].equal(before[name]) for name in weights)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    prompt = tokenizer.apply_chat_template(sums(1)[0].messages()[:-1], add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]
    return tokenizer


def counted(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics of the training of ten rows in FOUR_EPOCHS, checked, and its run facts."""
    metrics = json.loads((folder / "model.json").read_text())
    assert (metrics["rows"], metrics["rows_too_long"], metrics["share_over_cutoff_len"]) == (9, 1, 0.1)
    assert (metrics["steps"], metrics["epochs"], metrics["effective_batch"]) == (20, 4.0, 2)
    assert metrics["last_loss"] < metrics["first_loss"]
    points = (folder / "model.csv").read_text().splitlines()[1:]
    assert [point.split(",")[0] for point in points] == [str(step) for step in range(1, 21)]
    assert metrics["tokens_trained"] < metrics["tokens_seen"]
    return metrics, json.loads((folder / "metrics" / "runs" / "train-filtered.json").read_bytes())


def killed_after_a_checkpoint(tmp_path: Path, arguments: list[str]) -> Path:
    """Start the stage, kill it and all that it started once two checkpoints are there; the newest whole one."""
    stage = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    output = found_of(stage, tmp_path, "*/output/checkpoint-4").parent  # then the one before is whole
    kill_all(stage)
    assert not (tmp_path / "model").exists()
    newest = last_checkpoint(output)
    assert newest is not None
    assert_curve_grew(tmp_path)
    return newest


def assert_curve_grew(tmp_path: Path, name: str = "model") -> None:
    """The loss curve of a training that was killed has the steps that it had done, each once."""
    header, *lines = (tmp_path / f"{name}.csv").read_text().splitlines()
    assert header == "step,loss,learning_rate"
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert lines


def assert_resumes_to_the_same_bytes(
    tmp_path: Path, arguments: list[str], newest: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights, metrics and loss curve are the same bytes as without the kill: no tolerance, on one machine's CPU."""
    step = newest.name.removeprefix("checkpoint-")
    caplog.set_level("INFO", "distillery")
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert f"resuming from step {step} " in caplog.text
    for path in [*(undisturbed / "model").iterdir(), *undisturbed.glob("model.*")]:
        assert path.read_bytes() == (tmp_path / path.relative_to(undisturbed)).read_bytes(), path.name
    runs = json.loads((tmp_path / "metrics" / "runs" / "train-filtered.json").read_bytes())
    assert runs["resumed_at"] == int(step)
