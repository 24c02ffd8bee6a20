"""Write the folder in which unmodified lm-eval tasks find their benchmarks when it is the working directory.

    openai/gsm8k/README.md            names the configurations, their files and columns, for ``datasets``
    openai/gsm8k/main/train.jsonl
    manifest.json                     {"benchmarks": {"gsm8k": {…}, "mmlu": null}, "files": {"openai/…": {"sha256": …}}}

Where there is a folder ``openai/gsm8k``, ``datasets`` reads it and does not ask a hub.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.lib.eval_data.download import Benchmark, Table
from stages.lib.eval_data.forms import FORMS, Form
from stages.lib.rows import write_json


def write_layout(benchmarks: dict[str, Benchmark | None], folder: Path) -> dict[str, Any]:
    """Write the benchmarks and the manifest into an empty folder; return the manifest."""
    files: dict[str, Any] = {}
    for name, benchmark in benchmarks.items():
        if benchmark is not None:
            files |= _write_benchmark(benchmark, FORMS[name], folder)
    manifest = {
        "benchmarks": {name: _facts(benchmark) for name, benchmark in benchmarks.items()},
        "files": dict(sorted(files.items())),
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _facts(benchmark: Benchmark | None) -> dict[str, Any] | None:
    if benchmark is None:
        return None
    form = FORMS[benchmark.name]
    return {
        "folder": form.folder,
        "source": benchmark.source.model_dump(),
        "configs": len(form.configs),
        "rows": {split: benchmark.rows(split) for split in form.rows},
        "fewshot": benchmark.fewshot,
    }


def _write_benchmark(benchmark: Benchmark, form: Form, folder: Path) -> dict[str, Any]:
    files = {}
    for table in benchmark.tables:
        data = b"".join(row.model_dump_json().encode() + b"\n" for row in table.rows)
        rows = {"rows": len(table.rows), "source": table.source}
        files[_path(form, table)] = _write(folder / _path(form, table), data) | rows
    readme = f"{form.folder}/README.md"
    return files | {readme: _write(folder / readme, _readme(benchmark, form))}


def _path(form: Form, table: Table) -> str:
    return f"{form.folder}/{table.config}/{table.split}.jsonl"


def _write(path: Path, data: bytes) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _readme(benchmark: Benchmark, form: Form) -> bytes:
    """The front matter that ``datasets`` reads; it is YAML, and JSON is valid YAML."""
    card = {
        "configs": [
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/{split}.jsonl"} for split in form.rows],
            }
            for config in form.configs
        ],
        "dataset_info": [{"config_name": config, "features": form.columns} for config in form.configs],
    }
    said = f"{benchmark.name}, downloaded from {benchmark.source.origin} {benchmark.source.path}. See manifest.json."
    return f"---\n{json.dumps(card, indent=1)}\n---\n\n{said}\n".encode()
