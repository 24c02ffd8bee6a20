"""TRL in several processes: they learn what one would, and end with the stage, whatever ends it."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import TypeAdapter

from stages.lib.params import load_params
from stages.lib.trainers import trl
from stages.lib.trainers.trl.worker import fail
from stages.lib.trainers.trl.worker import main as work_of_a_process
from stages.lib.training import Job
from stages.lib.training.launching import launch
from stages.lib.training.meeting import Group
from stages.train import main as train
from tests.test_train_batches import uneven
from tests.trainings import found_of, kill_all, stored, write_sharegpt
from tests.workspace import ROOT, write_changed_params

Params = Callable[..., Path]
ZERO2, ZERO3 = (f"profiles/deepspeed/ds_z{stage}_config.json" for stage in (2, 3))
# eleven rows, two epochs, six steps: the processes' last batches are not full
SHARED: dict[str, Any] = {"train.gradient_accumulation_steps": 2, "train.per_device_train_batch_size": 2}
SHARED |= {"arms.filtered.num_train_epochs": 2.0, "train.finetuning.kind": "full", "run.threads": 2}


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / ZERO2).parent.mkdir(parents=True)
    for name in (ZERO2, ZERO3):
        shutil.copy(ROOT / name, tmp_path / name)


def options(tmp_path: Path, student: Path, changes: dict[str, Any], name: str = "model") -> list[str]:
    if not (tmp_path / "sums").exists():
        write_sharegpt(tmp_path / "sums", uneven(11))
    own = {"train.student.kind": "path", "train.student.name": str(student)}
    write_changed_params(ROOT / "params.yaml", own | SHARED | changes, tmp_path / f"{name}.yaml")
    paths = {"dataset": tmp_path / "sums", "model": tmp_path / name, "metrics": tmp_path / f"{name}.json"}
    paths |= {"left-out": tmp_path / f"{name}.jsonl", "loss": tmp_path / f"{name}.csv"}
    paths |= {"params": tmp_path / f"{name}.yaml"}
    return ["--arm", "filtered", *(text for key, path in paths.items() for text in (f"--{key}", str(path)))]


def job_of(tmp_path: Path, student: Path, changes: dict[str, Any] | None = None) -> Job:
    """A training that is not begun."""
    options(tmp_path, student, changes or {})
    params = load_params(tmp_path / "model.yaml")
    arm, markers = params.arms["filtered"], params.convert.markers
    return Job("filtered", uneven(11), student, params.train, arm, params.run, markers, tmp_path / "out", rows=tmp_path)


def difference(one: Path, other: Path) -> float:
    """The largest difference of any weight."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def logits(folder: Path) -> Any:
    """Those of a saved student for some tokens, as transformers loads it."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.arange(3, 40)[None]).logits


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"train.deepspeed": ZERO2, "train.gradient_checkpointing": True},
            id="ZeRO-2, checkpointed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"train.deepspeed": ZERO3, "train.finetuning.kind": "lora", "train.gradient_checkpointing": True},
            id="ZeRO-3, LoRA, checkpointed",
            marks=pytest.mark.heavy,
        ),
        pytest.param({"train.deepspeed": ZERO3}, id="ZeRO-3", marks=pytest.mark.slow),
        pytest.param({"train.trainer.fsdp2": True}, id="FSDP2", marks=pytest.mark.slow),  # heavy: killed and resumed
        pytest.param(
            {"train.trainer.fsdp2": True, "train.finetuning.kind": "lora", "train.gradient_checkpointing": True},
            id="FSDP2, LoRA, checkpointed",
            marks=pytest.mark.slow,
        ),
        pytest.param({"train.trainer.group_by_length": True}, id="by length", marks=pytest.mark.slow),
        pytest.param(
            {"train.trainer.packing": True, "arms.filtered.cutoff_len": 200}, id="packed", marks=pytest.mark.slow
        ),
        pytest.param({"train.finetuning.kind": "lora"}, id="LoRA", marks=pytest.mark.slow),
    ],
)
def test_two_processes_learn_what_one_learns_from_the_same_rows_in_the_same_order(
    tmp_path: Path, tiny_student: Path, runs: Callable[..., Result], changes: dict[str, Any]
) -> None:
    saving = ("train.deepspeed", "train.gradient_checkpointing", "train.trainer.fsdp2")  # memory, and nothing else
    alone = {name: value for name, value in changes.items() if name not in saving}
    runs(train, *options(tmp_path, tiny_student, alone, "one"))
    runs(train, *options(tmp_path, tiny_student, changes | {"run.processes": 2}, "two"))
    log = (tmp_path / ".cache" / "training" / "filtered.log").read_text()
    kind = "FSDP" if "train.trainer.fsdp2" in changes else "MULTI_CPU"
    assert f"2 processes ({'DEEPSPEED' if 'train.deepspeed' in changes else kind})" in log
    one, two = (json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("one", "two"))
    assert two == one | {name: pytest.approx(one[name], abs=1e-4) for name in ("first_loss", "last_loss")}
    assert difference(tmp_path / "one", tiny_student) > 1e-3, "it learnt"
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-6
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    ours, theirs = (logits(tmp_path / name) for name in ("one", "two"))
    assert float((ours - theirs).abs().max()) < 1e-4, "it is saved whole"
    assert not list((tmp_path / ".cache" / "training").glob("filtered/*"))


def test_what_the_processes_cannot_share_is_refused(
    tmp_path: Path, tiny_student: Path, refuses: Callable[..., str]
) -> None:
    line = refuses(train, *options(tmp_path, tiny_student, {"run.processes": 3}))
    assert line.startswith("run.processes: 3 processes cannot split the 2 batches of a step evenly")
    line = refuses(train, *options(tmp_path, tiny_student, {"train.deepspeed": ZERO3, "train.trainer.packing": True}))
    assert line.startswith("train.trainer.packing: ZeRO-3 never has the whole model")
    line = refuses(train, *options(tmp_path, tiny_student, {"train.trainer.fsdp2": True}))
    assert line.startswith("train.trainer.fsdp2: one process has nobody to share with")
    line = refuses(train, *options(tmp_path, tiny_student, {"train.trainer.fsdp2": True, "train.deepspeed": ZERO2}))
    assert "fsdp2 and deepspeed both shard the training" in line
    (tmp_path / "broken.json").write_text("[")
    line = refuses(train, *options(tmp_path, tiny_student, {"train.deepspeed": "broken.json"}))
    assert line.startswith(f"{tmp_path / 'broken.json'}: not a DeepSpeed settings file")


@pytest.mark.heavy
def test_a_process_that_fails_is_one_line_and_no_process_stays(tmp_path: Path, tiny_student: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(tiny_student, student)
    (student / "model.safetensors").write_bytes(b"torn")
    result = CliRunner().invoke(train, options(tmp_path, student, {"run.processes": 2}))
    assert result.exit_code == 1
    *said, line = result.stderr.splitlines()
    assert line.startswith("Error: train: filtered: SafetensorError: ")
    assert any("Traceback" in each for each in said), "the processes' own words stream to stderr"
    assert not processes(tmp_path)
    assert not (tmp_path / "model").exists()


def test_what_the_first_process_to_fail_says_is_the_error(tmp_path: Path) -> None:
    for said in ("train: filtered: npu is out of memory.", "train: filtered: RuntimeError: Connection closed by peer"):
        fail(tmp_path / "work.json", said)
    assert (tmp_path / "error.txt").read_text() == "train: filtered: npu is out of memory."


def test_a_process_that_meets_a_loss_that_is_no_number_says_so_to_the_stage(tmp_path: Path, tiny_student: Path) -> None:
    """The process is this one, as torchrun would start it; how the stage reads its line is tested above."""
    from safetensors.torch import load_file, save_file

    student = tmp_path / "student"
    shutil.copytree(tiny_student, student)
    tensors = load_file(student / "model.safetensors")
    tensors["model.norm.weight"][-1] = float("nan")
    save_file(tensors, student / "model.safetensors", metadata={"format": "pt"})
    job = stored(job_of(tmp_path, student), tmp_path / "rows")
    work = trl.Work(job, tmp_path / "scratch", None, os.getpid())
    work.scratch.mkdir()
    (work.scratch / "work.json").write_bytes(TypeAdapter(trl.Work).dump_json(work))
    with pytest.raises(SystemExit):
        work_of_a_process(work.scratch / "work.json")
    line = (work.scratch / "error.txt").read_text()
    assert line.startswith("train: filtered: the loss is nan at step 1, learning rate ")


@pytest.mark.heavy
def test_a_process_that_the_kernel_killed_names_the_params_to_turn(tmp_path: Path, tiny_student: Path) -> None:
    job = job_of(tmp_path, tiny_student, {"run.processes": 2})
    body = "import os, signal; os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "killed.py").write_text(body)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    log = tmp_path / "filtered.log"
    for command in ([*torchrun, str(tmp_path / "killed.py")], ["bash", "-c", "kill -9 $$"]):
        line = str(trl.failure(job, launch(command, os.environ, log), log))
        assert "a process was killed" in line
        assert "Lower train.per_device_train_batch_size" in line
    code = launch(["bash", "-c", "echo the disk is gone; exit 3"], os.environ, log)
    assert str(trl.failure(job, code, log)).endswith("ended with exit code 3. " + f"{log} ends: the disk is gone")


def processes(tmp_path: Path) -> list[int]:
    """Those that were started for a training in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(tmp_path).encode() in words and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def waited_for(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return what()


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_stage(tmp_path: Path, tiny_student: Path, ended_by: signal.Signals) -> None:
    arguments = options(tmp_path, tiny_student, {"run.processes": 2, "arms.filtered.max_steps": 100_000})
    log = tmp_path / ".cache" / "training" / "filtered.log"
    with (tmp_path / "stderr").open("wb") as stderr:
        stage = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=stderr)
    assert waited_for(lambda: log.is_file() and "step 1 of" in log.read_text(), 120)
    assert len(processes(tmp_path)) == 4, "the stage, torchrun and two of them"
    stage.send_signal(ended_by)
    stage.wait(60)
    assert waited_for(lambda: not processes(tmp_path), 60)
    if ended_by != signal.SIGKILL:
        assert "train: stopped, with all its processes." in (tmp_path / "stderr").read_text()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_the_error_whatever_the_others_say_of_its_absence(
    tmp_path: Path, tiny_student: Path
) -> None:
    arguments = options(tmp_path, tiny_student, {"run.processes": 2, "arms.filtered.max_steps": 100_000})
    log = tmp_path / ".cache" / "training" / "filtered.log"
    with (tmp_path / "stderr").open("wb") as stderr:
        stage = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=stderr)
    assert waited_for(lambda: log.is_file() and "step 1 of" in log.read_text(), 120)
    os.kill(max(processes(tmp_path)), signal.SIGKILL)
    assert stage.wait(60) == 1
    *_, line = (tmp_path / "stderr").read_text().splitlines()
    assert line.startswith("Error: train: filtered: a process was killed, probably because the host ran out of memory")
    assert not processes(tmp_path)


# twelve steps, four epochs: long enough to be killed between two checkpoints
OFTEN = {"arms.filtered.max_steps": 12, "run.checkpoint_steps": 2}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Callable[[str], Path]:
    """The folder of a training by one process that nothing disturbed, of all weights (full) or with LoRA (lora)."""

    @cache
    def trained(finetuning: str) -> Path:
        folder = tmp_path_factory.mktemp(finetuning)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DVC_ROOT", str(folder))
            changes = OFTEN | {"train.finetuning.kind": finetuning}
            result = CliRunner().invoke(train, options(folder, tiny_student, changes))
        assert result.exit_code == 0, result.output
        return folder

    return trained


@pytest.mark.parametrize(
    "sharing",
    [
        pytest.param({"train.deepspeed": ZERO2}, id="ZeRO-2", marks=pytest.mark.slow),
        pytest.param({"train.deepspeed": ZERO3}, id="ZeRO-3", marks=pytest.mark.slow),
        pytest.param(
            {"train.deepspeed": ZERO3, "train.finetuning.kind": "lora"}, id="ZeRO-3, LoRA", marks=pytest.mark.slow
        ),
        pytest.param({"train.trainer.fsdp2": True}, id="FSDP2", marks=pytest.mark.heavy),
        pytest.param(
            {"train.trainer.fsdp2": True, "train.finetuning.kind": "lora"}, id="FSDP2, LoRA", marks=pytest.mark.slow
        ),
    ],
)
def test_two_killed_processes_resume_and_learn_what_one_learns_undisturbed(
    tmp_path: Path,
    tiny_student: Path,
    undisturbed: Callable[[str], Path],
    runs: Callable[..., Result],
    caplog: pytest.LogCaptureFixture,
    sharing: dict[str, Any],
) -> None:
    arguments = options(tmp_path, tiny_student, OFTEN | {"run.processes": 2} | sharing)
    stage = subprocess.Popen([sys.executable, "-m", "stages.train", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    found_of(stage, tmp_path, "*/checkpoint-*/trainer_state.json")
    kill_all(stage)
    assert not (tmp_path / "model").exists()
    caplog.set_level(logging.INFO, "distillery")
    runs(train, *arguments)
    (resumed,) = [line for line in caplog.messages if "resuming from step" in line]
    assert int(resumed.split()[4]) in range(2, 12, 2), resumed
    one = undisturbed(sharing.get("train.finetuning.kind", "full"))
    assert losses(tmp_path / "model.csv") == pytest.approx(losses(one / "model.csv"), abs=1e-4)
    assert difference(one / "model", tiny_student) > 1e-3, "it learnt"
    assert difference(one / "model", tmp_path / "model") < 1e-5
    ours, theirs = (logits(folder / "model") for folder in (one, tmp_path))
    assert float((ours - theirs).abs().max()) < 1e-4, "it is saved whole"


def losses(path: Path) -> list[float]:
    """Those of a curve, by step."""
    return [float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]]


def test_a_process_ends_when_the_stage_that_waits_for_it_is_gone() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    code = f"from stages.lib.trainers.trl.worker import exit_with_parent; exit_with_parent({gone.pid})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 1


@pytest.mark.heavy
def test_a_card_of_its_own_is_trained_on_from_one_plain_process_with_the_same_bytes(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card, where a group of one would cost a copy of the gradients; here the card is the CPU."""
    monkeypatch.setenv("RANK", "1")  # as in a shell that trained with openMind on two hosts
    monkeypatch.setenv("WORLD_SIZE", "2")
    job = replace(job_of(tmp_path, tiny_student), out=tmp_path / "here")
    with monkeypatch.context() as patch:
        patch.delenv("WORLD_SIZE")
        here = trl.train(job)
    work = trl.Work(replace(job, out=tmp_path / "apart"), tmp_path / "filtered" / "scratch", None, os.getpid())
    assert "torch.distributed.run" not in trl.command_line(work.job, work.scratch / "work.json", 0)
    apart = trl.run_workers(work, Group(work.job))
    assert (apart.steps, apart.losses, apart.tokens_trained) == (here.steps, here.losses, here.tokens_trained)
    assert difference(tmp_path / "here", tmp_path / "apart") == 0
