"""The folder in which a process keeps the rows of an arm while it trains on them or scores them.

    .cache/training/ARM/rows-HOST-PID/conversations.jsonl, left_out.jsonl, tokens.arrow, lock

It is on the project's disk, for /tmp may be memory. It is removed at the end, and that of a process that was killed
when the arm is next trained on that host: the lock, which the kernel releases, tells.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.training.folder_lock import held_by_another, take


@contextmanager
def rows_folder(name: str) -> Iterator[Path]:
    """An empty folder for the rows of this process."""
    arm = project_root() / ".cache" / "training" / name
    host = f"rows-{platform.node()}"
    for lock in arm.glob(f"{host}-*/lock"):  # not of other hosts: locks may not reach from one to another
        if not held_by_another(lock.parent):
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = arm / f"{host}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock_file:
        take(lock_file)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # trainings of the arm are in it, or another node removed it
                arm.rmdir()
