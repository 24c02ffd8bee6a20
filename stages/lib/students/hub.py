"""A student from the Hugging Face hub or its mirror (HF_ENDPOINT), by id and revision."""

from pathlib import Path

from stages.lib.params import PublishedStudent
from stages.lib.students import TOKENIZER_FILES, StudentError


def folder(student: PublishedStudent) -> Path:
    """The downloaded snapshot."""
    return _snapshot(student, files=None)


def tokenizer_folder(student: PublishedStudent) -> Path:
    """A snapshot of only the tokenizer's files."""
    return _snapshot(student, files=TOKENIZER_FILES)


def _snapshot(student: PublishedStudent, files: list[str] | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(student.name, revision=student.revision, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StudentError(
            f"train.student.name: '{student.name}' cannot be downloaded from the hub "
            f"({type(error).__name__}: {error!s:.200}). Without a network, set kind: path and name a local folder."
        ) from error
