"""The run that the cards describe: params.yaml, dvc.lock, the metrics and the commit, all of one project folder."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.cards import CardError
from stages.lib.comparison.results import Comparison
from stages.lib.params import Params, load_params
from stages.lib.rows import read_json
from stages.lib.why.reasons import without

SHORT = 12
PRIVATE = ("base_url", "command", "api_key_variable")  # keys whose values are about a machine, not about the result


@dataclass(frozen=True)
class ProjectRun:
    """A run in its folder. ``written`` is params.yaml as it is, ``locked`` the stages of dvc.lock."""

    folder: Path
    params: Params
    written: dict[str, Any]
    locked: dict[str, Any]
    commit: str | None
    is_clean: bool

    def metrics(self, path: str) -> dict[str, Any] | None:
        """A file of metrics/; None where its stage did not run."""
        file = self.folder / "metrics" / path
        if not file.is_file():
            return None
        found: dict[str, Any] = read_json(file, "Run 'make repro' to write it again.")
        return found

    def comparison(self) -> Comparison | None:
        """metrics/compare.json; None where nothing was compared."""
        found = self.metrics("compare.json")
        return None if found is None else Comparison.model_validate(found)

    def hash_of(self, path: str) -> str:
        """The hash of an output in dvc.lock; CardError where no stage wrote it."""
        for stage in self.locked.values():
            for out in stage.get("outs", []):
                if out["path"] == path:
                    return str(out["md5"])
        raise CardError(f"dvc.lock: no output {path}. Run 'make repro' to build it.")

    def section(self, *keys: str) -> dict[str, Any]:
        """These sections of params.yaml, without addresses of servers and commands of one's own."""
        return {key: without(self.written[key], PRIVATE) for key in keys}


def read_run(folder: Path) -> ProjectRun:
    """The run in a project folder."""
    lock = folder / "dvc.lock"
    if not lock.is_file():
        raise CardError(f"{lock}: no such file, so no result is recorded. Run 'make repro'.")
    params = folder / "params.yaml"
    yaml = YAML(typ="safe")
    return ProjectRun(
        folder=folder,
        params=load_params(params),
        written=yaml.load(params.read_bytes()),
        locked=yaml.load(lock.read_bytes())["stages"],
        commit=_git(folder, "rev-parse", "HEAD"),
        is_clean=_git(folder, "status", "--porcelain") == "",
    )


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()
