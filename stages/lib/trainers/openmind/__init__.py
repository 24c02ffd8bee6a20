"""Train with openMind in its own environment: write its YAML and dataset, run it, save its weights.

In:   a job (training/__init__.py), train.trainer of params.yaml
Out:  job.out                        final weights, tokenizer, and the chat template of the training
      .cache/training/ARM.log        all output of openMind; it streams to stderr too
      .cache/training/ARM/DIGEST/    while it runs: train.yaml, ARM's dataset, dataset_info.json, openMind's output

openMind is started by ``train.trainer.command``, else by ``$OPENMIND_CLI``, else as ``openmind-cli`` of the PATH. It
inherits the whole environment: ASCEND_RT_VISIBLE_DEVICES, NPROC_PER_NODE, NNODES, RANK, MASTER_ADDR, HCCL_… Its exit
code is 0 even when it fails, so a training has succeeded only when the weights and all its steps are written. With
``run.resume``, a killed training resumes from its last complete checkpoint.

This module depends on these facts, read in the source of release 1.0.0:
- unknown keys of the YAML are fatal, ``template`` among them; the model type determines the template;
- a sample's ``system`` text is ignored; a fixed sentence replaces it (``system_prompt: in_user_turn``);
- prompt and answer are tokenized separately, the end token follows the answer, and only these two have a loss;
- of several turns, each answer has a loss, and each question but the first is written twice: its template's
  separator holds the question too (``check_loss_on``, ``inputs.sample``);
- prompts and answers longer than cutoff_len are cut: length.py handles such rows before openMind reads them;
- every process casts all trained weights to fp32 on the host before DeepSpeed or the card gets them.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.params import OpenMind
from stages.lib.trainers.openmind.inputs import registered, sample, settings_of, write_inputs
from stages.lib.trainers.openmind.tokens import chat_template, check_turns, measured_rows
from stages.lib.training import Conversation, Job, Trained, TrainingError
from stages.lib.training.checkpoints import NOT_IN_DIGEST, files_of, held_folder, last_checkpoint, short_hash, step_of
from stages.lib.training.external import (
    Cards,
    cards_of,
    check_written,
    find_program,
    has_ended,
    releases,
    save,
    trained,
)
from stages.lib.training.launching import deepspeed_file, launch, zero_stage
from stages.lib.training.resources import Sharing, check_cards, check_room, check_weights_there, stored_size

log = logging.getLogger("distillery.train")

NAME = "openMind"
MODEL_TYPES = ("qwen2",)  # those that release 1.0.0 has a template for (its configs/models.json)
# settings that do not change what is learned
_NOT_IN_DIGEST = {"kind", "command", "merge_into"}


def train(job: Job) -> Trained:
    """Train with openMind and save its weights. No conversation is cut at ``arm.cutoff_len``: see length.py."""
    from transformers import AutoTokenizer

    settings = settings_of(job)
    program, words = find_openmind(settings)
    check_student(job)
    check_loss_on(job)
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    check_turns(job.student, tokenizer)
    tokenizer.chat_template = chat_template(job.train.system_prompt)
    dataset = measured_rows(job, tokenizer)
    rows = [row.conversation for row in dataset.rows]
    cards = cards_of(job, program, words)
    log_path = project_root() / ".cache" / "training" / f"{job.name}.log"
    name, resume = digest(job, rows, program, cards), job.run.resume
    with held_folder(job.name, name, resume, leaves="train.yaml") as held:
        check_needs(job, len(rows), cards, held.folder)
        write_inputs(job, rows, held.folder)
        output = held.folder / "output"
        checkpoint = last_checkpoint(output)
        ended = next((folder for folder in (output, checkpoint) if folder and has_ended(folder)), None)
        if ended is None:
            if checkpoint is None:  # openMind refuses a folder with anything but checkpoints
                shutil.rmtree(output, ignore_errors=True)
            command = command_line(settings, held.folder / "train.yaml")
            with registered(settings, held.folder):
                variables = environment(command[0], job, held.folder)
                # if only this process is killed, openMind still holds the lock, and no other training starts there
                launch(command, variables, log_path, cwd=project_root(), holds=(held.lock,))
        state = check_written(NAME, job, len(rows), ended or output, log_path)
        save(job, ended or output, tokenizer)
    return trained(job, state, dataset, log_path, step_of(checkpoint), releases(program, "openmind"))


def check_student(job: Job) -> None:
    """TrainingError if weights are missing, or if openMind has no template for the student."""
    folder = job.student
    check_weights_there(folder)
    config = json.loads((folder / "config.json").read_bytes())
    if settings_of(job).version == "1.0.0" and config.get("model_type") not in MODEL_TYPES:
        raise TrainingError(
            f"{folder}/config.json: openMind 1.0.0 has a template for {', '.join(MODEL_TYPES)} only, not for "
            f"{config.get('model_type')}. Choose another student, or train.trainer.kind: trl."
        )


def check_loss_on(job: Job) -> None:
    """TrainingError if earlier answers of a conversation are to be trained."""
    several = sum(bool(row.history) for row in job.conversations)
    if several and job.train.loss_on == "every":
        raise TrainingError(
            f"train.loss_on: every, and {several} conversations of {job.arm.dataset} have several turns, in which "
            "openMind writes each later question twice. Set it to last, or train.trainer.kind: trl."
        )


def digest(job: Job, rows: list[Conversation], program: str, cards: Cards) -> str:
    """A hash of everything that determines the weights, including the release of openMind and the number of cards."""
    settings = settings_of(job).model_dump(exclude=_NOT_IN_DIGEST)
    settings["extra"] = {key: value for key, value in settings["extra"].items() if not key.startswith("save_")}
    deepspeed = deepspeed_file(job.train.deepspeed)
    return short_hash(
        {
            "rows": [sample(row, job.train.system_prompt) for row in rows],
            "train": job.train.model_dump(exclude=NOT_IN_DIGEST | {"trainer": True}),
            "openmind": settings,
            "deepspeed": hashlib.sha256(Path(deepspeed).read_bytes()).hexdigest() if deepspeed else None,
            "arm": job.arm.model_dump(exclude={"dataset"}),
            "student": files_of(job.student),
            "device": job.run.device,
            "cards": cards.count,
            "versions": releases(program, "openmind"),
        }
    )


def check_needs(job: Job, rows: int, cards: Cards, scratch: Path) -> None:
    """TrainingError if the training has no step, or if the disk or a card's memory is too small."""
    steps = planned_steps(job, rows, cards.count)
    if not steps:
        raise TrainingError(
            f"train: {job.name} has no training step: {rows} rows fill no batch of {cards.count} cards. "
            "Lower train.per_device_train_batch_size, or remove dataloader_drop_last from train.trainer.extra."
        )
    size = stored_size(job.student, job.train.lora)
    fewer = "set run.checkpoint_steps: null, which writes none"
    check_room(job, size, scratch, checkpoints_at_once(job, steps), fewer)
    settings = deepspeed_file(job.train.deepspeed)
    sharing = Sharing(cards.count, zero_stage(settings) if settings else None, job.train.bf16)
    # on a CPU all ranks share the host's memory
    there = cards.memory // cards.count if cards.memory and job.run.device == "cpu" else cards.memory
    check_cards(job, size, sharing, there)


def planned_steps(job: Job, rows: int, cards: int) -> int:
    """The optimizer's steps, as the Trainer counts them."""
    batches = rows / (job.train.per_device_train_batch_size * cards)
    whole = math.floor(batches) if settings_of(job).extra.get("dataloader_drop_last") else math.ceil(batches)
    updates = max(whole // job.train.gradient_accumulation_steps, 1) if whole else 0
    return job.arm.max_steps or math.ceil(job.arm.num_train_epochs * updates) if updates else 0


def checkpoints_at_once(job: Job, steps: int) -> int:
    """The most checkpoints on the disk at once. One is written at the end, an old one is removed after the new one."""
    extra, often = settings_of(job).extra, job.run.checkpoint_steps
    strategy = extra.get("save_strategy", "steps")
    if often is None or strategy == "no":
        return 0
    written = math.ceil(job.arm.num_train_epochs if strategy == "epoch" else steps / often)
    limit = extra.get("save_total_limit", 1 if job.run.resume else None)
    return min(written, limit + 1) if isinstance(limit, int) else written


def command_line(settings: OpenMind, yaml_path: Path) -> list[str]:
    """The command that starts openMind on a YAML. Its path replaces ``{yaml}``, else ``train PATH`` is appended."""
    program, words = find_openmind(settings)
    if any("{yaml}" in word for word in words):
        return [program, *(word.replace("{yaml}", str(yaml_path)) for word in words)]
    return [program, *words, "train", str(yaml_path)]


def find_openmind(settings: OpenMind) -> tuple[str, list[str]]:
    """The program that params or OPENMIND_CLI name, and the arguments after it; TrainingError if there is none."""
    program, words = find_program(NAME, settings.command, "OPENMIND_CLI", "openmind-cli")
    check_release(settings, program)
    return program, words


def check_release(settings: OpenMind, program: str) -> None:
    """TrainingError if the program's environment has another release than ``train.trainer.version``.

    Without an installed release there (a wrapper, a container, an editable install) nothing is checked.
    """
    release = releases(program, "openmind").get("openmind")
    if settings.version != "git" and release and settings.version != release:
        raise TrainingError(
            f"train.trainer.version: {settings.version}, but {program} belongs to openMind {release}. Set version "
            "git, template qwen, or install that release."
        )


def environment(program: str, job: Job, scratch: Path) -> dict[str, str]:
    """Our environment, including all settings of the cards, with what openMind needs to run and to log."""
    own = {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # its torchrun before ours
        "HF_DATASETS_CACHE": str(scratch / "datasets"),  # its datasets is older than ours
        "OPENMIND_HIDE_STACKTRACE": "FALSE",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # else newer torch refuses the older library's own checkpoints
        "TRANSFORMERS_VERBOSITY": "info",  # then the Trainer logs its number of rows and its batch size
    }
    threads = {"OMP_NUM_THREADS": str(job.run.threads)} if job.run.device == "cpu" else {}
    return dict(os.environ) | own | threads
