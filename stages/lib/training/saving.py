"""Save a trained student: its weights in the dtype that params name, and small files that any transformers reads.

In:   a trained model, or a folder that a trainer in its own environment left; the student as published
Out:  job.out: *.safetensors, config.json, generation_config.json, tokenizer files, the chat template

``train.save_dtype: auto`` gives each tensor the dtype that it was published in. ``check_finite`` reads the saved
weights, a slice at a time, and looks for nan and inf.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.lib.training import Job, Trained, TrainingError
from stages.lib.training.portable import make_portable, published_dtype
from stages.lib.training.resources import header

SLICE = 2**24  # values that are checked together
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # names in safetensors and in torch


def save_merged(model: Any, tokenizer: Any, job: Job) -> None:
    """Save a student whose adapters are merged into its weights, and the adapters alone where params keep them."""
    assert job.train.lora
    if job.train.lora.keep_adapter:
        model.peft_config["default"].base_model_name_or_path = job.base_name  # not a path of this machine
        model.save_pretrained(job.out / "adapter")
    save_model(model.merge_and_unload(), tokenizer, job)


def save_model(model: Any, tokenizer: Any, job: Job) -> None:
    """Write a model that was trained or merged here."""
    import torch

    types = Types(job)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(getattr(torch, types.of(name)))  # in place, so that tied weights stay tied
    model.generation_config = minimal_generation_config(tokenizer)
    model.save_pretrained(job.out)
    save_small_files(tokenizer, job, types)


def save_folder(folder: Path, tokenizer: Any, job: Job) -> None:
    """Save the weights that a trainer wrote into a folder, with one file in memory at a time."""
    import torch
    from safetensors.torch import load_file, save_file

    types = Types(job)
    for path in sorted(folder.glob("*.safetensors")):
        stored = dict(dtypes(path))
        if all(types.of(name) == dtype for name, dtype in stored.items() if dtype):
            shutil.move(path, job.out / path.name)
            continue
        tensors = load_file(path)
        for name, dtype in stored.items():
            tensors[name] = tensors[name].to(getattr(torch, types.of(name))) if dtype else tensors[name]
        save_file(tensors, job.out / path.name, metadata={"format": "pt"})
    for path in folder.glob("*.safetensors.index.json"):
        index = json.loads(path.read_bytes())
        index["metadata"] = {"total_size": sum(file.stat().st_size for file in job.out.glob("*.safetensors"))}
        (job.out / path.name).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    (job.out / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_small_files(tokenizer, job, types)


def save_small_files(tokenizer: Any, job: Job, types: "Types") -> None:
    """Save the tokenizer with its chat template, and the configs; TrainingError if it splits texts differently then."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(job.out)
    make_portable(job.out, job.student, types.usual, tokenizer)
    again = AutoTokenizer.from_pretrained(job.out)
    text = again.apply_chat_template(job.shape.first.messages(), tokenize=False)
    if again(text)["input_ids"] != tokenizer(text)["input_ids"]:
        raise TrainingError(
            f"{job.student}: its tokenizer splits a text differently after it is saved. Choose another student, or "
            "one that a published version of transformers saved."
        )


def minimal_generation_config(tokenizer: Any) -> Any:
    """A generation config that every version can save; ``make_portable`` then writes the student's own one."""
    from transformers import GenerationConfig

    return GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


class Types:
    """The dtype to save a tensor in: the one that params name, or its published one, or the most common one."""

    def __init__(self, job: Job) -> None:
        files = sorted(job.student.glob("*.safetensors"))
        stored = {name: dtype for path in files for name, dtype in dtypes(path) if dtype}
        named = published_dtype(job.student)
        usual = named if named in DTYPES.values() else next((t for t, _ in Counter(stored.values()).most_common(1)), "")
        self._stored = stored if job.train.save_dtype == "auto" else {}
        self.usual = (usual or "float32") if job.train.save_dtype == "auto" else job.train.save_dtype

    def of(self, name: str) -> str:
        """The dtype of a tensor, by torch's name."""
        return self._stored.get(name, self.usual)


def dtypes(path: Path) -> Iterator[tuple[str, str | None]]:
    """The tensors of a safetensors file with their dtypes; None for a dtype that is not a plain float."""
    for name, tensor in header(path).items():
        yield name, DTYPES.get(tensor["dtype"])


def check_losses(job: Job, trained: Trained) -> None:
    """TrainingError if a step's loss is nan or inf."""
    for point in trained.losses:
        if not math.isfinite(point.loss):
            raise not_finite(job, f"the loss is {point.loss} at step {point.step}", point.learning_rate)


def check_finite(job: Job, trained: Trained, folder: Path) -> None:
    """TrainingError if the saved weights contain a nan or an inf."""
    found = next(_not_finite(folder), None)
    if found is None:
        return
    raise not_finite(job, f"after step {trained.steps} the weights contain nan or inf ({found})", job.arm.learning_rate)


def not_finite(job: Job, what: str, learning_rate: float) -> TrainingError:
    """The error of a training whose loss or weights are nan or inf, with the params to change."""
    own_rate = f"arms.{job.name}.learning_rate"
    said = f"train: {job.name}: {what}, learning rate {learning_rate:g} ({own_rate}: {job.arm.learning_rate:g})."
    if own := next(_not_finite(job.student), None):
        return TrainingError(f"{said} The student's own weights contain one too ({own}). Download {job.student} again.")
    narrow = ", or choose a train.save_dtype with a larger range" if job.train.save_dtype == "float16" else ""
    return TrainingError(f"{said} Lower {own_rate}, or raise train.warmup_ratio{narrow}.")


def _not_finite(folder: Path) -> Iterator[str]:
    """The tensors that contain a nan or an inf; only one slice is in memory at a time."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name, dtype in dtypes(path):
                if dtype and not all(part.isfinite().all() for part in _slices(file, name)):
                    yield name


def _slices(file: Any, name: str) -> Iterator[Any]:
    tensor = file.get_slice(name)
    shape = tensor.get_shape()
    if math.prod(shape) <= SLICE:
        yield file.get_tensor(name)
        return
    rows = max(1, SLICE // math.prod(shape[1:]))
    for start in range(0, shape[0], rows):
        yield tensor[start : start + rows]
