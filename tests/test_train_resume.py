"""A training that is killed goes on where it was, and says before it begins what it lacks. A tiny student, for real."""

import fcntl
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.lib.params import LocalStudent, load_params
from stages.lib.trainers.trl import estimated_size
from stages.lib.training import Job, TrainingError
from stages.lib.training.checkpoints import digest, last_checkpoint
from stages.lib.training.identity import student_identity
from stages.lib.training.resources import Sharing, Size, check_disk, check_memory, explain_out_of_memory
from stages.train import main as train
from tests.trainings import assert_curve_grew, sums, write_sharegpt
from tests.workspace import ROOT, write_plain_params

Params = Callable[..., Path]
OFTEN = {"run.checkpoint_steps": 5, "arms.filtered.max_steps": 60, "run.threads": 1}


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def options(tmp_path: Path, params: Path, name: str = "model") -> list[str]:
    if not (tmp_path / "sums").exists():
        write_sharegpt(tmp_path / "sums", sums(10))
    paths = {"dataset": tmp_path / "sums", "model": tmp_path / name, "metrics": tmp_path / f"{name}.json"}
    paths |= {"left-out": tmp_path / f"{name}.jsonl", "loss": tmp_path / f"{name}.csv", "params": params}
    return ["--arm", "filtered", *(text for key, path in paths.items() for text in (f"--{key}", str(path)))]


def scratch(tmp_path: Path) -> Path:
    return tmp_path / ".cache" / "training" / "filtered"


def kill_after_a_checkpoint(arguments: list[str], tmp_path: Path) -> Path:
    """Start a training, kill it as the kernel would once a checkpoint is whole; the checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (found := list(scratch(tmp_path).glob("*/checkpoint-*/trainer_state.json"))):
        assert process.poll() is None, "it ended before it wrote a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    return found[0].parent


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Callable[[str], Path]:
    """A folder with a training that was killed after a checkpoint, with LoRA or full, and an undisturbed one."""

    @cache
    def trained(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DVC_ROOT", str(folder))
            write_killed_params(folder, tiny_student, kind)
            result = CliRunner().invoke(train, options(folder, folder / "params.yaml", "undisturbed"))
            assert result.exit_code == 0, result.output
            kill_after_a_checkpoint(options(folder, folder / "params.yaml"), folder)
        assert not (folder / "model").exists()
        assert_curve_grew(folder)
        return folder

    return trained


def write_killed_params(folder: Path, student: Path, kind: str, changes: dict[str, Any] | None = None) -> None:
    own: dict[str, Any] = {"train.student.kind": "path", "train.student.name": str(student)} | OFTEN
    own |= {"train.finetuning.kind": kind} | ({"train.finetuning.dropout": 0.1} if kind == "lora" else {})
    write_plain_params(ROOT / "params.yaml", own | (changes or {}), folder / "params.yaml")


def assert_undisturbed(folder: Path) -> None:
    """The weights and metrics are the bytes of the training that was not killed."""
    for path in (folder / "undisturbed").iterdir():
        assert path.read_bytes() == (folder / "model" / path.name).read_bytes(), path.name
    for suffix in ("json", "csv"):
        assert (folder / f"model.{suffix}").read_bytes() == (folder / f"undisturbed.{suffix}").read_bytes()
    assert not scratch(folder).exists(), "checkpoints were to be deleted on success"


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_killed_training_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path,
    killed: Callable[[str], Path],
    runs: Callable[..., Result],
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(killed(kind), tmp_path, dirs_exist_ok=True)
    (folder,) = {path.parent for path in scratch(tmp_path).glob("*/checkpoint-*")}  # beside the killed one's rows
    newest = last_checkpoint(folder)
    assert newest is not None
    torn = folder / "checkpoint-59"  # as where it is killed while it writes one
    shutil.copytree(newest, torn)
    (torn / "trainer_state.json").unlink()
    caplog.set_level(logging.INFO, "distillery")
    runs(train, *options(tmp_path, tmp_path / "params.yaml"))
    assert f"resuming from step {newest.name.removeprefix('checkpoint-')} " in caplog.text
    assert_undisturbed(tmp_path)
    took = json.loads((tmp_path / "metrics" / "runs" / "train-filtered.json").read_bytes())
    assert took["resumed_at"] == int(newest.name.removeprefix("checkpoint-"))


@pytest.fixture
def job(tmp_path: Path, tiny_params: Params, tiny_student: Path) -> Callable[..., Job]:
    """``job({"run.checkpoint_steps": 5})``: a training of ten sums, not begun."""

    def make(changes: dict[str, Any] | None = None) -> Job:
        params = load_params(tiny_params(changes))
        arm, markers = params.arms["filtered"], params.convert.markers
        student = tmp_path / "student"
        shutil.copytree(tiny_student, student, dirs_exist_ok=True)
        return Job(
            "filtered",
            sums(10),
            student,
            params.train,
            arm,
            params.run,
            markers,
            tmp_path / "out" / "model",
            rows=tmp_path,
        )

    return make


@pytest.mark.parametrize(
    ("change", "shapes"),
    [
        ({"train.seed": 4}, True),
        ({"train.finetuning.r": 4}, True),
        ({"arms.filtered.learning_rate": 0.5}, True),
        ({"arms.filtered.max_steps": 7}, True),
        ({"train.per_device_train_batch_size": 1}, True),
        ({"train.trainer.packing": True}, True),
        ({"run.processes": 2}, True),
        ({"train.finetuning.keep_adapter": True}, False),
        ({"arms.filtered.cutoff_len": 600}, False),
        ({"run.checkpoint_steps": 7}, False),
        ({"run.resume": False}, False),
        ({"run.concurrency": 3}, False),
    ],
)
def test_another_training_is_known_by_all_that_shapes_its_weights(
    job: Callable[..., Job], change: dict[str, Any], shapes: bool
) -> None:
    rows = sums(10)
    assert (digest(job(change), rows) != digest(job(), rows)) is shapes


def test_other_rows_or_another_student_make_another_training(job: Callable[..., Job]) -> None:
    one, rows = job(), sums(10)
    before = digest(one, rows)
    assert digest(one, rows) == before
    assert digest(one, rows[::-1]) != before
    assert digest(one, [replace(rows[0], system="Other."), *rows[1:]]) != before
    weights = one.student / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert digest(one, rows) != before


def test_checkpoints_of_other_params_are_never_resumed_from_and_are_removed_on_success(
    tmp_path: Path, tiny_params: Params, runs: Callable[..., Result], caplog: pytest.LogCaptureFixture
) -> None:
    stale = scratch(tmp_path) / "0123456789abcdef"
    (stale / "checkpoint-5").mkdir(parents=True)
    (stale / "checkpoint-5" / "trainer_state.json").write_text('{"global_step": 5}')
    (stale / "lock").touch()
    caplog.set_level(logging.INFO, "distillery")
    runs(train, *options(tmp_path, tiny_params({"run.checkpoint_steps": 1})))
    assert "resuming from" not in caplog.text
    assert not scratch(tmp_path).exists()


@pytest.mark.heavy
def test_resume_false_begins_anew(
    tmp_path: Path,
    tiny_student: Path,
    killed: Callable[[str], Path],
    runs: Callable[..., Result],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "distillery")
    shutil.copytree(killed("lora"), tmp_path, dirs_exist_ok=True)
    write_killed_params(tmp_path, tiny_student, "lora", {"run.resume": False})
    runs(train, *options(tmp_path, tmp_path / "params.yaml"))
    assert "resuming from" not in caplog.text
    assert_undisturbed(tmp_path)


@pytest.mark.heavy
def test_a_training_that_runs_already_is_not_run_twice(
    tmp_path: Path, killed: Callable[[str], Path], refuses: Callable[..., str]
) -> None:
    shutil.copytree(killed("lora"), tmp_path, dirs_exist_ok=True)
    (folder,) = {path.parent for path in scratch(tmp_path).glob("*/checkpoint-*")}  # beside the killed one's rows
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = refuses(train, *options(tmp_path, tmp_path / "params.yaml"))
    assert "another process trains 'filtered' on the same rows and params" in line
    assert list(folder.glob("checkpoint-*"))


@pytest.mark.parametrize("present", [[], ["model-00001-of-00002.safetensors"]])
def test_missing_weights_are_named_before_anything_is_loaded(
    tmp_path: Path, job: Callable[..., Job], tiny_params: Params, refuses: Callable[..., str], present: list[str]
) -> None:
    student = job().student
    (student / "model.safetensors").unlink()
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    if present:
        (student / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    for name in present:
        (student / name).touch()
    line = refuses(train, *options(tmp_path, tiny_params({"train.student.name": str(student)})))
    assert line.startswith(f"{student}: 1 weight files are missing, ")
    assert ("model-00002-of-00002" in line) is bool(present)


def test_the_estimated_size_is_that_of_the_model(job: Callable[..., Job]) -> None:
    from transformers import AutoModelForCausalLM

    full, lora = job({"train.finetuning.kind": "full"}), job({"train.finetuning.r": 8})
    count = AutoModelForCausalLM.from_pretrained(full.student).num_parameters()
    assert estimated_size(full) == Size(count, count)
    # q and o 64→64, k and v 64→32, gate and up 64→128, down 128→64, in two layers
    adapters = 2 * 8 * (2 * 128 + 2 * 96 + 3 * 192)
    assert estimated_size(lora) == Size(count + adapters, adapters)


def test_too_little_disk_is_told_with_what_to_do(tmp_path: Path, job: Callable[..., Job]) -> None:
    often, size = job({"run.checkpoint_steps": 5}), Size(10**9, 10**15)
    with pytest.raises(TrainingError, match=r"2 checkpoints\. Free disk space, or set run\.checkpoint_steps: null\.$"):
        check_disk(often, size, tmp_path / "scratch")
    check_disk(job(), replace(size, parameters=10**3), tmp_path / "scratch")
    with pytest.raises(TrainingError, match=r"filtered needs .* 0 checkpoints\. Free disk space\.$"):
        check_disk(job(), Size(10**15, 1), tmp_path / "scratch")


def test_the_memory_is_said_and_refused_where_the_device_has_less(
    job: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "distillery")
    one = Sharing(cards=1, stage=None, bf16=False)
    check_memory(job(), Size(2**28, 2**20), one)
    assert "at least 1.0 GiB of memory" in caplog.text
    with pytest.raises(TrainingError, match=r"needs .* GiB for weights, gradients and optimizer, and cpu has "):
        check_memory(job(), Size(10**15, 1), one)
    check_memory(job(), Size(2**28, 2**20), replace(one, cards=2))
    assert "at least 2.0 GiB of memory" in caplog.text, "two processes on a CPU share its memory"


def test_a_7b_on_cards_is_refused_alone_and_shared_out_by_zero(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but the properties of a card is asked: mem_get_info would take a part of the first one."""
    import torch

    card = SimpleNamespace(get_device_properties=lambda index: SimpleNamespace(total_memory=80 * 10**9))
    monkeypatch.setattr(torch, "npu", card, raising=False)
    caplog.set_level(logging.INFO, "distillery")
    full = job({"train.finetuning.kind": "full", "run.device": "npu", "train.bf16": True})
    size = Size(7_615_616_512, 7_615_616_512)
    with pytest.raises(TrainingError, match=r"needs 113\.5 GiB .* npu has 74\.5 GiB\. .* the cards of run\.processes"):
        check_memory(full, size, Sharing(cards=1, stage=None, bf16=False))
    check_memory(full, size, Sharing(cards=4, stage=2, bf16=True))
    assert "at least 39.0 GiB of memory, more with longer rows; each npu has 74.5 GiB" in caplog.text


def test_memory_that_runs_out_names_the_params_to_turn(job: Callable[..., Job]) -> None:
    import torch

    full = job({"train.finetuning.kind": "full"})
    with pytest.raises(TrainingError) as caught, explain_out_of_memory(full):
        torch.empty(2**60)
    line = str(caught.value)
    assert line.startswith("train: filtered: cpu is out of memory. Lower train.per_device_train_batch_size")
    for param in ("gradient_checkpointing: true", "finetuning.kind: lora", "arms.filtered.cutoff_len"):
        assert param in line
    small = job({"train.per_device_train_batch_size": 1, "train.gradient_checkpointing": True})
    with (
        pytest.raises(TrainingError, match=r"out of memory\. Lower arms.filtered.cutoff_len\.$"),
        explain_out_of_memory(small),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(small):
        raise RuntimeError("shapes do not match")


def test_the_record_says_what_was_trained_and_the_run_what_it_took(
    tmp_path: Path, tiny_params: Params, tiny_student: Path, runs: Callable[..., Result]
) -> None:
    runs(train, *options(tmp_path, tiny_params({"arms.filtered.max_steps": 2})))
    text = (tmp_path / "model.json").read_text()
    record = json.loads(text)
    assert record["student"] == student_identity(LocalStudent(kind="path", name=str(tiny_student)))
    named = {"rows", "left_out", "steps", "epochs", "tokens_seen", "tokens_trained", "effective_batch", "last_loss"}
    assert named <= record.keys()
    assert str(tmp_path) not in text and str(tiny_student.parent) not in text, "a path of this machine"
    took = json.loads((tmp_path / "metrics" / "runs" / "train-filtered.json").read_bytes())
    assert took["versions"]["trl"] == version("trl")
    assert {"torch", "transformers", "peft"} <= took["versions"].keys()
    assert took["device"] == "cpu"
    assert 0 < took["tokens_trained_per_second"] < took["tokens_per_second"]
    assert 100 < took["peak_memory_mib"] < 20_000
    assert 0 < took["padding_share"] < 0.5, "rows of some digits more or less"
    assert not took.keys() & record.keys()


def test_a_training_that_fails_before_its_first_checkpoint_leaves_nothing(
    tmp_path: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    params = tiny_params({"train.finetuning.target_modules": ["no_such_module"]})
    assert "TRL refuses these params" in refuses(train, *options(tmp_path, params))
    assert not scratch(tmp_path).exists()
