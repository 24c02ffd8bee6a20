"""What a training needs of disk and memory, reckoned before its weights are loaded, and what to turn where it fails.

By reckoning, in fp32: a parameter takes 4 bytes in the final weights; a trained one takes 12 more in memory (its
gradient and Adam's two moments) and up to 16 in a checkpoint. What the rows themselves take in memory comes on top.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.lib.trainers import Job, TrainingError

log = logging.getLogger("distillery.train")

GIB = 2**30
WEIGHT = 4
STATE = 12
CHECKPOINT = 16
CHECKPOINTS = 2  # the last one goes when the next is whole
_SAID_OF_MEMORY = ("out of memory", "can't allocate memory")  # by accelerators, by torch on a CPU


@dataclass(frozen=True)
class Size:
    """How many parameters a student has, and how many of all those in memory are trained."""

    parameters: int
    trained: int


def check_weights_there(student: Path) -> None:
    """TrainingError where a student's folder lacks weights, or some of the files that its index names."""
    index = student / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        missing = sorted(name for name in names if not (student / name).is_file())
    else:
        kinds = ("*.safetensors", "pytorch_model*.bin")
        missing = [] if any(any(student.glob(kind)) for kind in kinds) else ["model.safetensors"]
    if missing:
        raise TrainingError(
            f"{student}: {len(missing)} files of its weights are missing, {missing[0]} among them. Fetch them again, "
            "or check train.student in params.yaml."
        )


def check_disk(job: Job, size: Size, scratch: Path) -> None:
    """TrainingError where checkpoints and final weights would not fit on the disks that they go to."""
    checkpoints = CHECKPOINTS * CHECKPOINT * size.trained if job.train.save_steps else 0
    disks: dict[int, tuple[Path, int]] = {}
    for folder, needed in ((job.out, WEIGHT * size.parameters), (scratch, checkpoints)):
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
        first, before = disks.get(place.stat().st_dev, (place, 0))
        disks[place.stat().st_dev] = first, before + needed
    for place, needed in disks.values():
        free = shutil.disk_usage(place).free
        if needed > free:
            advice = ", or set train.save_steps: null" if checkpoints else ""
            raise TrainingError(
                f"{place}: {free / GIB:.1f} GiB are free there. {job.name} needs {needed / GIB:.1f} of final weights "
                f"and {CHECKPOINTS if checkpoints else 0} checkpoints. Make room{advice}."
            )


def check_memory(job: Job, size: Size) -> None:
    """Say what weights, gradients and optimizer take; TrainingError where the device has not so much at all."""
    needed, there = WEIGHT * size.parameters + STATE * size.trained, device_memory(job.run.device)
    facts = job.name, needed / GIB, job.run.device, there / GIB
    log.info("train: %s: at least %.1f GiB of memory, and more with longer rows; %s has %.1f", *facts)
    if needed > there:
        raise TrainingError(
            f"train: {job.name} needs {needed / GIB:.1f} GiB for weights, gradients and optimizer, and "
            f"{job.run.device} has {there / GIB:.1f}. {_smaller(job)}, or choose a smaller train.student."
        )


def device_memory(device: str) -> int:
    """All the memory that a device has, in bytes."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch

    return int(getattr(torch, kind).mem_get_info(int(index or 0))[1])


@contextmanager
def memory_told(job: Job) -> Iterator[None]:
    """Where the memory runs out in here: TrainingError with the params that take less of it."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        ran_out = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not ran_out and not any(said in str(error).lower() for said in _SAID_OF_MEMORY):
            raise
        raise TrainingError(f"train: {job.name}: {job.run.device} is out of memory. {_smaller(job)}.") from error


def _smaller(job: Job) -> str:
    """What takes less memory than these params, what changes the result least first."""
    params = job.train
    turns = []
    if params.per_device_train_batch_size > 1:
        turns.append("lower train.per_device_train_batch_size and raise gradient_accumulation_steps as much")
    if not params.gradient_checkpointing:
        turns.append("set train.gradient_checkpointing: true")
    if params.finetuning_type == "full":
        turns.append("set train.finetuning_type: lora")
    turns.append(f"lower arms.{job.name}.cutoff_len")
    text = ", or ".join(turns)
    return text[0].upper() + text[1:]
