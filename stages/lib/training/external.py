"""A trainer in its own environment that uses transformers' ``Trainer``: start it, check its output, save its weights.

    PROGRAM = Program("openMind", "openmind", "OPENMIND_CLI", "openmind-cli")
    trained = run(PROGRAM, job, dataset, tokenizer, prepared, variables)

What is specific to a trainer (the keys of its YAML, its template, its lengths) is in its package of ``trainers/``. The
program inherits the whole environment. Its exit code is not relied on: a training has succeeded only when the weights
and all its steps are written. With ``run.resume``, a killed training resumes from its last complete checkpoint.
"""

import logging
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stages.lib.command import project_root
from stages.lib.params import ExternalTrainer
from stages.lib.tokens.length import FittingRows
from stages.lib.training import LIBRARIES, Job, LossPoint, Trained, TrainingError
from stages.lib.training.checkpoints import held_folder, last_checkpoint, newest_checkpoint, step_of
from stages.lib.training.dataset import Stored
from stages.lib.training.external_inputs import settings_of
from stages.lib.training.external_plan import Cards, check_needs, digest, planned_steps
from stages.lib.training.launching import last_lines, launch
from stages.lib.training.meeting import Group, Joined, facts_of, joined, lead, meeting
from stages.lib.training.nodes import variables_of
from stages.lib.training.progress import Progress, follow_file, follow_output
from stages.lib.training.resources import device_memory, memory_advice, says_out_of_memory
from stages.lib.training.saving import save_folder, save_merged
from stages.lib.training.trackers import check_installed

log = logging.getLogger("distillery.train")

PROBE_S = 120.0
LISTED_S = 90.0  # a shared disk may show another node's new file a minute late
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

    @property
    def points(self) -> list[LossPoint]:
        """The losses of the steps that it logged."""
        return [
            LossPoint(entry.step, entry.loss, entry.learning_rate or 0.0)
            for entry in self.log_history
            if entry.loss is not None
        ]


# what a trainer does in the training's folder before its program starts, and after it
Prepared = Callable[[Stored, Path], AbstractContextManager[None]]


@dataclass(frozen=True)
class Program:
    """A trainer: its name, its kind, the variable that names its program, the program's usual name.

    ``log``: the file in its output folder with a JSON line for each step. Without one, it prints dictionaries.
    ``distribution``: its package on the index, unless that has the kind's name. ``starts``: the command of the program
    that trains; ``checks``: one that trains nothing. ``in_checkpoint``: it leaves the final weights in a checkpoint.
    """

    name: str
    kind: str
    variable: str
    usual: str
    log: str | None = None
    distribution: str | None = None
    starts: str = "train"
    checks: tuple[str, ...] = ("env",)
    in_checkpoint: bool = False

    @property
    def package(self) -> str:
        """Its package on the index, by which its release is known."""
        return self.distribution or self.kind

    def find(self, settings: ExternalTrainer) -> tuple[str, list[str]]:
        """The program that params or the variable name, and the arguments after it; TrainingError if there is none."""
        text = settings.command or os.environ.get(self.variable) or self.usual
        words = [text] if Path(text).is_file() else shlex.split(text)
        program = shutil.which(words[0]) if words else None
        if program is None:
            raise TrainingError(
                f"train.trainer.kind: {self.kind}: no program '{text}'. Install {self.name} "
                f"('make {self.kind}-env'), and name its {self.usual} in {self.variable} or in "
                "train.trainer.command."
            )
        return str(Path(program).absolute()), words[1:]

    def check_trackers(self, job: Job, program: str) -> None:
        """TrainingError if a tracker is not in the program's environment; nothing is known of a wrapper's."""
        if folders := list(Path(program).parents[1].glob("lib/python*/site-packages")):
            python = Path(program).with_name("python")
            install = f"{python} -m pip install {' '.join(job.run.report_to)}"
            check_installed(job, lambda tracker: any((folder / tracker).is_dir() for folder in folders), install)

    def command_line(self, settings: ExternalTrainer, yaml_path: Path) -> list[str]:
        """The command that trains by a YAML. Its path replaces ``{yaml}``, else ``train PATH`` (or so) is appended."""
        program, words = self.find(settings)
        if any("{yaml}" in word for word in words):
            return [program, *(word.replace("{yaml}", str(yaml_path)) for word in words)]
        return [program, *words, self.starts, str(yaml_path)]

    def final(self, output: Path) -> Path:
        """The folder with the weights of a training that ended: its output folder, or the last checkpoint there."""
        return (newest_checkpoint(output) if self.in_checkpoint else None) or output


def run(
    own: Program,
    job: Job,
    dataset: FittingRows,
    tokenizer: Any,
    prepared: Prepared,
    variables: Callable[[str, Path], dict[str, str]],
    on_cpu: int = 1,
) -> Trained:
    """Train in a locked folder and save the weights with ``tokenizer``.

    ``prepared`` writes train.yaml and what it names; ``variables`` gives the program's environment; ``on_cpu`` is the
    number of processes that the program starts by itself on a CPU.
    """
    settings = settings_of(job)
    program, words = own.find(settings)
    rows = dataset.conversations
    cards = cards_of(job, program, words, on_cpu)
    versions = releases(program, own.package)
    log_path = project_root() / ".cache" / "training" / f"{job.name}.log"
    name = digest(own.kind, job, rows, cards, versions)
    with held_folder(job.name, name, job.run.resume, leaves="train.yaml") as held:
        check_needs(job, dataset.rows, cards, held.folder)
        output = held.folder / "output"
        checkpoint = last_checkpoint(output)
        ended = next((folder for folder in (output, checkpoint) if folder and has_ended(folder)), None)
        if ended is None:
            if checkpoint is None:  # such trainers refuse a folder that holds anything but checkpoints
                shutil.rmtree(output, ignore_errors=True)
            command = own.command_line(settings, held.folder / "train.yaml")
            with (
                prepared(rows, held.folder),
                meeting(job) as group,
                _progress(own, job, dataset, cards, checkpoint, output) as follow,
            ):
                port = lead(group, facts(job, rows, cards, versions), held.folder, checkpoint)
                environment = variables(program, held.folder) | variables_of(job.nodes, port)
                # if only this process is killed, the program still holds the lock, and no other training starts there
                launch(command, environment, log_path, project_root(), (held.lock,), group.watching, follow)
                state = check_written(own.name, job, dataset.rows, own.final(output), log_path)
        else:
            with meeting(job) as group:
                group.dismiss()
            state = check_written(own.name, job, dataset.rows, ended, log_path)
        save(job, ended or own.final(output), tokenizer)
    return trained(job, state, dataset, log_path, step_of(checkpoint), versions)


def join(
    own: Program,
    job: Job,
    dataset: FittingRows,
    prepared: Prepared,
    variables: Callable[[str, Path], dict[str, str]],
    on_cpu: int = 1,
) -> bool:
    """Start the program on one of several nodes but node 0, which saves the weights; parameters as in ``run``.

    False if node 0 had final weights already.
    """
    settings = settings_of(job)
    program, words = own.find(settings)
    rows = dataset.conversations
    same = facts(job, rows, cards_of(job, program, words, on_cpu), releases(program, own.package))
    log_path = project_root() / ".cache" / "training" / f"{job.name}.node-{job.nodes.rank}.log"
    with meeting(job) as group, joined(group, same) as training:
        if training is None:
            return False
        (training.scratch / "output").mkdir(exist_ok=True)
        (training.own / "output").symlink_to("../output")  # for this node's part of the checkpoints
        see_checkpoint(job, training, group)
        command = own.command_line(settings, training.own / "train.yaml")
        with prepared(rows, training.own):
            environment = variables(program, training.own) | variables_of(job.nodes, training.port)
            code = launch(command, environment, log_path, project_root(), beside=group.watching)
        if code:
            raise failure(own.name, job, f"{own.name} did not finish", log_path)
    return True


def see_checkpoint(job: Job, training: Joined, group: Group) -> None:
    """Wait until this node sees the checkpoint that node 0 resumes from, whole and as the newest one of any kind.

    Its program looks for it by itself. TrainingError if it sees another one after ``LISTED_S``, or if another node
    fails meanwhile.
    """
    output, wanted = training.scratch / "output", training.checkpoint and training.checkpoint.name
    until = time.monotonic() + LISTED_S
    while True:
        newest = max(output.glob("checkpoint-*"), key=step_of, default=None)
        seen = newest and newest.name
        if seen == wanted and newest == newest_checkpoint(output):
            return
        if time.monotonic() > until:
            raise TrainingError(
                f"train: {job.name}: node {job.nodes.rank} sees {seen or 'no checkpoint'} in {output}, and node 0 "
                f"resumes from {wanted or 'none'}. Start the training again on all nodes; a disk that they do not "
                "share needs run.checkpoint_steps: null."
            )
        group.check_others()
        time.sleep(1)


def facts(job: Job, rows: Stored, cards: Cards, versions: dict[str, str]) -> dict[str, str]:
    """What all nodes must have alike; nothing for one node."""
    return facts_of(job, rows, versions | {"cards of all nodes": str(cards.count)}) if job.nodes.count > 1 else {}


@contextmanager
def _progress(
    own: Program, job: Job, dataset: FittingRows, cards: Cards, checkpoint: Path | None, output: Path
) -> Iterator[Callable[[str], None]]:
    """A function for each line that the program prints; it shows the progress of the training."""
    tokens = dataset.tokens / dataset.rows * job.batch * cards.count
    progress = Progress(job.name, job.loss, tokens)
    earlier = State.model_validate_json((checkpoint / "trainer_state.json").read_bytes()).points if checkpoint else []
    progress.start(planned_steps(job, dataset.rows, cards.count), earlier)
    follow = (
        follow_file(progress, output / own.log)
        if own.log
        else follow_output(progress, step_of(checkpoint), settings_of(job).logging_steps)
    )
    try:
        yield follow
        follow("")  # what was logged after the last line that it printed
    finally:
        progress.end()


def inherited(program: str, job: Job, scratch: Path) -> dict[str, str]:
    """Our environment, including all settings of the cards, with what any of these programs needs."""
    own = {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # its torchrun before ours
        "HF_DATASETS_CACHE": str(scratch / "datasets"),  # its datasets is older than ours
        "PYTHONUNBUFFERED": "1",  # what it prints of a step is read at once
    }
    threads = {"OMP_NUM_THREADS": str(job.run.threads)} if job.run.device == "cpu" else {}
    return dict(os.environ) | own | threads


def releases(program: str, package: str) -> dict[str, str]:
    """The installed versions, in a program's environment, of a trainer's package and of the libraries that it uses."""
    found = {}
    for name in (package, *LIBRARIES):
        pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"
        for path in sorted(Path(program).parents[1].glob(pattern)):
            found[name] = path.name.partition("-")[2].removesuffix(".dist-info")
    return found


def cards_of(job: Job, program: str, words: list[str], on_cpu: int = 1) -> Cards:
    """The cards as torchrun counts them: NPROC_PER_NODE (or the command's option) times NNODES, else all visible."""
    kind = job.run.device.partition(":")[0]
    option = re.search(r"--nproc[-_]per[-_]node[ =](\d+)", " ".join(words))
    here = option[1] if option else os.environ.get("NPROC_PER_NODE")
    nodes = job.nodes.count if job.nodes.count > 1 else int(os.environ.get("NNODES") or 1)
    if kind == "cpu":
        return Cards((int(option[1]) if option else on_cpu) * job.nodes.count, device_memory("cpu"))
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
        _merge(job, output, tokenizer)
    else:
        save_folder(output, tokenizer, job)


def _merge(job: Job, adapter: Path, tokenizer: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
    save_merged(PeftModel.from_pretrained(student, str(adapter)), tokenizer, job)


def trained(
    job: Job, state: State, dataset: FittingRows, log_path: Path, resumed_at: int, versions: dict[str, str]
) -> Trained:
    """The result of the training, from its state and its log."""
    # a training of fewer steps than logging_steps logs only the mean over all of them
    means = [LossPoint(e.step, e.train_loss, 0.0) for e in state.log_history if e.train_loss is not None]
    return Trained(
        rows=dataset.rows,
        rows_shortened=dataset.shortened,
        left_out=dataset.left_out,
        steps=state.global_step,
        epochs=round(state.epoch, 4),
        tokens_seen=round(dataset.tokens * state.epoch),
        tokens_trained=round(dataset.answer_tokens * state.epoch),
        effective_batch=logged(log_path, "Total train batch size") or job.batch,
        losses=state.points or means,
        resumed_at=resumed_at,
        versions=versions,
    )
