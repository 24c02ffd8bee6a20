"""The student's weights and its tokenizer: one module a source, chosen by ``train.student.kind``.

Each offers ``folder(student) -> Path``: a folder that transformers loads with ``from_pretrained``; and
``tokenizer_folder(student) -> Path``: one with the tokenizer and the chat template, got without the weights. One that
converts what it gets also offers ``published(student) -> Path``: the file as it was got (identity.py).
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.lib.command import DistilleryError
from stages.lib.params import Student

# all that a repository of weights holds but the weights themselves
TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


class StudentError(DistilleryError):
    """The student's weights or its tokenizer cannot be had or are not whole."""


def student_folder(student: Student) -> Path:
    """The folder of the student's weights; StudentError where there is none."""
    source = importlib.import_module(f"stages.lib.students.{student.kind}")
    folder: Path = source.folder(student)
    if not (folder / "config.json").is_file():
        raise StudentError(f"{folder}: no config.json there, so no model. Check train.student in params.yaml.")
    return folder


def student_tokenizer(student: Student) -> Any:
    """The student's tokenizer, in seconds; StudentError where there is none, or none with a chat template."""
    source = importlib.import_module(f"stages.lib.students.{student.kind}")
    folder: Path = source.tokenizer_folder(student)
    if not (folder / "tokenizer_config.json").is_file():  # transformers would take the path for a hub's id
        raise StudentError(f"{folder}: no tokenizer_config.json there. Check train.student in params.yaml.")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise StudentError(f"{folder}: the tokenizer has no chat template. Choose an instruction-tuned student.")
    return tokenizer


def token_lengths(tokenizer: Any, conversations: Iterable[list[dict[str, str]]]) -> list[int]:
    """Tokens of each conversation (``[{"role": "system", "content": "…"}, …]``), the chat template's among them."""
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
