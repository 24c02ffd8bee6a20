"""A student in a local folder, used where it lies and never copied."""

from pathlib import Path

from stages.lib.params import Student


def folder(student: Student) -> Path:
    """The folder itself."""
    return Path(student.name).expanduser()


def tokenizer_folder(student: Student) -> Path:
    """The same folder."""
    return folder(student)
