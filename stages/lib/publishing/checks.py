"""What must be so before anything goes up; each check raises PublishingError with the way to overrule it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.cards.licences import SHOWN_TABLE, Terms, with_training
from stages.lib.publishing import PublishingError
from stages.lib.publishing.secrets import keys_in

SHOWN = 3
CACHE_ONLY = "not in cache"  # the file is what dvc.lock says; only DVC's copy of it is elsewhere


def refuse_keys(files: Mapping[str, Path], known: Mapping[str, str]) -> None:
    """No key of this project, and nothing that looks like one, is in a text file."""
    if found := list(keys_in(files, known)):
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise PublishingError(
            f"{'; '.join(found[:SHOWN])}{more}. Remove it from the data and renew the key; FORCE=keys if it is none."
        )


def refuse_unknown_licence(licence: Terms, teachers: list[Terms]) -> None:
    """There is a licence to publish under; with ``other``, the terms of every teacher are known too."""
    if not licence.is_known:
        raise PublishingError(
            f"licence: that of '{licence.name}' is unknown. Give one, LICENCE=apache-2.0, or add it to {SHOWN_TABLE}."
        )
    if unknown := with_training(teachers, "unknown"):
        raise PublishingError(
            f"licence: the terms of the teacher '{unknown[0]}' are unknown. Read them; then add them to {SHOWN_TABLE}, "
            "or give a licence, LICENCE=apache-2.0."
        )


def refuse_restricted_teachers(teachers: list[Terms]) -> None:
    """The terms of every teacher allow training on its outputs."""
    for teacher in teachers:
        if teacher.training in ("forbidden", "conditions"):
            verb = "restrict" if teacher.training == "forbidden" else "set conditions for"
            raise PublishingError(
                f"terms: those of the teacher '{teacher.name}' {verb} training on its outputs ({teacher.source}). "
                "Read them; ACCEPT_TERMS=1 if you may publish."
            )


def refuse_dirty(root: Path, targets: list[str]) -> None:
    """The commit gives the files: nothing is uncommitted, and what DVC tracks is what dvc.lock says."""
    changed = _output(root, "git", "status", "--porcelain").splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise PublishingError(
            f"git: uncommitted: {changed[0][3:]}{more}. Commit it, so that the card names it; FORCE=dirty otherwise."
        )
    status = json.loads(_output(root, sys.executable, "-m", "dvc", "status", "--json", "--with-deps", *targets) or "{}")
    for stage, entries in status.items():
        if what := _first_change(entries):
            raise PublishingError(
                f"dvc: {stage}: {what}, so the files are not those of this commit. Run 'make repro' and commit "
                "dvc.lock; FORCE=dirty otherwise."
            )


def _first_change(entries: list[Any]) -> str | None:
    """The first change of a stage in DVC's status: ``stages/train.py modified``; None if it is DVC's cache alone."""
    for entry in entries:
        if isinstance(entry, str):  # "changed command"
            return entry
        for paths in entry.values():
            for path, change in paths.items():
                if change != CACHE_ONLY:
                    return f"{path} {change if isinstance(change, str) else 'changed'}"
    return None


def _output(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PublishingError(
            f"{' '.join(command[:2])}: {said[-1] if said else 'no output'}. Publish from the project's "
            "clone; FORCE=dirty otherwise."
        )
    return done.stdout.rstrip()
