"""openMind's own fine-tuning, run in its own environment: its YAML and dataset are written, its weights fetched.

In:   a job (training/__init__.py), train.trainer of params.yaml
Out:  job.out                        final weights, tokenizer, and the chat template that was trained with
      .cache/training/ARM.log        all that openMind said; it streams to stderr too
      .cache/training/ARM/DIGEST/    while it runs: train.yaml, ARM's dataset, dataset_info.json, openMind's output

openMind is started by ``train.trainer.command``, else by ``$OPENMIND_CLI``, else as ``openmind-cli`` of the PATH. The
whole environment passes to it: ASCEND_RT_VISIBLE_DEVICES, NPROC_PER_NODE, NNODES, RANK, MASTER_ADDR, HCCL_… Its exit
code is 0 even where it fails, so a training has succeeded when the weights and all its steps are written, not before.
Where params have it resume (``run.resume``), a killed training resumes from its last whole checkpoint.

What was read in release 1.0.0 and shapes this module:
- unknown keys of the YAML are fatal, ``template`` among them; the template follows from the kind of model;
- a sample's ``system`` text is ignored; a fixed sentence stands in its place (``system_prompt: in_user_turn``);
- prompt and answer are tokenized apart, the end token follows the answer, and only these two bear a loss;
- whatever is longer than cutoff_len is cut, prompt and answer: length.py sees to such rows before openMind does;
- all that is trained is cast to fp32 on the host, by every process, before DeepSpeed or the card gets it.
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
from stages.lib.trainers.openmind.tokens import chat_template, check_turns, fitted
from stages.lib.training import Conversation, Job, Trained, TrainingError
from stages.lib.training.checkpoints import SHAPELESS, files_of, held_folder, last_checkpoint, short_hash, step_of
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
KINDS = ("qwen2",)  # the model types that release 1.0.0 has a template for (its configs/models.json)
# what says how often and where, and not what is learned
_SHAPELESS = {"kind", "command", "merge_into"}


def train(job: Job) -> Trained:
    """Train with openMind, take over the weights; no conversation is cut at ``arm.cutoff_len``: see length.py."""
    from transformers import AutoTokenizer

    settings = settings_of(job)
    program, words = started_by(settings)
    check_student(job)
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    check_turns(job.student, tokenizer)
    tokenizer.chat_template = chat_template(job.train.system_prompt)
    dataset = fitted(job, tokenizer)
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
                # should this process be killed alone, openMind still holds the folder: nobody trains there beside it
                launch(command, variables, log_path, cwd=project_root(), holds=(held.lock,))
        state = check_written(NAME, job, len(rows), ended or output, log_path)
        save(job, ended or output, tokenizer)
    return trained(job, state, dataset, log_path, step_of(checkpoint), releases(program, "openmind"))


def check_student(job: Job) -> None:
    """TrainingError where weights are missing, or where openMind has no template for the student."""
    folder = job.student
    check_weights_there(folder)
    config = json.loads((folder / "config.json").read_bytes())
    if settings_of(job).version == "1.0.0" and config.get("model_type") not in KINDS:
        raise TrainingError(
            f"{folder}/config.json: openMind 1.0.0 has a template for {', '.join(KINDS)} alone, not for "
            f"{config.get('model_type')}. Choose another student, or train.trainer.kind: trl."
        )


def digest(job: Job, rows: list[Conversation], program: str, cards: Cards) -> str:
    """Of all that shapes the weights: another release, another number of cards make another training."""
    settings = settings_of(job).model_dump(exclude=_SHAPELESS)
    settings["extra"] = {key: value for key, value in settings["extra"].items() if not key.startswith("save_")}
    deepspeed = deepspeed_file(job.train.deepspeed)
    return short_hash(
        {
            "rows": [sample(row, job.train.system_prompt) for row in rows],
            "train": job.train.model_dump(exclude=SHAPELESS | {"trainer": True}),
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
    """TrainingError where there is nothing to do, or disk or a card's memory cannot be enough."""
    steps = planned_steps(job, rows, cards.count)
    if not steps:
        raise TrainingError(
            f"train: {job.name} would be trained for no step: {rows} rows fill no batch of {cards.count} cards. "
            "Lower train.per_device_train_batch_size, or drop dataloader_drop_last from train.trainer.extra."
        )
    size = stored_size(job.student, job.train.lora)
    fewer = "set run.checkpoint_steps: null, which writes none"
    check_room(job, size, scratch, checkpoints_at_once(job, steps), fewer)
    settings = deepspeed_file(job.train.deepspeed)
    sharing = Sharing(cards.count, zero_stage(settings) if settings else None, job.train.bf16)
    # on a CPU all ranks lie in the one memory
    there = cards.memory // cards.count if cards.memory and job.run.device == "cpu" else cards.memory
    check_cards(job, size, sharing, there)


def planned_steps(job: Job, rows: int, cards: int) -> int:
    """The optimizer's steps, as the Trainer counts them."""
    batches = rows / (job.train.per_device_train_batch_size * cards)
    whole = math.floor(batches) if settings_of(job).extra.get("dataloader_drop_last") else math.ceil(batches)
    updates = max(whole // job.train.gradient_accumulation_steps, 1) if whole else 0
    return job.arm.max_steps or math.ceil(job.arm.num_train_epochs * updates) if updates else 0


def checkpoints_at_once(job: Job, steps: int) -> int:
    """How many lie on the disk together at most: one is written at the end, and an old one goes after the new one."""
    extra, often = settings_of(job).extra, job.run.checkpoint_steps
    strategy = extra.get("save_strategy", "steps")
    if often is None or strategy == "no":
        return 0
    written = math.ceil(job.arm.num_train_epochs if strategy == "epoch" else steps / often)
    limit = extra.get("save_total_limit", 1 if job.run.resume else None)
    return min(written, limit + 1) if isinstance(limit, int) else written


def command_line(settings: OpenMind, yaml_path: Path) -> list[str]:
    """How openMind is started on a YAML: ``{yaml}`` stands for its path, else ``train PATH`` follows the command."""
    program, words = started_by(settings)
    if any("{yaml}" in word for word in words):
        return [program, *(word.replace("{yaml}", str(yaml_path)) for word in words)]
    return [program, *words, "train", str(yaml_path)]


def started_by(settings: OpenMind) -> tuple[str, list[str]]:
    """The program that params or OPENMIND_CLI name, and the words after it; TrainingError where it is absent."""
    program, words = find_program(NAME, settings.command, "OPENMIND_CLI", "openmind-cli")
    check_release(settings, program)
    return program, words


def check_release(settings: OpenMind, program: str) -> None:
    """TrainingError where another release stands beside the program than params are written for.

    Nothing is said where none is found there: a wrapper, a container, an editable install.
    """
    release = releases(program, "openmind").get("openmind")
    if settings.version != "git" and release and settings.version != release:
        raise TrainingError(
            f"train.trainer.version: {settings.version}, but {program} belongs to openMind {release}. Set version "
            "git, template qwen, or install that release."
        )


def environment(program: str, job: Job, scratch: Path) -> dict[str, str]:
    """Ours and all that is set for the cards, with what openMind needs to be found and to speak."""
    own = {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # its torchrun before ours
        "HF_DATASETS_CACHE": str(scratch / "datasets"),  # its datasets is older than ours
        "OPENMIND_HIDE_STACKTRACE": "FALSE",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # newer torch refuses the older library's own checkpoints else
        "TRANSFORMERS_VERBOSITY": "info",  # then the Trainer says how many rows and which batch it sees
    }
    threads = {"OMP_NUM_THREADS": str(job.run.threads)} if job.run.device == "cpu" else {}
    return dict(os.environ) | own | threads
