"""One of the processes that train with TRL; __init__.py starts them, by torchrun where there are several.

In:   work.json    trl.Work: the job, its scratch folder, the checkpoint to resume from
Out:  what trl.fit saves, by the first process; beside work.json result.json (trl.Fitted), or error.txt with one line

    torchrun --nproc-per-node 2 -m stages.lib.trainers.trl.worker SCRATCH/work.json
"""

import logging
import os
import sys
import threading
import time
from pathlib import Path

from pydantic import TypeAdapter

from stages.lib.command import DistilleryError
from stages.lib.rows import writing
from stages.lib.trainers.trl import Fitted, Work, fit

LOOK_S = 1.0  # for the stage that waits for us
AT_FAULT = "The log has the rest; this may be a fault of ours."


def main(path: Path) -> None:
    """Train as one of the processes."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("distillery").setLevel(logging.INFO if first else logging.ERROR)
    work = TypeAdapter(Work).validate_json(path.read_bytes())
    threading.Thread(target=end_with, args=[work.stage_pid], daemon=True).start()
    try:
        spare_compiling(work)
        fitted = fit(work)
    except DistilleryError as error:
        fail(path, str(error))
        sys.exit(1)
    except Exception as error:
        # the log has it all, but ends with torchrun's words on its processes
        fail(path, f"train: {work.job.name}: {type(error).__name__}: {str(error)[-300:]} {AT_FAULT}")
        raise
    if first:
        with writing(path.with_name("result.json")) as file:
            file.write(TypeAdapter(Fitted).dump_json(fitted))


def fail(path: Path, line: str) -> None:
    """Tell the stage what went wrong; what the first to fail said stays, for the others fail of its absence."""
    if path.with_name("error.txt").exists():
        return
    with writing(path.with_name("error.txt")) as file:
        file.write(line.encode())


def end_with(stage_pid: int) -> None:
    """End this process when the stage is gone: one that was killed can no longer end us."""
    while True:
        try:
            os.kill(stage_pid, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(LOOK_S)


def spare_compiling(work: Work) -> None:
    """On a CPU, DeepSpeed would compile C++ for minutes to share memory between ranks; gloo does without."""
    if work.job.train.deepspeed and work.job.run.device == "cpu":
        from deepspeed import ops

        ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
