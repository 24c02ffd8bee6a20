"""A trainer in its own environment that uses transformers' ``Trainer``: start it, check its output, save its weights.

    program, words = find_program("openMind", settings.command, "OPENMIND_CLI", "openmind-cli")
    cards = cards_of(job, program, words)                      # as torchrun counts them
    state = check_written("openMind", job, rows, output, log)  # checks the state and the weights, not the exit code
    save(job, output, tokenizer)                               # merges an adapter into the student

What is specific to a trainer (its YAML, its template, its lengths) is in its package of ``trainers/``.
"""

import logging
import os
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from stages.lib.params import Lora
from stages.lib.training import LIBRARIES, Job, LossPoint, Trained, TrainingError
from stages.lib.training.launching import last_lines
from stages.lib.training.length import FittingRows, Measured
from stages.lib.training.resources import device_memory, memory_advice, says_out_of_memory
from stages.lib.training.saving import save_folder, save_model

log = logging.getLogger("distillery.train")

PROBE_S = 120.0
PROBE = """
import sys, torch
if sys.argv[1] == "npu":
    import torch_npu
backend = getattr(torch, sys.argv[1])
print(backend.device_count(), backend.get_device_properties(0).total_memory)
"""


class _LogEntry(BaseModel):
    step: int
    loss: float | None = None
    learning_rate: float | None = None
    train_loss: float | None = None


class State(BaseModel):
    """The trainer_state.json of a finished training."""

    global_step: int
    max_steps: int
    epoch: float
    log_history: list[_LogEntry]


class Tokenized(Measured, Protocol):
    """A row with its lengths as the trainer counts them."""

    @property
    def answer_tokens(self) -> int:
        """The tokens that have a loss, including the end token."""


T = TypeVar("T", bound=Tokenized)


@dataclass(frozen=True)
class Cards:
    """The cards of a training on all nodes, and the memory of one card in bytes (None: not known)."""

    count: int
    memory: int | None


def find_program(name: str, command: str | None, variable: str, usual: str) -> tuple[str, list[str]]:
    """The program that params or an environment variable name, and the arguments after it.

    ``usual`` is the trainer's own name for its program. TrainingError where the program is not installed.
    """
    text = command or os.environ.get(variable) or usual
    words = [text] if Path(text).is_file() else shlex.split(text)
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise TrainingError(
            f"train.trainer.kind: {name.lower()}: no program '{text}'. Install {name} ('make {name.lower()}-env'), and "
            f"name its {usual} in {variable} or in train.trainer.command."
        )
    return str(Path(program).absolute()), words[1:]


def releases(program: str, package: str) -> dict[str, str]:
    """The installed versions, in a program's environment, of a trainer's package and of the libraries that it uses."""
    found = {}
    for name in (package, *LIBRARIES):
        pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"
        for path in sorted(Path(program).parents[1].glob(pattern)):
            found[name] = path.name.partition("-")[2].removesuffix(".dist-info")
    return found


def cards_of(job: Job, program: str, words: list[str]) -> Cards:
    """The cards as torchrun counts them: NPROC_PER_NODE (or the command's option) times NNODES, else all visible."""
    kind = job.run.device.partition(":")[0]
    option = re.search(r"--nproc[-_]per[-_]node[ =](\d+)", " ".join(words))
    here = option[1] if option else os.environ.get("NPROC_PER_NODE")
    nodes = int(os.environ.get("NNODES") or 1)
    if kind == "cpu":  # one process on a CPU: NPROC_PER_NODE has no effect there
        return Cards(int(option[1]) if option else 1, device_memory("cpu"))
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES" if kind == "npu" else "CUDA_VISIBLE_DEVICES")
    seen, memory = probed(program, kind)
    count = int(here) if here else seen or len((visible or "0").split(","))
    return Cards(count * nodes, memory)


def probed(program: str, kind: str) -> tuple[int | None, int | None]:
    """How many cards the program's environment sees, and a card's memory. None where that cannot be found out."""
    python = Path(program).with_name("python")
    if not python.is_file():
        return None, None
    with suppress(OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        done = subprocess.run([python, "-c", PROBE, kind], capture_output=True, text=True, timeout=PROBE_S, check=False)
        count, memory = done.stdout.splitlines()[-1].split()
        return int(count), int(memory)
    return None, None


def has_ended(folder: Path) -> bool:
    """Whether a killed stage left final weights there: in the trainer's output, or in the checkpoint of its last step.

    The trainer is not restarted from that checkpoint, because it would train one step too many.
    """
    if not list(folder.glob("*.safetensors")):
        return False
    try:
        state = State.model_validate_json((folder / "trainer_state.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    return state.global_step >= state.max_steps


def check_written(name: str, job: Job, rows: int, output: Path, log_path: Path) -> State:
    """The state of a training that wrote weights after all steps on all rows; TrainingError otherwise."""
    try:
        state = State.model_validate_json((output / "trainer_state.json").read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise failure(name, job, f"{name} did not finish", log_path) from error
    wanted = job.arm.max_steps or state.max_steps
    if state.global_step != wanted or not list(output.glob("*.safetensors")):
        ended = f"{name} ended at step {state.global_step} of {wanted}, or without weights"
        raise failure(name, job, ended, log_path)
    seen = logged(log_path, "Num examples")
    if seen not in (None, rows):
        raise TrainingError(f"train: {name} trained on {seen} of {rows} rows. See {log_path} for the dropped rows.")
    return state


def failure(name: str, job: Job, what: str, log_path: Path) -> TrainingError:
    """The error of a failed training. Where it ran out of memory, the error names the params that need less."""
    if says_out_of_memory(log_path.read_text(errors="replace")):
        return TrainingError(f"train: {job.name}: {name} ran out of memory (see {log_path}). {memory_advice(job)}.")
    return TrainingError(f"train: {what}. {last_lines(log_path)}")


def logged(log_path: Path, name: str) -> int | None:
    """A count that the Trainer logs at its start, such as ``Num examples = 1,000``. If it started twice, the last."""
    text = log_path.read_text(errors="replace") if log_path.is_file() else ""
    found = re.findall(rf"{name}[^=\n]*= ([0-9,]+)", text)
    return int(found[-1].replace(",", "")) if found else None


def save(job: Job, output: Path, tokenizer: Any) -> None:
    """Save the final weights (an adapter is merged), and the tokenizer with the chat template of the training."""
    job.out.mkdir(parents=True)
    if job.train.lora:
        _merge(job, job.train.lora, output, tokenizer)
    else:
        save_folder(output, tokenizer, job)


def _merge(job: Job, lora: Lora, adapter: Path, tokenizer: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
    model = PeftModel.from_pretrained(student, str(adapter))
    if lora.keep_adapter:
        model.peft_config["default"].base_model_name_or_path = job.train.student.name  # not a path of this machine
        model.save_pretrained(job.out / "adapter")
    save_model(model.merge_and_unload(), tokenizer, job)


def trained(
    job: Job, state: State, dataset: FittingRows[T], log_path: Path, resumed_at: int, versions: dict[str, str]
) -> Trained:
    """The result of the training, from its state and its log."""
    batch = job.train.per_device_train_batch_size * job.train.gradient_accumulation_steps
    points = [
        LossPoint(entry.step, entry.loss, entry.learning_rate or 0.0)
        for entry in state.log_history
        if entry.loss is not None
    ]
    # a training of fewer steps than logging_steps logs only the mean over all of them
    means = [LossPoint(e.step, e.train_loss, 0.0) for e in state.log_history if e.train_loss is not None]
    return Trained(
        rows=len(dataset.rows),
        rows_shortened=dataset.shortened,
        left_out=dataset.left_out,
        steps=state.global_step,
        epochs=round(state.epoch, 4),
        tokens_seen=round(sum(row.tokens for row in dataset.rows) * state.epoch),
        tokens_trained=round(sum(row.answer_tokens for row in dataset.rows) * state.epoch),
        effective_batch=logged(log_path, "Total train batch size") or batch,
        losses=points or means,
        resumed_at=resumed_at,
        versions=versions,
    )
