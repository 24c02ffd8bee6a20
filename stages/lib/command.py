"""What the command of every stage shares: its errors in one line, its log on stderr.

It shapes how a stage speaks and nothing that a stage writes, so dvc.yaml does not list it among the deps.

    DistilleryError            one line: where, what, what to do next
    ├── Interrupted            Ctrl-C or SIGTERM, exit code 130; what was received is kept
    ├── LocksError             a filesystem without locks that work
    ├── ParamsError            params.yaml does not fit the schema           (params/)
    ├── DataError              a row or a file that cannot be used           (rows/)
    ├── StoreError             the store of received answers                 (store/)
    ├── TeacherError           the teacher refuses or cannot be reached      (teacher/failures.py)
    ├── StudentError           the student's weights                         (students/)
    ├── TrainingError          a training that cannot begin or did not end   (training/)
    ├── EvaluationError        an evaluation that cannot be run              (evaluation/)
    └── BundleError            a bundle that cannot be made                  (bundle/)
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
SECRET_LENGTH = 8  # a shorter key is a word for a server that needs none


class DistilleryError(Exception):
    """An error that a user can act on: its text is one line that says where, what and what to do next."""

    exit_code = 1


class Interrupted(DistilleryError):
    """The user or the system ended the run; the exit code is the shell's for Ctrl-C."""

    exit_code = 130


class LocksError(DistilleryError):
    """A filesystem that refuses locks, as some NFS and Lustre mounts do."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(
            f"{file}: locks do not work on this filesystem ({error.strerror}), and two runs at once would damage each "
            f"other's work. Put {file.parent} on a local disk with a symbolic link in its place, or mount it with "
            "locks; 'make doctor' tries them."
        )


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it of the instance


def _has_news(record: logging.LogRecord) -> bool:
    """Transformers imports DeepSpeed when it saves, which then tells every user of a CPU that it found no GPU."""
    return "Setting accelerator to CPU" not in record.getMessage()


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors a user can act on into click's one line and exit code 1; all others keep their traceback."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        # where torch_npu is installed and CANN is not, torch cannot be imported otherwise; devices.py loads it for npu
        os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("distillery").setLevel(logging.INFO)
        logging.getLogger("DeepSpeed").addFilter(_has_news)
        try:
            return function(*args, **kwargs)
        except DistilleryError as error:
            raise _Failure(" ".join(str(error).split("\n")), error.exit_code) from error
        except KeyboardInterrupt as error:  # where nothing was in flight yet, or any more
            raise _Failure("stopped. Run the stage again to resume.", Interrupted.exit_code) from error
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


def without_key(text: str, key: str) -> str:
    """A server's words without the key that was sent, which some servers repeat."""
    return text.replace(key, "(the key)") if len(key) >= SECRET_LENGTH else text


def main_worktree(folder: Path) -> Path:
    """The same folder in the main worktree of its repository; itself where it lies there, or in no repository.

    A linked worktree has a file ``.git``, which names a folder whose ``commondir`` names the repository's own
    (git help repository-layout). Of a bare repository there is no main worktree.
    """
    top = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), folder)
    if not (top / ".git").is_file():
        return folder
    linked = top / (top / ".git").read_text(encoding="utf-8").removeprefix("gitdir:").strip()
    if not (linked / "commondir").is_file():  # a submodule
        return folder
    common = (linked / (linked / "commondir").read_text(encoding="utf-8").strip()).resolve()
    return common.parent / folder.relative_to(top) if common.name == ".git" else folder


def _os_error_line(error: OSError) -> str:
    where = error.filename if error.filename is not None else "input/output"
    return f"{where}: {error.strerror or error}. Mend that (space, rights, the path) and run the stage again."
