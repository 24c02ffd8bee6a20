"""Estimate the disk space and memory of a training before its weights are loaded, and name settings that need less.

The estimate in fp32: a parameter takes 4 bytes in the final weights. A trained one takes 12 more in memory (its
gradient and Adam's two moments) and up to 16 in a checkpoint. The activations of the rows need memory in addition.

With DeepSpeed, ZeRO-1 shards the optimizer's 12 bytes over the cards of all nodes, ZeRO-2 the gradients too, ZeRO-3
the weights too. In bf16, a weight and its gradient then take 2 bytes each, and the 12 bytes are the fp32 copy of the
weight and the two moments (Rajbhandari et al. 2020, arXiv:1910.02054, section 3). FSDP2 shards all 16 bytes of fp32.
"""

import json
import logging
import math
import os
import resource
import shutil
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.params import Lora
from stages.lib.training import Job, TrainingError
from stages.lib.training.launching import zero_of

log = logging.getLogger("distillery.train")

GIB = 2**30
MIB = 2**20
WEIGHT = 4
STATE = 12
CHECKPOINT = 16
CHECKPOINTS = 2  # the last one is removed when the next is complete
HEADER = 8  # bytes: a safetensors file starts with the length of its header, little-endian
NOT_ADAPTED = ("embed_tokens", "lm_head")  # modules that "all-linear" leaves out
_OUT_OF_MEMORY = (
    "out of memory",  # CUDA and NPU
    "can't allocate memory",  # torch on a CPU
    "cannot allocate memory",  # the system
    "std::bad_alloc",
    "memoryerror",
    "(sigkill)",  # torchrun, when the kernel killed a worker
)


@dataclass(frozen=True)
class Size:
    """The number of parameters in memory, adapters included, and how many of them are trained."""

    parameters: int
    trained: int


@dataclass(frozen=True)
class Sharing:
    """How a training uses its cards: their number, DeepSpeed's ZeRO stage (None without DeepSpeed), bf16 or fp32.

    ``fsdp2``: FSDP2 shards it. ``nodes``: on how many hosts the cards are.
    """

    cards: int
    stage: int | None
    bf16: bool
    fsdp2: bool = False
    nodes: int = 1

    def bytes_per_card(self, size: Size) -> tuple[float, float]:
        """The bytes on each card of the weights, and of gradients and optimizer."""
        frozen = size.parameters - size.trained
        if self.fsdp2:
            return WEIGHT * size.parameters / self.cards, STATE * size.trained / self.cards
        if self.stage is None:  # what is trained stays in fp32
            return (2 if self.bf16 else WEIGHT) * frozen + WEIGHT * size.trained, STATE * size.trained
        one = 2 if self.bf16 else WEIGHT
        weights, gradients, optimizer = one * size.parameters, one * size.trained, STATE * size.trained
        shares = [self.cards if self.stage >= stage else 1 for stage in (3, 2, 1)]
        return weights / shares[0], gradients / shares[1] + optimizer / shares[2]


def check_weights_there(student: Path) -> None:
    """TrainingError if a student's folder lacks weights, or some of the files that its index lists."""
    index = student / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        missing = sorted(name for name in names if not (student / name).is_file())
    else:
        kinds = ("*.safetensors", "pytorch_model*.bin")
        missing = [] if any(any(student.glob(kind)) for kind in kinds) else ["model.safetensors"]
    if missing:
        raise TrainingError(
            f"{student}: {len(missing)} weight files are missing, {missing[0]} among them. Download them again, "
            "or check train.student in params.yaml."
        )


def stored_size(student: Path, lora: Lora | None) -> Size:
    """The parameters in a student's safetensors files, and those that its adapters would add.

    Only the files' headers are read: no weights, no torch. 0 if the weights have another format.
    """
    shapes = dict(shape for path in sorted(student.glob("*.safetensors")) for shape in _shapes(path))
    parameters = sum(math.prod(shape) for shape in shapes.values())
    if lora is None:
        return Size(parameters, parameters)
    adapters = sum(lora.r * sum(shape) for name, shape in shapes.items() if len(shape) == 2 and _adapted(name, lora))
    return Size(parameters + adapters, adapters)


def _shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    yield from ((name, tensor["shape"]) for name, tensor in header(path).items())


def header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors in a safetensors file's header: ``{"lm_head.weight": {"dtype": "BF16", "shape": [2, 3], …}}``."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(HEADER))
        tensors: dict[str, dict[str, Any]] = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return tensors


def _adapted(name: str, lora: Lora) -> bool:
    module = name.removesuffix(".weight").rpartition(".")[2]
    if lora.target_modules == "all-linear":
        return module not in NOT_ADAPTED
    wanted = lora.target_modules
    return module in ([word.strip() for word in wanted.split(",")] if isinstance(wanted, str) else wanted)


def check_disk(job: Job, size: Size, scratch: Path) -> None:
    """TrainingError if TRL's checkpoints and final weights would not fit on their disks."""
    check_room(job, size, scratch, CHECKPOINTS if job.run.checkpoint_steps else 0, "set run.checkpoint_steps: null")


def check_room(job: Job, size: Size, scratch: Path, at_once: int, fewer: str) -> None:
    """TrainingError if ``at_once`` checkpoints and the final weights do not fit; ``fewer`` is the advice in it."""
    checkpoints = at_once * CHECKPOINT * size.trained
    disks: dict[int, tuple[Path, int]] = {}
    for folder, needed in ((job.out, WEIGHT * size.parameters), (scratch, checkpoints)):
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
        first, before = disks.get(place.stat().st_dev, (place, 0))
        disks[place.stat().st_dev] = first, before + needed
    for place, needed in disks.values():
        free = shutil.disk_usage(place).free
        if needed > free:
            advice = f", or {fewer}" if checkpoints else ""
            raise TrainingError(
                f"{place}: {free / GIB:.1f} GiB are free there. {job.name} needs {needed / GIB:.1f} GiB for final "
                f"weights and {at_once} checkpoints. Free disk space{advice}."
            )


def check_memory(job: Job, size: Size, sharing: Sharing) -> None:
    """Log the memory that TRL needs on each card, or in total on a CPU; TrainingError if the device has less."""
    needed, there = sum(sharing.bytes_per_card(size)), device_memory(job.run.device)
    if job.run.device == "cpu":
        needed *= sharing.cards // sharing.nodes  # all processes of a host share its memory
    where = job.run.device if sharing.cards == 1 or job.run.device == "cpu" else f"each {job.run.device}"
    facts = job.name, needed / GIB, where, there / GIB
    log.info("train: %s: at least %.1f GiB of memory, more with longer rows; %s has %.1f GiB", *facts)
    if needed > there:
        raise TrainingError(
            f"train: {job.name} needs {needed / GIB:.1f} GiB for weights, gradients and optimizer, and {where} has "
            f"{there / GIB:.1f} GiB. {memory_advice(job)}, or choose a smaller train.student."
        )


def check_cards(job: Job, size: Size, sharing: Sharing, there: int | None) -> None:
    """Log the memory that each card needs; TrainingError if ``there``, its bytes of memory where known, is less."""
    weights, states = sharing.bytes_per_card(size)
    zero = f"ZeRO-{sharing.stage}" if sharing.stage else "no ZeRO"
    has = "its memory is not known here" if there is None else f"each has {there / GIB:.1f} GiB"
    log.info(
        "train: %s: at least %.2f GiB on each of %d %s (weights %.2f, gradients and optimizer %.2f, %s), more "
        "with longer rows; %s",
        *(job.name, (weights + states) / GIB, sharing.cards, "ranks" if job.run.device == "cpu" else "cards"),
        *(weights / GIB, states / GIB, zero, has),
    )
    if there is not None and weights + states > there:
        raise TrainingError(
            f"train: {job.name} needs {(weights + states) / GIB:.1f} GiB on each of {sharing.cards} cards for weights, "
            f"gradients and optimizer, and a card has {there / GIB:.1f} GiB. {memory_advice(job)}, or use more cards."
        )


def device_memory(device: str) -> int:
    """The total memory of a device, in bytes."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch

    # mem_get_info would make every process of a training allocate memory on the first card
    return int(getattr(torch, kind).get_device_properties(int(index or 0)).total_memory)


def peak_memory() -> int:
    """The peak host memory of one process of the training, this one or one that it started, in MiB."""
    return round(
        max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    )


def peak_card_memory(device: str) -> dict[str, float]:
    """The peak memory of this process on its card, in MiB; empty without a card."""
    backend: Any = getattr(
        sys.modules.get("torch"), device.partition(":")[0], None
    )  # torch.npu once torch_npu is imported
    own = backend.max_memory_allocated() if hasattr(backend, "max_memory_allocated") else 0
    return {"peak_card_memory_mib": round(own / MIB)} if own else {}


@contextmanager
def explain_out_of_memory(job: Job) -> Iterator[None]:
    """Turn an out-of-memory error into a TrainingError that names the params that need less."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        ran_out = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not ran_out and not says_out_of_memory(str(error)):
            raise
        raise TrainingError(f"train: {job.name}: {job.run.device} is out of memory. {memory_advice(job)}.") from error


def says_out_of_memory(text: str) -> bool:
    """Whether an error or a log reports that a card or the host is out of memory."""
    return any(said in text.lower() for said in _OUT_OF_MEMORY)


def memory_advice(job: Job) -> str:
    """The params to change for less memory, those first that change the result least."""
    params = job.train
    changes = []
    if params.per_device_train_batch_size > 1:
        changes.append("lower train.per_device_train_batch_size and raise gradient_accumulation_steps by that factor")
    if not params.gradient_checkpointing:
        changes.append("set train.gradient_checkpointing: true")
    if not params.deepspeed and job.run.device != "cpu":
        cards = "the cards of run.processes" if params.trainer.kind == "trl" else "the cards"
        changes.append(
            f"set train.deepspeed: profiles/deepspeed/ds_z2_config.json, which shards the optimizer over {cards}"
        )
    if (zero_of(params.deepspeed) or 3) < 3:
        changes.append("set train.deepspeed: profiles/deepspeed/ds_z3_config.json, which shards the weights too")
    if params.lora is None:
        changes.append("set train.finetuning.kind: lora")
    changes.append(f"lower arms.{job.name}.cutoff_len")
    text = ", or ".join(changes)
    return text[0].upper() + text[1:]
