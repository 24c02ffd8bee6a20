"""A student in a local folder, used in place and never copied."""

from pathlib import Path

from stages.lib.params import LocalStudent


def folder(student: LocalStudent) -> Path:
    """The folder itself."""
    return Path(student.name).expanduser()


def tokenizer_folder(student: LocalStudent) -> Path:
    """The same folder."""
    return folder(student)
