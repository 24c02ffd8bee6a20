"""A student from ModelScope, by id and revision; the client keeps it in its cache."""

from pathlib import Path

from stages.lib.params import Student
from stages.lib.students import TOKENIZER_FILES, StudentError


def folder(student: Student) -> Path:
    """The downloaded snapshot."""
    return _snapshot(student, files=None)


def tokenizer_folder(student: Student) -> Path:
    """The snapshot's small files alone."""
    return _snapshot(student, files=TOKENIZER_FILES)


def _snapshot(student: Student, files: list[str] | None) -> Path:
    from modelscope import snapshot_download

    try:
        return Path(snapshot_download(student.name, revision=student.revision, allow_patterns=files))
    except Exception as error:  # the client raises its own and requests' errors alike
        raise StudentError(
            f"train.student.name: ModelScope gave no '{student.name}' ({type(error).__name__}: {error!s:.200}). "
            "Without a network, set source: path and name a local folder."
        ) from error
