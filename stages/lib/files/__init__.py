"""Files that are whole or not there: written beside their place under a temporary name, synced, then renamed.

with writing(Path("metrics/filter.json")) as file:       # one file
    file.write(b"{}")
with writing_parts(Path("data/x.jsonl"), 100_000) as parts:   # a data file: one, or a folder of parts (shards.py)
    parts.add(b'{"id": "x-0"}\\n')
"""

import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stages.lib.command import DistilleryError

# what DVC tracks may be a link into its cache: an edit would spoil the cached file
UNPROTECT = "'dvc unprotect' the file if DVC tracks it"


class DataError(DistilleryError):
    """A row or a file that cannot be used: ``FILE:LINE: what. What to do next.``"""


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is whole: written beside it, synced, then renamed."""
    if is_device(path):
        with named_errors(path), path.open("wb") as device:
            yield device
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with named_errors(path), temporary.open("wb") as file:
            yield file
            sync(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_device(path: Path) -> bool:
    """Whether it is a pipe or a device, which is written to and never replaced."""
    return path.exists() and not (stat.S_ISREG(path.stat().st_mode) or path.is_dir())


def temporary_name(path: Path) -> Path:
    """The name beside ``path`` under which this process of this host writes it."""
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")


def sync(file: BinaryIO) -> None:
    """Have what was written on the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Give the file's name to errors of writing, which come without one (a full disk)."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
