"""Collect the public benchmarks' files once, so that an evaluation needs no network.

In:   each benchmark's source that ``eval_data`` names: a hub or its mirror (HF_ENDPOINT), ModelScope, or a folder
Out:  data/eval_data/       openai/gsm8k, juletxara/mgsm and cais/mmlu, which unmodified lm-eval tasks find when this is
                            the working directory, and manifest.json: each file's sha256, bytes, rows and source
      metrics/eval_data.json    {"gsm8k": {"fewshot": true, "rows": {"train": 7473, "test": 1319}, …}, "mmlu": null}

A benchmark whose counts differ from its authors' is refused. MGSM without its exemplars.py is zero-shot only, and
``fewshot`` is false. A benchmark that is not named is not collected, and a task that needs it would ask the hub.

Alone:  python -m stages.eval_data --out data/eval_data --metrics metrics/eval_data.json
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any, get_args

import click

from stages.lib.command import WRITE, one_line_errors, params_option
from stages.lib.eval_data.download import Benchmark, collect_benchmark
from stages.lib.eval_data.layout import write_layout
from stages.lib.params import EvalData, PublicBenchmark, load_params
from stages.lib.rows import write_json

log = logging.getLogger("distillery.eval_data")


@click.command(help="Collect the public benchmarks' files for an evaluation without a network.")
@click.option("--out", type=WRITE, required=True, help="The folder, replaced only when it is complete.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@params_option
@one_line_errors
def main(out: Path, metrics_path: Path, params_path: Path) -> None:
    benchmarks = collect_benchmarks(load_params(params_path).eval_data)
    manifest = write_folder(benchmarks, out)
    write_json(metrics_path, counts(manifest))


def collect_benchmarks(params: EvalData) -> dict[str, Benchmark | None]:
    """Each benchmark that has a source, None for the others; logs a line for each."""
    found: dict[str, Benchmark | None] = {}
    for name in get_args(PublicBenchmark):
        found[name] = collect_benchmark(name, params[name]) if name in params else None
        log.info("eval-data: %s", summary_line(name, found[name]))
    return found


def summary_line(name: str, benchmark: Benchmark | None) -> str:
    """The result for one benchmark, in one line."""
    if benchmark is None:
        return f"{name} not collected, because eval_data.{name} names no source: an evaluation would ask the hub for it"
    zero_shot = "" if benchmark.fewshot else "; without examples, so zero-shot only"
    return f"{name} from {benchmark.source.origin}, {benchmark.rows('test')} test questions{zero_shot}"


def write_folder(benchmarks: dict[str, Benchmark | None], out: Path) -> dict[str, Any]:
    """Write the folder, replacing an existing one; return its manifest."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        manifest = write_layout(benchmarks, unfinished)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def counts(manifest: dict[str, Any]) -> dict[str, Any]:
    """The metrics: the manifest's facts, and the number and size of each benchmark's files."""
    metrics: dict[str, Any] = {}
    for name, facts in manifest["benchmarks"].items():
        if facts is None:
            metrics[name] = None
            continue
        files = [file for path, file in manifest["files"].items() if path.startswith(facts["folder"] + "/")]
        kept = {key: facts[key] for key in ("configs", "rows", "fewshot")}
        metrics[name] = kept | {"files": len(files), "bytes": sum(file["bytes"] for file in files)}
    return metrics


if __name__ == "__main__":
    main()
