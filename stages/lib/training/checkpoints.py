"""A training's scratch folder, which keeps the checkpoints that a killed training resumes from.

It is under $DVC_ROOT, outside DVC's outs, because DVC deletes those before a stage runs:

    .cache/training/ARM/DIGEST/checkpoint-20/   weights, optimizer, schedule, random numbers: all that a resume needs
    .cache/training/ARM/DIGEST/lock             held by the process that trains

DIGEST is a hash of everything that determines the weights. So a training never resumes from a checkpoint of other
rows, other params or a student of other bytes. A training that succeeds removes its own folder and those that killed
trainings of the same arm left.

TRL's trainings use ``scratch_folder``. A trainer that computes its own DIGEST (external.py) uses ``held_folder``.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.command import project_root
from stages.lib.runtime.digests import files_hash
from stages.lib.runtime.versions import versions
from stages.lib.training import LIBRARIES, Job, TrainingError
from stages.lib.training.dataset import Conversations, shape_of
from stages.lib.training.folder_lock import held_by_another, take
from stages.lib.training.launching import deepspeed_file
from stages.lib.training.rows_folder import PREFIX

log = logging.getLogger("distillery.train")

# params that do not change what is learned: where the student comes from, what else is saved
NOT_IN_DIGEST: dict[str, Any] = {"student": True, "on_too_long": True, "finetuning": {"keep_adapter"}}


@dataclass(frozen=True)
class Held:
    """A locked scratch folder and the descriptor of its lock. A child process that inherits it holds the lock too."""

    folder: Path
    lock: int


@contextmanager
def scratch_folder(job: Job, rows: Conversations) -> Iterator[Path]:
    """The folder of this training, locked while it runs. Removed then, unless a failed training left a checkpoint."""
    with held_folder(job.name, digest(job, rows), job.run.resume, leaves="checkpoint-*") as held:
        yield held.folder


@contextmanager
def held_folder(name: str, digest: str, resume: bool, leaves: str) -> Iterator[Held]:
    """The folder of an arm's training with that digest, locked while it runs. Emptied first, unless ``resume``.

    It is removed afterwards, unless the training failed and left files that match the pattern ``leaves``.
    """
    arm = project_root() / ".cache" / "training" / name
    folder = arm / digest
    if not resume and not held_by_another(folder):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        if not take(lock):
            raise TrainingError(
                f"{folder}: another process trains '{name}' on the same rows and params. Wait for it, or stop it."
            )
        try:
            yield Held(folder, lock.fileno())
            _remove_abandoned(arm)
            shutil.rmtree(folder, ignore_errors=True)  # another node may be removing its own part
        finally:
            if not list(folder.glob(leaves)):
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # other trainings of the arm are in it, or another node removed it
                arm.rmdir()


def digest(job: Job, rows: Conversations) -> str:
    """A hash of everything that determines the weights."""
    shaping: dict[str, Any] = {
        "rows": shape_of(rows).sha256,
        "train": job.train.model_dump(exclude=NOT_IN_DIGEST),
        "arm": job.arm.model_dump(exclude={"dataset", "alpha"} | (set() if job.train.packing else {"cutoff_len"})),
        "student": files_of(job.student),
        **({"teacher": files_of(job.teacher)} if job.teacher else {}),
        "device": job.run.device,
        "processes": job.processes,  # each has its own random numbers and, with ZeRO, its part of the optimizer
        "deepspeed": Path(settings).read_text() if (settings := deepspeed_file(job.train.deepspeed)) else None,
        "versions": versions(LIBRARIES),
    }
    if job.arm.alpha:
        shaping["teacher"] = [job.arm.alpha, files_hash(job.scores) if job.scores.is_file() else None]
    return short_hash(shaping)


def files_of(student: Path) -> list[tuple[str, int, int]]:
    """A student's files by name, size and modification time. 15 GB are not read only to tell two students apart."""
    files = sorted(path for path in student.iterdir() if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def short_hash(shaping: dict[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of these values: the name of their folder."""
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, to resume from. Incomplete ones, which a killed process left, are removed."""
    checkpoint = newest_checkpoint(folder)
    for newer in folder.glob("checkpoint-*"):
        if step_of(newer) > step_of(checkpoint):
            shutil.rmtree(newer)
    if checkpoint:
        log.info("train: resuming from step %d (%s)", step_of(checkpoint), checkpoint)
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; None if there is none."""
    return max(filter(_is_complete, folder.glob("checkpoint-*")), key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """The step that a training resumes from; 0 where it starts from the beginning."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _is_complete(checkpoint: Path) -> bool:
    """Whether its last file exists: the Trainer writes its state after weights, optimizer and random numbers."""
    try:
        return "global_step" in json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):  # OSError: not there, or on a shared disk there no more
        return False


def _remove_abandoned(arm: Path) -> None:
    """Remove the folders that killed trainings of this arm left. Ours and those of running trainings are locked.

    Folders of rows stay: a process of their own host removes them.
    """
    for lock in arm.glob("*/lock"):
        if not lock.parent.name.startswith(PREFIX) and not held_by_another(lock.parent):
            log.info("train: removed what another training of this arm left (%s)", lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)  # another node may be removing its own
