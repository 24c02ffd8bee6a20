"""What the command of every stage shares: its errors in one line, its log on stderr.

It shapes how a stage speaks and nothing that a stage writes, so dvc.yaml does not list it among the deps.

    DistilleryError            one line: where, what, what to do next
    ├── ParamsError            params.yaml does not fit the schema           (params.py)
    ├── DataError              a row or a file that cannot be used           (records.py)
    ├── StoreError             the store of received answers                 (teacher/store.py)
    ├── TeacherError           the teacher refuses or cannot be reached      (teacher/client.py)
    ├── StudentError           the student's weights                         (students/)
    ├── TrainingError          a training that cannot begin or did not end   (trainers/)
    └── EvaluationError        an evaluation that cannot be run              (evaluation/)
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

READ = click.Path(path_type=Path)
WRITE = click.Path(path_type=Path)


class DistilleryError(Exception):
    """An error that a user can act on: its text is one line that says where, what and what to do next."""


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors a user can act on into click's one line and exit code 1; all others keep their traceback."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("distillery").setLevel(logging.INFO)
        try:
            return function(*args, **kwargs)
        except DistilleryError as error:
            raise click.ClickException(" ".join(str(error).split("\n"))) from error
        except OSError as error:
            raise click.ClickException(_os_error_line(error)) from error

    return wrapped


def params_option(function: Callable[P, R]) -> Callable[P, R]:
    """``--params FILE``, by default params.yaml of the folder the stage is run in."""
    option = click.option(
        "--params", "params_path", type=READ, default=Path("params.yaml"), show_default=True, help="The parameters."
    )
    return option(function)


def project_root() -> Path:
    """The project's folder; inside ``dvc exp run --temp`` and ``--queue`` still the main one ($DVC_ROOT)."""
    return Path(os.environ.get("DVC_ROOT") or Path(__file__).resolve().parents[2])


def _os_error_line(error: OSError) -> str:
    where = error.filename if error.filename is not None else "input/output"
    return f"{where}: {error.strerror or error}. Mend that (space, rights, the path) and run the stage again."
