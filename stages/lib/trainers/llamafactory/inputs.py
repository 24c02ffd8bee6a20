"""The keys of LLaMA-Factory's YAML, and its samples."""

from itertools import chain
from pathlib import Path
from typing import Any

from stages.lib.params import LlamaFactory
from stages.lib.training import Conversation, Job
from stages.lib.training.external_inputs import completed, lora_keys, settings_of, sharegpt, unless, yaml_keys


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys for a training in ``scratch``; values equal to LLaMA-Factory's defaults are left out."""
    settings = settings_of(job)
    several = any(row.history for row in job.conversations)
    assert isinstance(settings, LlamaFactory)  # its kind selects this package
    own = {
        "template": settings.template,
        "dataset_dir": str(scratch),
        "mask_history": unless(False, several and job.train.loss_on == "last"),
        "warmup_ratio": unless(0.0, job.train.warmup_ratio),  # deprecated in transformers 5
        "disable_gradient_checkpointing": unless(False, not job.train.gradient_checkpointing),
    }
    return completed(job, yaml_keys(job, scratch) | own | lora_keys(job.train.lora, "lora_target"))


def samples(job: Job, conversations: list[Conversation]) -> list[dict[str, Any]]:
    """The conversations as LLaMA-Factory reads them, with all their turns."""
    turns = [[*chain(*row.history), row.user, row.assistant] for row in conversations]
    rows = zip(conversations, turns, strict=True)
    return [sharegpt(row.system, texts, job.train.system_prompt) for row, texts in rows]
