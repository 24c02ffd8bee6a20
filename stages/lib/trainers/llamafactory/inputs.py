"""The keys of LLaMA-Factory's YAML."""

from pathlib import Path
from typing import Any

from stages.lib.params import LlamaFactory
from stages.lib.training import Job
from stages.lib.training.external_inputs import completed, lora_keys, settings_of, unless, yaml_keys


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys for a training in ``scratch``; values equal to LLaMA-Factory's defaults are left out."""
    settings = settings_of(job)
    assert isinstance(settings, LlamaFactory)  # its kind selects this package
    own = {
        "template": settings.template,
        "dataset_dir": str(scratch),
        "warmup_ratio": unless(0.0, job.train.warmup_ratio),  # deprecated in transformers 5
        "disable_gradient_checkpointing": unless(False, not job.train.gradient_checkpointing),
    }
    if "report_to" not in settings.extra:
        own["report_to"] = "none"  # else to every service of which a client is installed
    return completed(job, yaml_keys(job, scratch) | own | lora_keys(job.train.lora, "lora_target"))
