"""The device in ``run.device``: check that this machine has it, and add an index where a library needs one."""

import importlib
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.lib.command import DistilleryError

log = logging.getLogger("distillery")

# the variable that limits the cards that a process sees, by kind
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}


def check_device(device: str, processes: int = 1) -> None:
    """DistilleryError where torch finds no such device; otherwise a training would silently use another one."""
    kind, first = split(device)
    if kind == "cpu":
        return
    backend = _backend(kind)
    count = backend.device_count() if backend is not None and hasattr(backend, "device_count") else 0
    if count <= first:
        raise DistilleryError(f"run.device: there is no '{device}' on this machine ({count} of that kind). Set cpu.")
    if count < first + processes:
        raise DistilleryError(
            f"run.processes: {processes}, but there are {count - first} cards from '{with_index(device)}' on. Lower it."
        )


def with_index(device: str) -> str:
    """``npu`` as ``npu:0``, for libraries that need the card's number, such as lm-eval; ``cpu`` has none."""
    return device if device == "cpu" or ":" in device else f"{device}:0"


def split(device: str) -> tuple[str, int]:
    """``cuda:1`` as ``("cuda", 1)``; without a number, the first card."""
    kind, _, index = device.partition(":")
    return kind, int(index or 0)


def visible_cards(device: str, processes: int) -> dict[str, str]:
    """The variable that limits processes to these cards: the named one and the next ones that this process sees."""
    kind, first = split(device)
    if kind not in VISIBLE:
        return {}
    seen = os.environ.get(VISIBLE[kind])
    cards = seen.split(",") if seen else [str(number) for number in range(first + processes)]
    return {VISIBLE[kind]: ",".join(cards[first : first + processes])}


def check_bf16(device: str) -> None:
    """DistilleryError where a card cannot compute in bf16; a warning where a CPU can, but slowly."""
    kind, _ = split(device)
    if kind == "cpu":
        info = Path("/proc/cpuinfo")
        if info.is_file() and "bf16" not in info.read_text():
            log.warning("train.bf16: this CPU emulates bf16, which is 6-8 times slower than fp32. Set it to false.")
        return
    backend = _backend(kind)
    supported = getattr(backend, "is_bf16_supported", None)
    # CUDA counts old cards too, which only emulate bf16
    if supported and not (supported(including_emulation=False) if kind == "cuda" else supported()):
        raise DistilleryError(f"train.bf16: '{device}' has no bf16. Set train.bf16: false, which trains in fp32.")


def _backend(kind: str) -> Any:
    """torch.cuda, torch.xpu; torch.npu where torch_npu can be imported, found in the same way as in accelerate."""
    import torch

    if kind == "npu" and find_spec("torch_npu"):
        try:
            importlib.import_module("torch_npu")
        except (ImportError, OSError, RuntimeError) as error:  # libhccl.so is missing, for one
            raise DistilleryError(
                f"run.device: npu: torch_npu cannot be imported ({str(error).splitlines()[0]:.120}). Source CANN's "
                "set_env.sh; 'make doctor' finds it."
            ) from error
    return getattr(torch, kind, None)
