"""Write what openMind reads: its training YAML, the dataset and the dataset's entry in dataset_info.json."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.lib.command import project_root
from stages.lib.params import OpenMind, SystemPrompt
from stages.lib.rows import writing
from stages.lib.training import Conversation, Job, TrainingError
from stages.lib.training.external_inputs import completed, lora_keys, sharegpt, unless, yaml_keys
from stages.lib.training.external_inputs import write_inputs as write_common_inputs
from stages.lib.training.trackers import log_folder

# what template qwen writes between a question and its answer, and between that and the next question
TO_ANSWER, TO_QUESTION = (f"<|im_end|>\n<|im_start|>{role}\n" for role in ("assistant", "user"))

LOGGING_DIR = ("tensorboard", "swanlab")  # those that write there: its transformers knows no variable for it


def settings_of(job: Job) -> OpenMind:
    """openMind's own settings."""
    assert isinstance(job.train.trainer, OpenMind)  # its kind selects this package
    return job.train.trainer


def write_inputs(job: Job, conversations: Iterable[Conversation], scratch: Path) -> None:
    """Write train.yaml, the dataset and its description."""
    samples = (sample(each, job.train.system_prompt) for each in conversations)
    write_common_inputs(job, samples, scratch, training_yaml(job, scratch), local_path=str(scratch))


def sample(conversation: Conversation, system_prompt: SystemPrompt) -> dict[str, Any]:
    """A conversation in openMind's format.

    Earlier turns are part of the last question, with the tokens of template qwen between them: openMind reads them as
    these tokens, and only the last answer has a loss.
    """
    user = TO_QUESTION.join([*map(TO_ANSWER.join, conversation.history), conversation.user])
    return sharegpt(conversation.system, [user, conversation.assistant], system_prompt)


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """The keys of openMind's YAML; values equal to openMind's defaults are left out."""
    settings = settings_of(job)
    own = {
        "custom_dataset_info": None if settings.merge_into else _from_root(scratch / "dataset_info.json"),
        "template": settings.template,
        "use_gradient_checkpointing": unless(True, job.train.gradient_checkpointing),
        "logging_dir": next((str(log_folder(job, name)) for name in LOGGING_DIR if name in job.run.report_to), None),
    }
    return completed(job, yaml_keys(job, scratch) | own | lora_keys(job.train.lora, "lora_target_modules"))


def _from_root(path: Path) -> str:
    """The path relative to the project's folder, where openMind runs. openMind splits the key's value at commas."""
    return path.relative_to(project_root()).as_posix()


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
