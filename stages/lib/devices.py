"""The device named in ``run.device``: refused where this machine lacks it, and with an index for who needs one."""

from stages.lib.command import DistilleryError


def check_device(device: str) -> None:
    """DistilleryError, in one line, where torch finds no such device: a training on another would go unnoticed."""
    import torch

    kind, _, index = device.partition(":")
    if kind == "cpu":
        return
    backend = getattr(torch, kind, None)  # torch.cuda, torch.xpu; torch.npu once torch_npu is installed
    count = backend.device_count() if backend is not None and hasattr(backend, "device_count") else 0
    if count <= int(index or 0):
        raise DistilleryError(f"run.device: there is no '{device}' on this machine ({count} of that kind). Set cpu.")


def with_index(device: str) -> str:
    """``npu`` as ``npu:0``, for those who refuse a card without its number, as lm-eval does; ``cpu`` has none."""
    return device if device == "cpu" or ":" in device else f"{device}:0"
