"""One of the processes that train with TRL. __init__.py starts them, with torchrun if there are several.

In:   work.json    trl.Work: the job, its scratch folder, the checkpoint to resume from
Out:  what run_trainer of its trainer (trl, on_policy) saves in the first process; beside work.json, result.json
      (trl.TrainerResult) or error.txt

    torchrun --nproc-per-node 2 -m stages.lib.trainers.trl.worker SCRATCH/work.json
"""

import importlib
import logging
import os
import sys
import threading
import time
from pathlib import Path

from pydantic import TypeAdapter

from stages.lib.command import DistilleryError
from stages.lib.rows import writing
from stages.lib.trainers.trl import TrainerResult, Work

POLL_S = 1.0  # between checks that the stage still runs
SEE_LOG = "See the log; this may be a bug in Distillery."


def main(path: Path) -> None:
    """Train as one of the processes."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("distillery").setLevel(logging.INFO if first else logging.ERROR)
    work = TypeAdapter(Work).validate_json(path.read_bytes())
    threading.Thread(target=exit_with_parent, args=[work.stage_pid], daemon=True).start()
    try:
        skip_shm_compilation(work)
        result = importlib.import_module(work.trainer).run_trainer(work)
    except DistilleryError as error:
        fail(path, str(error))
        sys.exit(1)
    except Exception as error:
        # the log has the traceback, but ends with torchrun's report
        fail(path, f"train: {work.job.name}: {type(error).__name__}: {str(error)[-300:]} {SEE_LOG}")
        raise
    if first:
        with writing(path.with_name("result.json")) as file:
            file.write(TypeAdapter(TrainerResult).dump_json(result))


def fail(path: Path, line: str) -> None:
    """Write the error for the stage. The first error is kept: other processes then fail because of it."""
    if path.with_name("error.txt").exists():
        return
    with writing(path.with_name("error.txt")) as file:
        file.write(line.encode())


def exit_with_parent(stage_pid: int) -> None:
    """Exit when the stage's process is gone: after a SIGKILL it cannot stop its workers itself."""
    while True:
        try:
            os.kill(stage_pid, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(POLL_S)


def skip_shm_compilation(work: Work) -> None:
    """On a CPU, DeepSpeed would compile C++ for minutes for shared memory between ranks; gloo does not need it."""
    if work.job.train.deepspeed and work.job.run.device == "cpu":
        from deepspeed import ops

        ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
