"""The keys of LLaMA-Factory's YAML, and its samples."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from stages.lib.params import LlamaFactory
from stages.lib.training import Conversation, Job
from stages.lib.training.external_inputs import completed, lora_keys, settings_of, sharegpt, unless, yaml_keys


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys for a training in ``scratch``; values equal to LLaMA-Factory's defaults are left out."""
    settings = settings_of(job)
    several = job.shape.several
    assert isinstance(settings, LlamaFactory)  # its kind selects this package
    own = {
        "template": settings.template,
        "dataset_dir": str(scratch),
        "mask_history": unless(False, bool(several) and job.train.loss_on == "last"),
        "warmup_ratio": unless(0.0, job.train.warmup_ratio),  # deprecated in transformers 5
        "disable_gradient_checkpointing": unless(False, not job.train.gradient_checkpointing),
    }
    return completed(job, yaml_keys(job, scratch) | own | lora_keys(job.train.lora, "lora_target"))


def samples(job: Job, conversations: Iterable[Conversation]) -> Iterator[dict[str, Any]]:
    """The conversations as LLaMA-Factory reads them, with all their turns."""
    for row in conversations:
        yield sharegpt(row.system, [*chain(*row.history), row.user, row.assistant], job.train.system_prompt)
