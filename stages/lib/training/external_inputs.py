"""Write what trainers in their own environment read: the training YAML, the dataset and dataset_info.json.

keys = yaml_keys(job, scratch) | {…}                    the keys of openMind and LLaMA-Factory, and a trainer's own
keys = trainer_keys(job, scratch) | {…}                 those of transformers' Trainer, which all of them use
write_inputs(job, rows, scratch, completed(job, keys))  → scratch/train.yaml, DATASET.json, dataset_info.json
"""

import json
from collections.abc import Iterable
from io import StringIO
from itertools import cycle
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.chat_template import SEPARATOR
from stages.lib.files.shards import Form, writing_parts
from stages.lib.params import ExternalTrainer, Lora, SystemPrompt
from stages.lib.rows import writing
from stages.lib.training import Job, TrainingError
from stages.lib.training.launching import deepspeed_file
from stages.lib.training.portable import readable_by_4

LIST = Form(begin=b"[\n ", between=b",\n ", end=b"\n]")  # as json.dumps writes a list with indent 1
TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "assistant"}


def settings_of(job: Job) -> ExternalTrainer:
    """The settings of a trainer in its own environment."""
    assert isinstance(job.train.trainer, ExternalTrainer)  # its kind selects the package that calls this
    return job.train.trainer


def write_inputs(
    job: Job, samples: Iterable[dict[str, Any]], scratch: Path, keys: dict[str, Any], **entry: str
) -> None:
    """Write train.yaml, the dataset and its description; ``entry`` is what a trainer's own description has more."""
    write_text(scratch / "train.yaml", yaml_text(keys))
    texts = (json.dumps(sample, ensure_ascii=False, indent=1).replace("\n", "\n ") for sample in samples)
    write_samples(scratch / f"{job.arm.dataset}.json", texts, LIST)
    info = json.dumps(dataset_info(job, **entry), ensure_ascii=False, indent=1)
    write_text(scratch / "dataset_info.json", info)


def write_text(path: Path, text: str) -> None:
    """Write a file, completely or not at all."""
    with writing(path) as file:
        file.write(text.encode())


def write_samples(path: Path, samples: Iterable[str], form: Form) -> None:
    """Write a dataset's file, one sample at a time, completely or not at all."""
    with writing_parts(path, None, form) as parts:
        for sample in samples:
            parts.add(sample.encode())


def sharegpt(system: str, turns: list[str], system_prompt: SystemPrompt) -> dict[str, Any]:
    """A ShareGPT sample of these turns, questions and answers, with the system text where ``system_prompt`` puts it."""
    first, *others = turns
    if system_prompt == "in_user_turn" and system:
        first = system + SEPARATOR + first
    names = cycle((TAGS["user_tag"], TAGS["assistant_tag"]))
    named = [{"from": name, "value": text} for name, text in zip(names, [first, *others], strict=False)]
    return {"conversations": named} if system_prompt == "in_user_turn" else {"system": system, "conversations": named}


def dataset_info(job: Job, **entry: str) -> dict[str, Any]:
    """The entry by which the trainer finds the dataset and its fields."""
    columns = {"messages": "conversations"}
    if job.train.system_prompt == "as_system":
        columns["system"] = "system"
    usual = {
        "file_name": f"{job.arm.dataset}.json",
        "formatting": "sharegpt",
        "columns": columns,
        "tags": TAGS | {"system_tag": "system"},
    }
    return {job.arm.dataset: entry | usual}


def yaml_keys(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys that openMind and LLaMA-Factory have."""
    return trainer_keys(job, scratch) | {
        "model_name_or_path": student_path(job, scratch),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": job.train.finetuning.kind,
        "dataset": job.arm.dataset,
        "cutoff_len": job.arm.cutoff_len,
        "overwrite_output_dir": not job.run.resume,
    }


def student_path(job: Job, scratch: Path) -> str:
    """The student's folder, as an older transformers reads it."""
    return str(readable_by_4(job.student, scratch / "student").resolve())


def trainer_keys(job: Job, scratch: Path) -> dict[str, Any]:
    """The arguments of transformers' Trainer. One with its default is None: a key left out cannot be unknown."""
    params, arm, settings, run = job.train, job.arm, settings_of(job), job.run
    keys: dict[str, Any] = {
        "deepspeed": deepspeed_file(params.deepspeed),
        "output_dir": str(scratch / "output"),
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,  # the Trainer would log 0.0
        "save_steps": run.checkpoint_steps,
        "per_device_train_batch_size": params.per_device_train_batch_size,
        "learning_rate": arm.learning_rate,
        "lr_scheduler_type": params.lr_scheduler_type,
        "warmup_ratio": params.warmup_ratio,
        "bf16": params.bf16,
        "max_steps": arm.max_steps,
        "num_train_epochs": None if arm.max_steps else arm.num_train_epochs,
        "gradient_accumulation_steps": unless(1, params.gradient_accumulation_steps),
        "weight_decay": unless(0.0, params.weight_decay),
        "use_cpu": unless(False, job.run.device == "cpu"),
        "seed": params.seed,
    }
    if run.checkpoint_steps is None:
        keys["save_strategy"] = "no"  # the Trainer's default is one every 500 steps
    elif run.resume and "save_total_limit" not in settings.extra:
        keys["save_total_limit"] = 1  # to resume, the last one is enough
    if run.report_to or "report_to" not in settings.extra:
        keys["report_to"] = run.report_to or "none"  # else to every tracker that is installed
    if run.report_to:
        keys["run_name"] = job.name
    return keys


def lora_keys(lora: Lora | None, modules_key: str) -> dict[str, Any]:
    """The adapters' settings; ``modules_key`` is the trainer's name for the modules that get one."""
    if lora is None:
        return {}
    modules = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    return {
        "lora_rank": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        modules_key: "all" if modules == "all-linear" else modules,
    }


def completed(job: Job, keys: dict[str, Any]) -> dict[str, Any]:
    """The keys without the null ones, and ``extra``; TrainingError if ``extra`` has one of them."""
    extra = settings_of(job).extra
    if twice := sorted(keys.keys() & extra):
        raise TrainingError(
            f"train.trainer.extra: {', '.join(twice)}: set by other keys of params.yaml. Remove it here."
        )
    return {key: value for key, value in keys.items() if value is not None} | extra


def unless(default: Any, value: Any) -> Any:
    """None for the trainer's default value: a key that is not written cannot be unknown to a release."""
    return None if value == default else value


def yaml_text(keys: dict[str, Any]) -> str:
    """YAML 1.1, as the trainer's PyYAML reads it: a learning rate written 1e-05 would be a text there."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    yaml.default_flow_style = False
    text = StringIO()
    yaml.dump(keys, text)
    return text.getvalue()
