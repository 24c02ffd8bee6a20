"""Identify a student's weights so that another machine can check them: name, revision and a hash of its files.

Out, for metrics/train/ARM.json:

    {"name": "Qwen/Qwen2.5-7B-Instruct", "revision": "a09a35458c70…", "sha256": "5e7f…"}

The hash (runtime/digests.py) covers the files as they were published.
"""

import importlib
from pathlib import Path

from stages.lib.params import Student
from stages.lib.runtime.digests import files_hash


def student_identity(student: Student) -> dict[str, str | None]:
    """The student's name, its revision in params (None: the newest, or none exists) and the hash of its files."""
    name = Path(student.name).name if student.kind == "path" else student.name  # a path is local
    return {"name": name, "revision": student.revision, "sha256": files_hash(published(student))}


def published(student: Student) -> Path:
    """The student's file or folder as published. A source that converts its file names the original one."""
    source = importlib.import_module(f"stages.lib.students.{student.kind}")
    found: Path = source.published(student) if hasattr(source, "published") else source.folder(student)
    return found
