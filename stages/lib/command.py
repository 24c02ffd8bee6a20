"""What the commands of all stages share: errors in one line, a log on stderr.

It affects a stage's messages and not its outputs, so dvc.yaml does not list it among the deps.

    DistilleryError            one line: where, what, what to do next
    ├── Interrupted            Ctrl-C or SIGTERM, exit code 130; received answers are kept
    ├── LocksError             a filesystem without working locks
    ├── ParamsError            params.yaml does not fit the schema           (params/)
    ├── DataError              a row or a file that cannot be used           (rows/)
    ├── StoreError             the store of received answers                 (store/)
    ├── TeacherError           the teacher refuses or cannot be reached      (teacher/failures.py)
    ├── StudentError           the student's weights                         (students/)
    ├── TrainingError          a training that cannot start or did not end   (training/)
    ├── EvaluationError        an evaluation that cannot be run              (evaluation/)
    ├── BundleError            a bundle that cannot be made                  (bundle/)
    ├── CardError              a card for which something is missing         (cards/)
    └── PublishingError        what must not or cannot be uploaded           (publishing/)
"""

import functools
import logging
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

READ = click.Path(path_type=Path)
WRITE = click.Path(path_type=Path)
LAUNCHED = "DISTILLERY_LAUNCHED"  # the stage that run.launcher started
LOG_TAIL = 1 << 16  # bytes of a log in which its last line is looked for
SECRET_LENGTH = 8  # a shorter key is a placeholder for a server that needs none


class DistilleryError(Exception):
    """An error that a user can fix: its text is one line that says where, what, and what to do next."""

    exit_code = 1


class Interrupted(DistilleryError):
    """The user or the system stopped the run; the exit code is the shell's for Ctrl-C."""

    exit_code = 130


class LocksError(DistilleryError):
    """A filesystem that refuses locks, as some NFS and Lustre mounts do."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(
            f"{file}: locks do not work on this filesystem ({error.strerror}), so two runs at once would corrupt each "
            f"other's files. Put {file.parent} on a local disk with a symbolic link in its place, or mount it with "
            "locks; 'make doctor' tests them."
        )


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance


def _is_relevant(record: logging.LogRecord) -> bool:
    """Whether to log a record: transformers imports DeepSpeed to save, which warns on every CPU that it has no GPU."""
    return "Setting accelerator to CPU" not in record.getMessage()


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors that a user can fix into one line and exit code 1; all others keep their traceback."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        # without this, torch cannot be imported where torch_npu is installed and CANN is not; devices.py loads it
        os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("distillery").setLevel(logging.INFO)
        logging.getLogger("DeepSpeed").addFilter(_is_relevant)
        try:
            return function(*args, **kwargs)
        except DistilleryError as error:
            raise _Failure(" ".join(str(error).split("\n")), error.exit_code) from error
        except KeyboardInterrupt as error:  # where no call is in flight
            raise _Failure("stopped. Run the stage again to resume.", Interrupted.exit_code) from error
        except OSError as error:
            raise click.ClickException(_os_error_line(error)) from error

    return wrapped


def run_under(launcher: str | None, stage: str) -> None:
    """Replace this process by the same command behind a launcher, such as ``srun -N1``; return if it is behind it.

    The mark is in the command line, because some launchers do not pass the environment on.
    """
    words = shlex.split(launcher or "")
    if not words or os.environ.get(LAUNCHED) == stage:
        return
    if shutil.which(words[0]) is None:
        raise DistilleryError(
            f"run.launcher.{stage}: no program '{words[0]}' on this machine. Run it where there is one, or set null."
        )
    command = [*words, "env", f"{LAUNCHED}={stage}", sys.executable, "-m", f"stages.{stage}", *sys.argv[1:]]
    logging.getLogger("distillery").info("%s: %s", stage, shlex.join(command))
    sys.stderr.flush()
    os.execvp(command[0], command)


@contextmanager
def stopping_on_signals(message: str, stop: Callable[[], object]) -> Iterator[None]:
    """Raise Interrupted on Ctrl-C and SIGTERM; ``stop`` ends what was started, however the block fails."""

    def interrupt(*_: object) -> None:
        raise Interrupted(message)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt stopping it
        stop()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopping_loop_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` in the running event loop on the first Ctrl-C or SIGTERM; the second ends the process at once."""
    import asyncio

    loop, seen = asyncio.get_running_loop(), False

    def interrupt() -> None:
        nonlocal seen
        if seen:
            os._exit(Interrupted.exit_code)
        seen = True
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def last_line(log_path: Path) -> str:
    """The last line of a log that says something; empty if there is none."""
    with log_path.open("rb") as file:
        file.seek(max(0, log_path.stat().st_size - LOG_TAIL))
        lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode(errors="replace"))]
    return next((line for line in reversed(lines) if line), "")


def params_option(function: Callable[P, R]) -> Callable[P, R]:
    """``--params FILE``, by default params.yaml in the working directory."""
    option = click.option(
        "--params", "params_path", type=READ, default=Path("params.yaml"), show_default=True, help="The parameters."
    )
    return option(function)


def project_root() -> Path:
    """The project's folder; within ``dvc exp run --temp`` and ``--queue`` it is the main one ($DVC_ROOT)."""
    return Path(os.environ.get("DVC_ROOT") or Path(__file__).resolve().parents[2])


def secret(variable: str, root: Path | None = None) -> str | None:
    """The value of an environment variable, or of its line in .env; None where neither has it."""
    from dotenv import dotenv_values

    return os.environ.get(variable) or dotenv_values((root or project_root()) / ".env").get(variable)


def without_key(text: str, key: str) -> str:
    """A server's text without the API key, which some servers repeat."""
    return text.replace(key, "(the key)") if len(key) >= SECRET_LENGTH else text


def main_worktree(folder: Path) -> Path:
    """The same folder in the main worktree of its repository; itself where it is there already or in no repository.

    A linked worktree has a file ``.git``. It names a folder whose ``commondir`` names the repository's own folder (git
    help repository-layout). A bare repository has no main worktree.
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
    return f"{where}: {error.strerror or error}. Fix that (space, permissions, path) and run the stage again."
