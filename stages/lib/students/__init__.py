"""The student's weights and tokenizer: one module for each source, chosen by ``train.student.kind``.

Each module offers

- ``folder(student) -> Path``: a folder that transformers loads with ``from_pretrained``;
- ``tokenizer_folder(student) -> Path``: a folder with the tokenizer and the chat template, without the weights;
- ``published(student) -> Path``, if it converts its file: the original file (identity.py).
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.lib.command import DistilleryError
from stages.lib.params import Student

# all files of a model repository but the weights
TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


class StudentError(DistilleryError):
    """The student's weights or tokenizer are not available or not complete."""


def student_folder(student: Student) -> Path:
    """The folder of the student's weights; StudentError if there is none."""
    source = importlib.import_module(f"stages.lib.students.{student.kind}")
    folder: Path = source.folder(student)
    if not (folder / "config.json").is_file():
        raise StudentError(f"{folder}: not a model, because it has no config.json. Check train.student in params.yaml.")
    return folder


def tokenizer_folder(student: Student) -> Path:
    """A folder with the student's tokenizer, perhaps without its weights; StudentError if there is none."""
    source = importlib.import_module(f"stages.lib.students.{student.kind}")
    folder: Path = source.tokenizer_folder(student)
    if not (folder / "tokenizer_config.json").is_file():  # else transformers would read the path as a hub id
        raise StudentError(f"{folder}: no tokenizer_config.json there. Check train.student in params.yaml.")
    return folder


def student_tokenizer(student: Student) -> Any:
    """The student's tokenizer, without its weights; StudentError if there is none, or none with a chat template."""
    folder = tokenizer_folder(student)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise StudentError(f"{folder}: the tokenizer has no chat template. Choose an instruction-tuned student.")
    return tokenizer


def token_lengths(tokenizer: Any, conversations: Iterable[list[dict[str, str]]]) -> list[int]:
    """Tokens of each conversation (``[{"role": "system", "content": "…"}, …]``), including the chat template's."""
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
