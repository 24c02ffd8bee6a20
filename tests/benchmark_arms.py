"""What the tests of the evaluation share: gathered benchmarks, a stage run as a process of its own, its outputs."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.rows import read_rows, write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Arm:
    """A folder in which one arm is evaluated, and what came out of it."""

    folder: Path
    name: str = "filtered"

    def arguments(self, params: Path, model: Path | None, eval_data: Path | None) -> list[str]:
        """The stage's options; the held-out questions are made."""
        heldout = self.folder / "heldout.jsonl"
        if not heldout.exists():
            rows = [Question(id=f"sum-{n}", question=f"What is {n} + 5?", answer=str(n + 5)) for n in range(6)]
            write_rows(heldout, rows)
        kinds = {"metrics": ".json", "scores": ".scores.csv", "answers": ".jsonl", "examples": ".examples.jsonl"}
        words: list[Any] = ["--arm", self.name, "--heldout", heldout, "--params", params]
        words += ["--model", model] if model else []
        words += ["--eval-data", eval_data] if eval_data else []
        words += [word for kind, end in kinds.items() for word in (f"--{kind}", self.folder / f"{self.name}{end}")]
        return [str(word) for word in words]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """A process's variables: its caches and metrics/runs in the folder, no proxy, one thread."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "HF_HOME": str(self.folder / "huggingface"),
            "DVC_ROOT": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **(more or {}),
        }

    def run(self, arguments: list[str], more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The stage as a process of its own."""
        command = [sys.executable, "-m", "stages.evaluate", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment(more), capture_output=True, text=True)

    @property
    def metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{self.name}.json").read_bytes())
        return found

    @property
    def facts(self) -> dict[str, Any]:
        path = self.folder / "metrics" / "runs" / f"evaluate-{self.name}.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    @property
    def rows(self) -> list[Evaluated]:
        return list(read_rows(self.folder / f"{self.name}.jsonl", Evaluated, ""))

    @property
    def scores(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.folder / f"{self.name}.scores.csv").open()))

    @property
    def examples(self) -> list[dict[str, Any]]:
        lines = (self.folder / f"{self.name}.examples.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def own_choice_task(folder: Path) -> Path:
    """A folder of gathered questions in which one subject of MMLU has four."""
    data = folder / "eval_data" / "cais" / "mmlu"
    data.mkdir(parents=True)
    rows = [{"question": f"Is {n} even?", "choices": ["no", "yes", "both", "none"], "answer": 1} for n in range(4)]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "".join(f"  - {{split: {split}, path: test.jsonl}}\n" for split in ("test", "dev"))
    (data / "README.md").write_text(f"---\nconfigs:\n- config_name: anatomy\n  data_files:\n{files}---\n")
    return folder / "eval_data"
