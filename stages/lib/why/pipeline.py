"""dvc.yaml with the arms and datasets of params.yaml: which stages depend on a file, and what follows them.

    users_of("stages/lib/students/hub.py", read_pipeline(Path("dvc.yaml"), params))
    # {"collect": "train.student.kind: hub", "convert@filtered": "train.student.kind: hub", …}

A dep such as ``stages/lib/students/${train.student.kind}.py`` is the file that params choose. That choice is
the condition in the result; it is empty for a dep without a choice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

SLOT = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Stage:
    """A stage as DVC names it, ``train@filtered``; ``group`` is its name in dvc.yaml, ``train``.

    Deps are paths. A slot in them, ``${train.student.kind}``, is a choice of params.
    """

    name: str
    group: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def read_pipeline(path: Path, params: dict[str, Any]) -> list[Stage]:
    """The stages in the order of dvc.yaml. A ``foreach`` over nothing gives one, ``traces@NAME``."""
    stages = YAML(typ="safe").load(path.read_bytes())["stages"]
    return [stage for group, written in stages.items() for stage in _instances(group, written, params)]


def _instances(group: str, written: dict[str, Any], params: dict[str, Any]) -> Iterator[Stage]:
    if "foreach" not in written:
        yield _stage(group, group, written, {})
        return
    section = value_of(params, SLOT.sub(r"\1", written["foreach"])) or {"NAME": {}}
    if isinstance(section, list):
        section = {name: {} for name in section}
    for key, item in section.items():
        loop = {"key": key, "item": key} | dict(_flat(item, "item."))
        yield _stage(f"{group}@{key}", group, written["do"], loop)


def _flat(item: dict[str, Any], before: str) -> Iterator[tuple[str, str]]:
    """``{"teacher": {"source": "longer"}}`` → ``("item.teacher.source", "longer")``."""
    for name, value in item.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)


def _stage(name: str, group: str, written: dict[str, Any], loop: dict[str, str]) -> Stage:
    outs = [out for kind in ("outs", "metrics", "plots") for out in written.get(kind, [])]
    paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    return Stage(name, group, _filled(written["deps"], loop), _filled(paths, loop))


def _filled(paths: list[str], loop: dict[str, str]) -> tuple[str, ...]:
    return tuple(SLOT.sub(lambda slot: loop.get(slot[1], slot[0]), path) for path in paths)


def value_of(params: dict[str, Any], key: str) -> Any:
    """The value of a dotted key, such as ``train.seed``."""
    found: Any = params
    for part in key.split("."):
        found = found[part]
    return found


def users_of(file: str, pipeline: list[Stage]) -> dict[str, str]:
    """The stages that list the file or a parent folder, by name, each with the condition on params for that."""
    found = {}
    for stage in pipeline:
        conditions = [condition for dep in stage.deps if (condition := condition_of(dep, file)) is not None]
        if conditions:
            found[stage.name] = min(conditions, key=len)
    return found


def condition_of(dep: str, file: str) -> str | None:
    """``train.student.kind: hub`` if the dep is the file with that choice, "" if always, None if never."""
    slots = SLOT.findall(dep)
    constants = [re.escape(text) for text in SLOT.split(dep)[::2]]
    pattern = re.compile("([A-Za-z0-9][A-Za-z0-9_-]*)".join(constants))  # a chosen module's name begins with a letter
    for path in (PurePosixPath(file), *PurePosixPath(file).parents):
        found = pattern.fullmatch(str(path))
        if found:
            return " and ".join(f"{slot}: {name}" for slot, name in zip(slots, found.groups(), strict=True))
    return None


def followers(names: set[str], pipeline: list[Stage]) -> list[str]:
    """The stages that read what these stages write, directly or through others, in the order of dvc.yaml."""
    changed = set(names)
    while True:
        outs = [out for stage in pipeline if stage.name in changed for out in stage.outs]
        more = {stage.name for stage in pipeline if any(_overlap(dep, out) for dep in stage.deps for out in outs)}
        if more <= changed:
            return [stage.name for stage in pipeline if stage.name in changed - names]
        changed |= more


def _overlap(dep: str, out: str) -> bool:
    """Whether two paths are equal, or one is a parent folder of the other."""
    return all(a == b for a, b in zip(dep.split("/"), out.split("/"), strict=False))


def files_of_stages(root: Path) -> Iterator[str]:
    """Every file below stages/: code, prompts, word lists, templates."""
    for path in sorted((root / "stages").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix()
