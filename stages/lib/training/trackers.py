"""Send a training's steps to experiment trackers: ``run.report_to``, by transformers' own callbacks.

    with reporting(job):        the variables of docs/watching.md, as far as the environment does not have them
        trainer.train(job)

All of them write below .cache/trackers/, and no host is called unless the environment has a key or an address for it.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.lib.command import project_root
from stages.lib.training import Job, TrainingError

PROJECT = "distillery"


def log_folder(job: Job, tracker: str) -> Path:
    """The folder of a tracker's logs. TensorBoard shows each folder as a run; the others tell runs apart themselves."""
    folder = project_root() / ".cache" / "trackers" / tracker
    return folder / job.name / time.strftime("%Y%m%d-%H%M%S") if tracker == "tensorboard" else folder


def is_importable(tracker: str) -> bool:
    """Whether this environment has a tracker's package."""
    return importlib.util.find_spec(tracker) is not None


def check_installed(job: Job, has: Callable[[str], bool] = is_importable, install: str = "make trackers") -> None:
    """TrainingError if a tracker is not installed where the training runs."""
    if missing := [tracker for tracker in job.run.report_to if not has(tracker)]:
        names = ", ".join(missing)
        raise TrainingError(f"run.report_to: {names}: not installed. Run '{install}', or remove it from run.report_to.")


@contextmanager
def reporting(job: Job) -> Iterator[None]:
    """Set the trackers' variables that the environment does not have; the trainer's processes inherit them."""
    added = {name: text for name, text in variables(job).items() if name not in os.environ}
    for tracker in job.run.report_to:
        log_folder(job, tracker).mkdir(parents=True, exist_ok=True)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def variables(job: Job) -> dict[str, str]:
    """The variables of the chosen trackers. Without a key in the environment, they write their files alone."""
    own = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(log_folder(job, "tensorboard"))},
        "swanlab": {
            "SWANLAB_LOG_DIR": str(log_folder(job, "swanlab")),
            "SWANLAB_PROJECT": PROJECT,
            **({} if os.environ.get("SWANLAB_API_KEY") else {"SWANLAB_MODE": "offline"}),
        },
        "wandb": {
            "WANDB_DIR": str(log_folder(job, "wandb")),
            "WANDB_PROJECT": PROJECT,
            **({} if os.environ.get("WANDB_API_KEY") else {"WANDB_MODE": "offline"}),
        },
        "mlflow": {
            "MLFLOW_TRACKING_URI": f"sqlite:///{log_folder(job, 'mlflow')}/mlflow.db",
            "MLFLOW_EXPERIMENT_NAME": PROJECT,
        },
        "dvclive": {},
    }
    return {name: text for tracker in job.run.report_to for name, text in own[tracker].items()}
