"""The folder in which a process keeps the rows of an arm while it trains on them or scores them.

    .cache/training/ARM/rows-HOST-RANDOM/conversations.jsonl, left_out.jsonl, tokens.arrow, lock

It is on the project's disk, for /tmp may be memory. It is removed at the end, and that of a process that was killed
when the arm is next trained or scored on that host: the lock, which the kernel releases, tells.
"""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.training import TrainingError
from stages.lib.training.folder_lock import held_by_another, take

PREFIX = "rows-"


@contextmanager
def rows_folder(name: str) -> Iterator[Path]:
    """An empty folder for the rows of this process."""
    arm = project_root() / ".cache" / "training" / name
    folder = _new_folder(arm)
    new = folder / "lock.new"
    with new.open("w") as lock:
        if not take(lock):
            raise TrainingError(f"{folder}: another process locked this folder. Start again.")
        new.rename(folder / "lock")  # now that it is locked: another process removes a folder with a free lock
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # trainings of the arm are in it, or another node removed it
                arm.rmdir()


def _new_folder(arm: Path) -> Path:
    arm.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            arm.mkdir()
        with suppress(FileNotFoundError):  # a process that ended meanwhile removed the arm's empty folder
            _remove_abandoned(arm)
            return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{platform.node()}-", dir=arm))


def _remove_abandoned(arm: Path) -> None:
    """Remove the folders that killed processes of this host left. Locks may not reach from one host to another."""
    for lock in arm.glob(f"{PREFIX}*/lock"):
        host = lock.parent.name.rpartition("-")[0]  # a host's name may have a "-", what mkdtemp adds has none
        if host == PREFIX + platform.node() and not held_by_another(lock.parent):
            shutil.rmtree(lock.parent, ignore_errors=True)
