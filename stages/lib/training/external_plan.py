"""What a training in its own environment will take: its steps, checkpoints, disk and memory, and its DIGEST.

digest("openmind", job, rows, cards, versions)    → the name of its folder (training/checkpoints.py)
check_needs(job, rows, cards, folder)             TrainingError if it has no step, or not enough disk or memory
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from stages.lib.training import Job, TrainingError
from stages.lib.training.checkpoints import NOT_IN_DIGEST, files_of, short_hash
from stages.lib.training.dataset import Conversations, shape_of
from stages.lib.training.external_inputs import settings_of
from stages.lib.training.launching import deepspeed_file, zero_stage
from stages.lib.training.resources import Sharing, check_cards, check_room, stored_size

# settings that do not change what is learned
_NOT_IN_DIGEST = {"kind", "command", "merge_into"}


@dataclass(frozen=True)
class Cards:
    """The cards of a training on all nodes, and the memory of one card in bytes (None: not known)."""

    count: int
    memory: int | None


def digest(kind: str, job: Job, rows: Conversations, cards: Cards, versions: dict[str, str]) -> str:
    """A hash of everything that determines the weights, including the trainer's release and the number of cards."""
    settings = settings_of(job).model_dump(exclude=_NOT_IN_DIGEST)
    settings["extra"] = {key: value for key, value in settings["extra"].items() if not key.startswith("save_")}
    deepspeed = deepspeed_file(job.train.deepspeed)
    return short_hash(
        {
            "rows": shape_of(rows).sha256,
            "train": job.train.model_dump(exclude=NOT_IN_DIGEST | {"trainer": True}),
            kind: settings,
            "deepspeed": hashlib.sha256(Path(deepspeed).read_bytes()).hexdigest() if deepspeed else None,
            "arm": job.arm.model_dump(exclude={"dataset", "alpha"}),
            "student": files_of(job.student),
            "device": job.run.device,
            "cards": cards.count,
            "versions": versions,
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
    # on a CPU all ranks of a host share its memory
    here = cards.count // job.nodes.count if job.run.device == "cpu" else 1
    there = cards.memory // here if cards.memory else None
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
