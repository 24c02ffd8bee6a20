"""What is known of a run beside its results, read from dvc.lock, git, params.yaml, metrics/runs and metrics/eval.

read_record(Path()).commit   → "1f4a9e0…"
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.cards.run import PRIVATE, ProjectRun, read_run
from stages.lib.rows import read_json
from stages.lib.why.reasons import Reason, changed_files, changed_stages, reasons

PROMPTS = "stages/prompts"


@dataclass(frozen=True)
class Cost:
    """What the last run of a step bought and took from the store on this machine; None where it does not apply."""

    step: str
    bought: int | None
    from_store: int | None
    paid: float | None
    saved: float | None
    currency: str
    seconds: float | None
    device: str


@dataclass(frozen=True)
class Prompt:
    """A text of stages/prompts that stages read; ``is_locked`` if it is the one of dvc.lock."""

    path: str
    stages: list[str]
    text: str
    is_locked: bool


@dataclass(frozen=True)
class Output:
    """An output of a stage as dvc.lock has it; ``size`` in bytes."""

    stage: str
    path: str
    md5: str
    size: int


@dataclass(frozen=True)
class Record:
    """The record of a run; ``again`` has the reasons of each stage that would run."""

    commit: str | None
    changed: list[str]
    again: dict[str, list[Reason]]
    costs: list[Cost]
    params: str
    prompts: list[Prompt]
    versions: dict[str, list[str]]
    outputs: list[Output]


def read_record(folder: Path) -> Record:
    """The record of the run in a project folder."""
    run = read_run(folder)
    return Record(
        commit=run.commit,
        changed=changed_files(),
        again={name: list(reasons(name, changes, PRIVATE)) for name, changes in changed_stages().items()},
        costs=list(_costs(folder)),
        params=_params(run),
        prompts=list(_prompts(run)),
        versions=_versions(folder),
        outputs=list(_outputs(run.locked)),
    )


def _costs(folder: Path) -> Iterator[Cost]:
    """What the last runs on this machine cost. git ignores these files, so another clone has none."""
    for path in sorted((folder / "metrics/runs").glob("*.json"), key=_order):
        facts = read_json(path, "Remove it; the next run writes it again.")
        yield Cost(
            step=path.stem,
            bought=facts.get("bought"),
            from_store=facts.get("from_store"),
            paid=facts.get("paid_now"),
            saved=facts.get("saved_by_store"),
            currency=facts.get("currency") or "",
            seconds=facts.get("seconds"),
            device=str(facts.get("device") or ""),
        )


def _order(path: Path) -> tuple[int, str]:
    steps = ("difficulty", "distill", "filter", "train", "evaluate", "prefer")
    step = path.stem.partition("-")[0]
    return (steps.index(step) if step in steps else len(steps), path.stem)


def _params(run: ProjectRun) -> str:
    """params.yaml without ``run``, which shapes no result, and without addresses of servers."""
    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(run.section(*(key for key in run.written if key != "run")), text)
    return text.getvalue()


def _prompts(run: ProjectRun) -> Iterator[Prompt]:
    readers: dict[str, list[str]] = {}
    sums: dict[str, str] = {}
    for stage, locked in run.locked.items():
        for dep in locked.get("deps", []):
            if dep["path"].startswith(f"{PROMPTS}/") and dep["path"].endswith(".txt"):
                readers.setdefault(dep["path"], []).append(stage)
                sums[dep["path"]] = dep["md5"]
    for path, stages in sorted(readers.items()):
        file = run.folder / path
        content = file.read_bytes() if file.is_file() else b""
        is_locked = md5(content, usedforsecurity=False).hexdigest() == sums[path]
        yield Prompt(path, stages, content.decode(errors="replace"), is_locked)


def _versions(folder: Path) -> dict[str, list[str]]:
    """The libraries that trained and evaluated the arms; several versions where arms differ."""
    found: dict[str, set[str]] = {}
    for path in [*folder.glob("metrics/runs/train-*.json"), *folder.glob("metrics/eval/*.json")]:
        document: dict[str, Any] = json.loads(path.read_bytes())
        versions = document.get("versions") or (document.get("settings") or {}).get("versions") or {}
        for library, version in versions.items():
            found.setdefault(library, set()).add(str(version))
    return {library: sorted(versions) for library, versions in sorted(found.items())}


def _outputs(locked: dict[str, Any]) -> Iterator[Output]:
    for stage, content in locked.items():
        for out in content.get("outs", []):
            if out["path"] != "report":
                yield Output(stage, out["path"], str(out["md5"]), int(out.get("size", 0)))
