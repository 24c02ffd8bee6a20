"""The reasons for a stage to run: the changes that ``dvc status`` finds, with old and new values of each key.

train@filtered would run:
  train.seed: 3 → 4
  stages/lib/tokens changed: length.py
"""

import json
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.command import DistilleryError
from stages.lib.page.words import said, words

LOCK = Path("dvc.lock")
ABSENT = object()


@dataclass(frozen=True)
class Reason:
    """Why a stage would run: a text ``why.CODE`` of the page's words, and its values. As a string it is English."""

    code: str
    values: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return said(f"why.{self.code}", **self.values)


class WhyError(DistilleryError):
    """DVC cannot report what changed."""


def changed_stages() -> dict[str, list[Any]]:
    """The changes of each stage itself, without those of earlier stages, as in ``dvc status --json``."""
    found: dict[str, list[Any]] = json.loads(_dvc("status", "--json"))
    return found


def stage_names(name: str) -> list[str]:
    """The stages for a name: ``train`` is every ``train@ARM``, an empty name every stage."""
    done = subprocess.run(["dvc", "stage", "list", "--name-only"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WhyError(f"dvc stage list: {done.stderr.strip().removeprefix('ERROR: ')}. Run 'make check'.")
    names = done.stdout.split()
    found = [each for each in names if not name or name in (each, each.partition("@")[0])]
    if not found:
        raise WhyError(f"no stage '{name}'. Known: {', '.join(names)}.")
    return found


def reasons(name: str, changes: list[Any], hidden: Collection[str] = ()) -> Iterator[Reason]:
    """One for each change; there is at least one. Of ``hidden`` keys only that they changed is said."""
    locked = _locked(name)
    if locked is None:
        yield Reason("no_entry")
        return
    for change in changes:
        if change == "changed command":
            yield Reason("command")
            continue
        for kind, items in change.items():
            for path, how in items.items():
                if kind == "changed deps" and isinstance(how, dict):
                    yield from _of_keys(Path(path), how, locked, hidden)
                elif kind == "changed deps":
                    yield _of_dep(path, how, locked)
                else:
                    yield _of_output(path, str(how))


def _locked(name: str) -> dict[str, Any] | None:
    content = YAML(typ="safe").load(LOCK.read_bytes()) if LOCK.is_file() else {}
    found: dict[str, Any] | None = content.get("stages", {}).get(name)
    return found


def _of_output(path: str, how: str) -> Reason:
    code = f"output_{how.replace(' ', '_')}"
    return (
        Reason(code, {"path": path}) if f"why.{code}" in words()["en"] else Reason("output", {"path": path, "how": how})
    )


def _of_dep(path: str, how: str, locked: dict[str, Any]) -> Reason:
    known = {"path": path}
    if path not in {dep["path"] for dep in locked.get("deps", [])}:
        return Reason("new_dependency", known)
    if how == "deleted":
        return Reason("missing", known)
    files = _changed_files(path)
    return Reason("changed_files", known | {"files": ", ".join(files)}) if files else Reason("changed", known)


def _changed_files(folder: str) -> list[str]:
    """The files of a folder that changed in git since dvc.lock was committed; empty if dvc.lock itself changed."""
    if not Path(folder).is_dir() or _git("status", "--porcelain", "--", LOCK.as_posix()):
        return []
    commit = _git("log", "-1", "--format=%H", "--", LOCK.as_posix())
    changed = _git("diff", "--name-only", "--relative", *commit, "--", folder) if commit else []
    new = _git("ls-files", "--others", "--exclude-standard", "--", folder)
    return [path.removeprefix(f"{folder}/") for path in (*changed, *new)]


def changed_files() -> list[str]:
    """The paths with changes that are not committed, and new files; empty outside a git repository."""
    return [line[3:] for line in _git("status", "--porcelain")]


def _dvc(*arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = " ".join(done.stderr.removeprefix("ERROR: ").split())
        raise WhyError(f"'dvc {' '.join(arguments)}' failed: {message or 'no output'}")
    return done.stdout


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _of_keys(path: Path, keys: dict[str, str], locked: dict[str, Any], hidden: Collection[str]) -> Iterator[Reason]:
    """``train.seed: 3 → 4``, one for each value that differs under the keys that DVC names."""
    new = YAML(typ="safe").load(path.read_bytes())
    old = locked.get("params", {}).get(path.as_posix(), {})
    for key in keys:
        yield from _differences(key, old.get(key, ABSENT), _value(new, key), hidden)


def _value(params: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(params, dict) or part not in params:
            return ABSENT
        params = params[part]
    return params


def _differences(key: str, old: Any, new: Any, hidden: Collection[str]) -> Iterator[Reason]:
    if key.rpartition(".")[2] in hidden:
        if old != new:
            yield Reason("key_hidden", {"key": key})
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _differences(f"{key}.{name}", old.get(name, ABSENT), new.get(name, ABSENT), hidden)
    elif old is ABSENT:
        yield Reason("key_new", {"key": key, "new": _shown(new, hidden)})
    elif new is ABSENT:
        yield Reason("key_removed", {"key": key, "old": _shown(old, hidden)})
    elif old != new:
        yield Reason("key", {"key": key, "old": _shown(old, hidden), "new": _shown(new, hidden)})


def _shown(value: Any, hidden: Collection[str]) -> str:
    return json.dumps(without(value, hidden), ensure_ascii=False)


def without(value: Any, keys: Collection[str]) -> Any:
    """A value of params.yaml without these keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(each, keys) for key, each in value.items() if key not in keys}
    return [without(each, keys) for each in value] if isinstance(value, list) else value
