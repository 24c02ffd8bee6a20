"""Check disk and memory against estimates for this profile's training, from the student's number of parameters.

Measured: SmolLM2-135M on a CPU, LoRA 2.5 GB of memory and full 4.2 GB; the last checkpoint of a 7B, with the
optimizer's state, about 91 GB. The rest is computed from the number of weights.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.doctor import Finding, fail, ok, warn
from stages.lib.doctor.needs import local_student
from stages.lib.params import ExternalTrainer, Params
from stages.lib.store.answer_store import default_path

GB = 1e9
LIBRARIES = 2 * GB  # memory of torch and its dependencies; also the disk space of data, logs and caches
OPTIMIZER = 12  # bytes per weight: gradients and Adam's two moments
CHECKPOINT = 16  # bytes per weight, as train estimates: twice the bf16 weights, fp32 weights, two moments
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def disk(params: Params) -> Iterator[Finding]:
    """Check the disk space for weights of untrained arms, the student's, and the checkpoints of one training."""
    free, needed = float(shutil.disk_usage(project_root()).free), disk_needed(params)
    if needed is None:
        yield ok("disk", f"{free / GB:.1f} GB free; the need cannot be estimated from '{params.train.student.name}'")
    elif free < needed:
        shortage = f"{free / GB:.1f} GB free, about {needed / GB:.1f} GB needed"
        yield fail("disk", shortage, "free disk space ('dvc gc --workspace' removes old results), or move the project")
    else:
        yield ok("disk", f"{free / GB:.1f} GB free, about {needed / GB:.1f} GB needed")


def locked_folders() -> dict[str, Path]:
    """The folders with locks, by purpose. The project's folder only if it is on another filesystem than the store."""
    folders = {"the store": default_path().parent}
    there = next(path for path in default_path().parents if path.is_dir())
    if there.stat().st_dev != project_root().stat().st_dev:
        folders["the project"] = project_root()
    return folders


def memory(params: Params) -> Iterator[Finding]:
    """Check the memory of the host, or a container's limit. The memory of cards is not checked."""
    free, needed = memory_available(), memory_needed(params)
    if free is None:
        yield ok("memory", "not checked: this system does not report it")
    elif needed is not None and free < needed:
        shortage = f"{free / GB:.1f} GB available, about {needed / GB:.1f} GB needed"
        yield warn("memory", shortage, "close other programs, or set train.finetuning.kind: lora or a smaller batch")
    else:
        yield ok("memory", f"{free / GB:.1f} GB available" + (f", about {needed / GB:.1f} GB needed" if needed else ""))


def disk_needed(params: Params) -> float | None:
    """The bytes that are still to be written; None if the student's size is not known."""
    weights = number_of_weights(params)
    if weights is None:
        return None
    train = params.train
    model = weights * (2 if train.bf16 and train.deepspeed else 4)  # without DeepSpeed, trained weights stay fp32
    untrained = [arm for arm in params.trained_arms if not (project_root() / "models" / arm / "config.json").is_file()]
    copies = len(untrained) + (local_student(train.student) is None)
    at_once = checkpoints_at_once(params) if untrained and train.lora is None else 0
    return LIBRARIES + model * copies + weights * CHECKPOINT * at_once


def checkpoints_at_once(params: Params) -> int:
    """The most checkpoints on the disk at once: two if the next is written before the last one is removed."""
    trainer, run = params.train.trainer, params.run
    if run.checkpoint_steps is None:
        return 0
    return 1 if isinstance(trainer, ExternalTrainer) and not run.resume else 2


def memory_needed(params: Params) -> float | None:
    """The bytes of host memory: the whole training on a CPU; with cards, the weights before they are moved there.

    In the process of each card, TRL first loads all weights in fp32; the other trainers cast the trained ones to fp32.
    """
    weights = number_of_weights(params)
    if weights is None:
        return None
    if params.run.device == "cpu":
        full = params.train.lora is None
        return LIBRARIES + weights * (4 + OPTIMIZER if full else 4)
    if params.train.trainer.kind == "trl" or params.train.lora is None:
        return LIBRARIES + weights * 4 * params.run.processes
    return LIBRARIES + weights * (2 if params.train.bf16 else 4)


def number_of_weights(params: Params) -> float | None:
    """The number in the student's name (7B, 135M), else an estimate from the size of its files."""
    student = params.train.student
    folder = local_student(student)
    names = [Path(student.name).name, *(path.stem for path in sorted(folder.glob("*.gguf")))] if folder else []
    for name in [*names, student.name]:
        found = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z])", name)
        if found:
            return float(found[1]) * (1e9 if found[2] == "B" else 1e6)
    return weights_in(folder) if folder else None


def weights_in(folder: Path) -> float | None:
    """The size of the files divided by the bytes of one weight, from the dtype in config.json."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    kind = str(config.get("dtype") or config.get("torch_dtype"))
    return size / (2 if kind.endswith("float16") else 4) if size else None


def memory_available() -> float | None:
    """The available memory in bytes, at most a container's limit."""
    found = [_system_memory(), *(_limit(file) for file in LIMITS)]
    return min((size for size in found if size is not None), default=None)


def _system_memory() -> float | None:
    try:
        return (
            float(re.findall(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)[0]) * 1024
        )
    except (OSError, IndexError):
        names = os.sysconf_names  # not Linux: the total memory, because the free memory is not known
        if "SC_PHYS_PAGES" in names:
            return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
        return None


def _limit(file: Path) -> float | None:
    try:
        return float(file.read_text())
    except (OSError, ValueError):  # no such file, or 'max'
        return None
