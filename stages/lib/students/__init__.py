"""The student's weights: one module a source, chosen by ``train.student.source``.

Each offers ``folder(student) -> Path``: a folder that transformers loads with ``from_pretrained``.
"""

import importlib
from pathlib import Path

from stages.lib.command import DistilleryError
from stages.lib.params import Student


class StudentError(DistilleryError):
    """The student's weights cannot be had or are not whole."""


def student_folder(student: Student) -> Path:
    """The folder of the student's weights; StudentError where there is none."""
    source = importlib.import_module(f"stages.lib.students.{student.source}")
    folder: Path = source.folder(student)
    if not (folder / "config.json").is_file():
        raise StudentError(f"{folder}: no config.json there, so no model. Check train.student in params.yaml.")
    return folder
