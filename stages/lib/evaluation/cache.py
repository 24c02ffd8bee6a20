"""The cache of an evaluation's answers. A killed evaluation resumes, and a new way to score needs no new answers.

    .cache/evaluation/ARM/DIGEST/answers_rank0.db          lm-eval's own cache (SQLite), one for each process
    .cache/evaluation/ARM/DIGEST/again_7_of_100_rank0.db   that of the second pass (evaluate.churn)

lm-eval's key of an answer is the request: the prompt, the stop strings, the limit. DIGEST is a hash of everything else
that determines an answer: the weights' bytes (15 GB take some ten seconds), the backend with its arguments, the batch
size, the versions. So other weights never get old answers. The second pass has a file of its own, by its batch size and
its number of questions, which both determine the batches. The folder is outside DVC's outputs. A finished evaluation
keeps it and removes the folders of the same arm's other digests; ``make clean`` removes all.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.command import project_root
from stages.lib.params import Churn, Evaluate, Run, ServedBackend
from stages.lib.runtime.digests import files_hash
from stages.lib.runtime.versions import versions

log = logging.getLogger("distillery.evaluate")

LIBRARIES = ("lm_eval", "transformers", "torch", "accelerate", "vllm")
FORMAT = 2  # of a served model's cached answers: format 1 had a server's error as an empty answer


def cache_folder(arm: str, weights: Path, params: Evaluate, run: Run) -> Path:
    """The folder of this arm's cached answers."""
    where = run.served if isinstance(params.backend, ServedBackend) else None
    shaping = {
        "weights": files_hash(weights),
        "evaluate": shaping_params(params),
        "device": run.device,
        "processes": run.processes,
        "served": [where.base_url, where.model, FORMAT] if where else [],
        "versions": versions(LIBRARIES),
    }
    return project_root() / ".cache" / "evaluation" / arm / digest(shaping)


def cache_file(folder: Path, rank: int, churn: Churn | None = None) -> Path:
    """The cache of one process: of the first pass, or with ``churn`` of the second."""
    name = f"again_{churn.batch_size}_of_{churn.limit}" if churn else "answers"
    return folder / f"{name}_rank{rank}.db"


def shaping_params(params: Evaluate) -> dict[str, Any]:
    """The params that change the answer to the same request. Their names here are part of the digest.

    The others choose, score or name questions, or are part of each request.
    """
    backend = params.backend
    return {
        "backend": backend.kind,
        "backend_args": backend.args,
        "chat_template": params.chat_template,
        "batch_size": backend.batch_size,
        "limit": params.limit,
        "dtype": backend.dtype,
        "seed": params.seed,
    }


def digest(shaping: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of what determines an answer."""
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def remove_others(folder: Path) -> None:
    """Remove the cached answers of other weights or settings of the same arm."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
            log.info("evaluate: removed the cached answers of other weights or settings of this arm (%s)", other)
