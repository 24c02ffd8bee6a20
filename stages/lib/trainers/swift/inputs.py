"""The keys of ms-swift's YAML, and its samples."""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from stages.lib.files.shards import LINES
from stages.lib.params import Lora, Swift
from stages.lib.training import Conversation, Job
from stages.lib.training.checkpoints import newest_checkpoint
from stages.lib.training.external_inputs import (
    completed,
    lora_keys,
    settings_of,
    sharegpt,
    student_path,
    trainer_keys,
    unless,
    write_samples,
    write_text,
    yaml_text,
)
from stages.lib.training.trackers import PROJECT

NEVER = 10**9  # a step that no training reaches


def write_inputs(job: Job, conversations: Iterable[Conversation], scratch: Path) -> None:
    """Write train.yaml and the dataset, a JSON line for each sample."""
    write_text(scratch / "train.yaml", yaml_text(training_yaml(job, scratch)))
    lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in samples(job, conversations))
    write_samples(scratch / dataset_file(job), lines, LINES)


def dataset_file(job: Job) -> str:
    """The name of the dataset's file."""
    return f"{job.arm.dataset}.jsonl"


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys for a training in ``scratch``."""
    params, settings, run = job.train, settings_of(job), job.run
    assert isinstance(settings, Swift)  # its kind selects this package
    checkpoint = newest_checkpoint(scratch / "output") if run.resume else None
    last_only = job.shape.several and params.loss_on == "last"
    own: dict[str, Any] = {
        "model": student_path(job, scratch),
        "model_type": settings.model_type,
        "template": settings.template,
        "dataset": str(scratch / dataset_file(job)),
        "tuner_type": params.finetuning.kind,
        "max_length": job.arm.cutoff_len,
        "loss_scale": unless("default", "last_round" if last_only else "default"),
        "add_version": False,  # else its output folder gets a name with the time
        "check_model": False,  # else it asks ModelScope whether the student is the newest
        "resume_from_checkpoint": str(checkpoint) if checkpoint else None,
        "save_steps": run.checkpoint_steps or NEVER,  # it writes the final weights as a checkpoint, and only with steps
        "save_strategy": None,
        "save_only_model": None if run.checkpoint_steps else True,
        # what is trained stays in fp32, as elsewhere; frozen weights take the dtype of the computation
        "torch_dtype": "bfloat16" if params.bf16 and params.lora else "float32",
        "fp16": False,
        "data_seed": params.seed,
        "gradient_checkpointing": unless(True, params.gradient_checkpointing),
        # its defaults are not those of transformers
        "gradient_accumulation_steps": params.gradient_accumulation_steps,
        "weight_decay": params.weight_decay,
    }
    if "adam_beta2" not in settings.extra:
        own["adam_beta2"] = 0.999
    return completed(job, trainer_keys(job, scratch) | own | adapters(params.lora) | swanlab(job))


def adapters(lora: Lora | None) -> dict[str, Any]:
    """The adapters' settings, with their modules as a list."""
    keys = lora_keys(lora, "target_modules")
    if keys:
        named = keys["target_modules"].split(",")
        keys["target_modules"] = ["all-linear" if name == "all" else name.strip() for name in named]
    return keys


def swanlab(job: Job) -> dict[str, Any]:
    """The keys of SwanLab's callback, for which ms-swift passes over SwanLab's variables; local without a key."""
    if "swanlab" not in job.run.report_to:
        return {}
    mode = "cloud" if os.environ.get("SWANLAB_API_KEY") else "local"
    return {"swanlab_project": PROJECT, "swanlab_exp_name": job.name, "swanlab_mode": mode}


def samples(job: Job, conversations: Iterable[Conversation]) -> Iterator[dict[str, Any]]:
    """The conversations as messages, with all their turns."""
    for each in conversations:
        yield {"messages": _messages(job, each)}


def _messages(job: Job, row: Conversation) -> list[dict[str, str]]:
    turns = [*chain(*row.history), row.user, row.assistant]
    sample = sharegpt(row.system, turns, job.train.system_prompt)
    # an empty system text would replace the one that a template has by default
    system = [{"role": "system", "content": sample["system"]}] if sample.get("system") else []
    return system + [{"role": turn["from"], "content": turn["value"]} for turn in sample["conversations"]]
