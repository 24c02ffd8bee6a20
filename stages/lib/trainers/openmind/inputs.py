"""Write what openMind reads: its training YAML, the dataset and the dataset's entry in dataset_info.json."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.chat_template import SEPARATOR
from stages.lib.command import project_root
from stages.lib.params import Lora, OpenMind, SystemPrompt
from stages.lib.rows import writing
from stages.lib.training import Conversation, Job, TrainingError
from stages.lib.training.launching import deepspeed_file
from stages.lib.training.portable import readable_by_4

TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "assistant"}
# what template qwen writes between a question and its answer, and between that and the next question
TO_ANSWER, TO_QUESTION = (f"<|im_end|>\n<|im_start|>{role}\n" for role in ("assistant", "user"))


def settings_of(job: Job) -> OpenMind:
    """openMind's own settings."""
    assert isinstance(job.train.trainer, OpenMind)  # its kind selects this package
    return job.train.trainer


def write_inputs(job: Job, conversations: list[Conversation], scratch: Path) -> None:
    """Write train.yaml, the dataset and its description."""
    placed = job.train.system_prompt
    dataset = json.dumps([sample(each, placed) for each in conversations], ensure_ascii=False, indent=1)
    files = {
        "train.yaml": yaml_text(training_yaml(job, scratch)),
        f"{job.arm.dataset}.json": dataset,
        "dataset_info.json": json.dumps(dataset_info(job, scratch), ensure_ascii=False, indent=1),
    }
    for name, content in files.items():
        with writing(scratch / name) as file:
            file.write(content.encode())


def sample(conversation: Conversation, system_prompt: SystemPrompt) -> dict[str, Any]:
    """A conversation in openMind's format, with the system text where ``system_prompt`` puts it.

    Earlier turns are part of the last question, with the tokens of template qwen between them: openMind reads them as
    these tokens, and only the last answer has a loss.
    """
    user = TO_QUESTION.join([*map(TO_ANSWER.join, conversation.history), conversation.user])
    if system_prompt == "in_user_turn" and conversation.system:
        user = conversation.system + SEPARATOR + user
    turns = {"conversations": [{"from": "user", "value": user}, {"from": "assistant", "value": conversation.assistant}]}
    return turns if system_prompt == "in_user_turn" else {"system": conversation.system} | turns


def dataset_info(job: Job, scratch: Path) -> dict[str, Any]:
    """The entry by which openMind finds the dataset and its fields."""
    columns = {"messages": "conversations"}
    if job.train.system_prompt == "as_system":
        columns["system"] = "system"
    entry = {
        "local_path": str(scratch),
        "file_name": f"{job.arm.dataset}.json",
        "formatting": "sharegpt",
        "columns": columns,
        "tags": TAGS | {"system_tag": "system"},
    }
    return {job.arm.dataset: entry}


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys of openMind's YAML; values equal to openMind's defaults are left out."""
    params, arm, settings, run = job.train, job.arm, settings_of(job), job.run
    keys: dict[str, Any] = {
        "model_name_or_path": str(readable_by_4(job.student, scratch / "student").resolve()),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": params.finetuning.kind,
        "deepspeed": deepspeed_file(params.deepspeed),
        "dataset": arm.dataset,
        "custom_dataset_info": None if settings.merge_into else _from_root(scratch / "dataset_info.json"),
        "cutoff_len": arm.cutoff_len,
        "template": settings.template,
        "output_dir": str(scratch / "output"),
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,  # the Trainer would log 0.0
        "save_steps": run.checkpoint_steps,
        "overwrite_output_dir": not run.resume,
        "per_device_train_batch_size": params.per_device_train_batch_size,
        "learning_rate": arm.learning_rate,
        "lr_scheduler_type": params.lr_scheduler_type,
        "warmup_ratio": params.warmup_ratio,
        "bf16": params.bf16,
        "max_steps": arm.max_steps,
        "num_train_epochs": None if arm.max_steps else arm.num_train_epochs,
        "gradient_accumulation_steps": _unless(1, params.gradient_accumulation_steps),
        "weight_decay": _unless(0.0, params.weight_decay),
        "use_gradient_checkpointing": _unless(True, params.gradient_checkpointing),
        "use_cpu": _unless(False, job.run.device == "cpu"),
        "seed": params.seed,
    }
    keys |= lora_keys(params.lora) if params.lora else {}
    if run.checkpoint_steps is None:
        keys["save_strategy"] = "no"  # the Trainer's default is one every 500 steps
    elif run.resume and "save_total_limit" not in settings.extra:
        keys["save_total_limit"] = 1  # to resume, the last one is enough
    if twice := sorted(keys.keys() & settings.extra):
        raise TrainingError(
            f"train.trainer.extra: {', '.join(twice)}: set by other keys of params.yaml. Remove it here."
        )
    return {key: value for key, value in keys.items() if value is not None} | settings.extra


def lora_keys(lora: Lora) -> dict[str, Any]:
    """openMind's names for the adapters' settings."""
    modules = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    return {
        "lora_rank": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_target_modules": "all" if modules == "all-linear" else modules,
    }


def _from_root(path: Path) -> str:
    """The path relative to the project's folder, where openMind runs. openMind splits the key's value at commas."""
    return path.relative_to(project_root()).as_posix()


def _unless(default: Any, value: Any) -> Any:
    """None for openMind's default value: a key that is not written cannot be unknown to a release."""
    return None if value == default else value


def yaml_text(keys: dict[str, Any]) -> str:
    """YAML 1.1, as openMind's PyYAML reads it: a learning rate written 1e-05 would be a text there."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    yaml.default_flow_style = False
    text = StringIO()
    yaml.dump(keys, text)
    return text.getvalue()


@contextmanager
def registered(settings: OpenMind, scratch: Path) -> Iterator[None]:
    """For a version without ``custom_dataset_info``: add our entry to its own dataset_info.json during the training.

    A backup is kept beside it meanwhile. If a killed run left one, that is the original file and it is used again.
    """
    if settings.merge_into is None:
        yield
        return
    info = Path(settings.merge_into)
    if not info.is_file():
        raise TrainingError(f"train.trainer.merge_into: {info}: no such file. Name openMind's dataset_info.json.")
    backup = info.with_name(f"{info.name}.before-distillery")
    if not backup.exists():
        shutil.copy2(info, backup)
    ours = json.loads((scratch / "dataset_info.json").read_bytes())
    with writing(info) as file:
        file.write(json.dumps(json.loads(backup.read_bytes()) | ours, ensure_ascii=False, indent=2).encode())
    try:
        yield
    finally:
        backup.replace(info)
