"""Gather the public benchmarks' files once, so that an evaluation needs no network.

In:   each benchmark's source, where ``eval_data`` names one: a hub or its mirror (HF_ENDPOINT), ModelScope, or a folder
Out:  data/eval_data/       openai/gsm8k, juletxara/mgsm and cais/mmlu as unmodified lm-eval tasks find them where this
                            is the working directory, and manifest.json: each file's sha256, bytes, rows and source
      metrics/eval_data.json    {"gsm8k": {"fewshot": true, "rows": {"train": 7473, "test": 1319}, …}, "mmlu": null}

A benchmark whose counts are not its authors' is refused. MGSM without its exemplars.py is zero-shot only: ``fewshot``
is then false. What is not named is not downloaded, and a task that needs it would ask the hub.

Alone:  python -m stages.eval_data --out data/eval_data --metrics metrics/eval_data.json
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any, get_args

import click

from stages.lib.command import WRITE, one_line_errors, params_option
from stages.lib.eval_data.download import Benchmark, downloaded
from stages.lib.eval_data.layout import lay_down
from stages.lib.params import EvalData, PublicBenchmark, load_params
from stages.lib.rows import write_json

log = logging.getLogger("distillery.eval_data")


@click.command(help="Gather the public benchmarks' files for an evaluation without a network.")
@click.option("--out", type=WRITE, required=True, help="The folder, written whole or not at all.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@params_option
@one_line_errors
def main(out: Path, metrics_path: Path, params_path: Path) -> None:
    benchmarks = download(load_params(params_path).eval_data)
    manifest = write_folder(benchmarks, out)
    write_json(metrics_path, counts(manifest))


def download(params: EvalData) -> dict[str, Benchmark | None]:
    """Each benchmark that has a source; None for the others, and a line on stderr either way."""
    found: dict[str, Benchmark | None] = {}
    for name in get_args(PublicBenchmark):
        found[name] = downloaded(name, params[name]) if name in params else None
        log.info("eval-data: %s", said(name, found[name]))
    return found


def said(name: str, benchmark: Benchmark | None) -> str:
    """What was found, in one line."""
    if benchmark is None:
        return f"{name} not downloaded, for eval_data.{name} names no source: an evaluation would ask the hub for it"
    zero_shot = "" if benchmark.fewshot else "; without examples, so zero-shot only"
    return f"{name} from {benchmark.source.origin}, {benchmark.rows('test')} test questions{zero_shot}"


def write_folder(benchmarks: dict[str, Benchmark | None], out: Path) -> dict[str, Any]:
    """The folder, in the place of one that is there already; return its manifest."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        manifest = lay_down(benchmarks, unfinished)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def counts(manifest: dict[str, Any]) -> dict[str, Any]:
    """The metrics: the manifest's facts and what each benchmark weighs."""
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
