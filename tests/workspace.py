"""A copy of the repository with tiny params, in which the real ``dvc`` runs; conftest.py makes a finished one."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
DATASETS = {"convert@control", "convert@filtered", "convert@unfiltered"}
ARMS = {"train@filtered", "train@unfiltered", "evaluate@filtered", "evaluate@unfiltered"}
ALL = {"collect", "distill", "filter", "evaluate-base", "compare", "report"} | DATASETS | ARMS


def write_changed_params(source: Path, changes: dict[str, Any], out: Path) -> None:
    """A params file with other values, named like ``collect.size``."""
    yaml = YAML()
    params = yaml.load(source)
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = params
        for part in sections:
            section = section[part]
        section[name] = value
    yaml.dump(params, out)


class Workspace:
    """A folder with the repository in it, and what ``dvc``, ``git`` and ``make`` do there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / ".cache" / "requests.jsonl"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")} | {
            "DVC_SITE_CACHE_DIR": str(folder / ".cache" / "dvc"),
            "DISTILLERY_EMBEDDED_REQUESTS": str(self.requests),
            "PYTHONPATH": str(folder),
            "GIT_CONFIG_GLOBAL": str(folder / ".cache" / "gitconfig"),
        }
        (folder / ".cache").mkdir(parents=True, exist_ok=True)
        (folder / ".cache" / "gitconfig").write_text("[user]\n\tname = a\n\temail = a@b\n")

    @classmethod
    def of_the_repository(cls, folder: Path, student: Path) -> "Workspace":
        """What stands in the repository now but for its results, committed, with tiny params."""
        workspace = cls(folder)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        workspace.change(
            {
                "collect.size": 12,
                "collect.heldout_size": 8,
                "collect.chain_sum.max_digits": 3,  # so that no two questions are the same
                "train.student.source": "path",
                "train.student.name": str(student),
                "evaluate.max_gen_toks": 8,
                "evaluate.batch_size": 8,
                "report.samples": 2,
                "run.embedded_latency_s": 0.0,
            }
        )
        workspace.run("git", "init", "-q")
        workspace.commit()
        return workspace

    def run(self, *command: str) -> str:
        done = self.try_to_run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_to_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def make(self, *arguments: str) -> str:
        """Run ``make`` with the environment of the tests instead of one made anew."""
        return self.run("make", "-o", ".venv/ready", *arguments)

    def repro(self, *targets: str) -> set[str]:
        """Run ``dvc repro``; the stages that it executed, by its own output."""
        return set(re.findall(r"^Running stage '(.+)':$", self.run("dvc", "repro", *targets), re.MULTILINE))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "all")

    def clone(self, folder: Path) -> "Workspace":
        """A second host: what git holds of this one, and nothing else."""
        self.run("git", "clone", "-q", ".", str(folder))
        return Workspace(folder)

    def change(self, changes: dict[str, Any]) -> None:
        path = self.folder / "params.yaml"
        write_changed_params(path, changes, path)

    def add(self, file: str, text: str) -> None:
        """Lay a text on at the end of a file."""
        with (self.folder / file).open("a") as end:
            end.write(text)

    def asked(self) -> int:
        """How many requests reached the teacher, counted by the teacher."""
        return len(self.requests.read_text().splitlines()) if self.requests.exists() else 0

    def times(self) -> dict[str, int]:
        """When each output was last written, by path."""
        paths = [path for name in ("data", "models", "metrics", "report") for path in (self.folder / name).rglob("*")]
        return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file() and "runs" not in path.parts}
