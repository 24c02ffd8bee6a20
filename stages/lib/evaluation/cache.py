"""Where an evaluation's answers are kept, so that a killed one resumes and a new score asks nothing.

    .cache/evaluation/ARM/DIGEST/answers_rank0.db    lm-eval's own cache (SQLite), one of each process

lm-eval's key of an answer is the request: the prompt, the stop strings, the limit. DIGEST is of all else that shapes an
answer: the weights' bytes (15 GB take some ten seconds), the backend with its arguments, the batches, the versions. So
other weights never get old answers. The folder lies outside DVC's outputs and stays after a finished evaluation, which
removes those of the same arm's other digests; ``make clean`` removes all.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.command import project_root
from stages.lib.params import Evaluate, Run, ServedBackend
from stages.lib.runtime.digests import files_hash
from stages.lib.runtime.versions import versions

log = logging.getLogger("distillery.evaluate")

LIBRARIES = ("lm_eval", "transformers", "torch", "accelerate", "vllm")
FORM = 2  # of a kept answer of a served model: in the first form a server's error was kept as an empty answer


def cache_folder(arm: str, weights: Path, params: Evaluate, run: Run) -> Path:
    """The folder of this arm's answers."""
    where = run.served if isinstance(params.backend, ServedBackend) else None
    shaping = {
        "weights": files_hash(weights),
        "evaluate": shaping_params(params),
        "device": run.device,
        "processes": run.processes,
        "served": [where.base_url, where.model, FORM] if where else [],
        "versions": versions(LIBRARIES),
    }
    return project_root() / ".cache" / "evaluation" / arm / digest(shaping)


def shaping_params(params: Evaluate) -> dict[str, Any]:
    """Those that make another answer to the same request, under the names that kept answers are found by.

    The others choose, score or name questions, or stand in each request.
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
    """Sixteen characters for what shapes an answer."""
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def remove_others(folder: Path) -> None:
    """Remove what other weights or settings of the same arm left."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
            log.info("evaluate: removed the kept answers of other weights or settings of this arm (%s)", other)
