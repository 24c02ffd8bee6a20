"""A small project folder with all that a card reads: the committed params, lock and metrics, and rows of its own."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.workspace import write_changed_params

ROOT = Path(__file__).resolve().parents[1]
ROW: dict[str, Any] = {
    "question": "State the final answer to the following arithmetic problem: 5 + 1 - 8 - 0 =",
    "answer": "-2",
    "solution": None,
    "source": "chain_sum/train",
    "sample": 0,
    "reasoning": "5 + 1 = 6\n6 - 8 = -2",
    "response": "The answer is -2.",
    "finish_reason": "stop",
    "model": "chain-sum-solver",
    "usage": {},
}
WEIGHTS = b"\0weights" * 1000


def build_project(folder: Path, changes: dict[str, Any] | None = None, **row: Any) -> Path:
    """The project, with these changes of params.yaml and of its row; a git repository where all is committed."""
    for name in ("metrics", "dvc.lock"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    shutil.rmtree(folder / "metrics" / "runs", ignore_errors=True)
    write_changed_params(ROOT / "params.yaml", changes or {}, folder / "params.yaml")
    turns = [{"from": "user", "value": ROW["question"]}, {"from": "assistant", "value": "<think>\n\n…</think>"}]
    for name in ("filtered", "unfiltered"):
        rows = folder / "data" / f"{'distilled' if name == 'unfiltered' else name}.jsonl"
        rows.parent.mkdir(exist_ok=True)
        rows.write_text(json.dumps({"id": "q0"} | ROW | row) + "\n")
        dataset = folder / "data" / "sharegpt" / name
        dataset.mkdir(parents=True)
        (dataset / f"{name}.json").write_text(json.dumps([{"system": "Think.", "conversations": turns}]))
        (dataset / "dataset_info.json").write_text("{}")
        model = folder / "models" / name
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(WEIGHTS)
    (folder / ".gitignore").write_text("/data\n/models\n/.cache\n/.env\n")
    for command in (["init", "-q"], ["add", "-A"], [*IDENTITY, "commit", "-qm", "A run"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


IDENTITY = ["-c", "user.name=Someone", "-c", "user.email=someone@example.com"]
