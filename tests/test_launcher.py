"""``run.launcher``: the stage's own command behind a prefix, with real programs as the prefix."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.evaluate import main as evaluate
from stages.lib.params import ParamsError, load_params
from stages.train import main as train

ROOT = Path(__file__).resolve().parents[1]
Params = Callable[..., Path]

OPTIONS = {
    "train": ["arm", "dataset", "model", "left-out", "metrics", "loss"],
    "evaluate": ["arm", "heldout", "metrics", "scores", "answers", "examples"],
}
MISSING = {"train": "dataset/dataset.json: no such file", "evaluate": "heldout: no such file"}


def launched(stage: str, launcher: str, tmp_path: Path, project_params: Params) -> subprocess.CompletedProcess[str]:
    """A stage whose input is missing, so that it ends at once, behind a launcher."""
    params = project_params({f"run.launcher.{stage}": launcher})
    paths = [word for name in OPTIONS[stage] for word in (f"--{name}", name)]
    command = [sys.executable, "-m", f"stages.{stage}", *paths, "--params", str(params)]
    environment = {name: value for name, value in os.environ.items() if name != "DISTILLERY_LAUNCHED"}
    return subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_stage_runs_once_behind_its_launcher(stage: str, tmp_path: Path, project_params: Params) -> None:
    done = launched(stage, """sh -c 'echo behind; exec "$@"' sh nice -n 1""", tmp_path, project_params)
    assert done.stdout == "behind\n"
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {MISSING[stage]}")


def test_a_launcher_that_passes_no_environment_on_is_left_after_one_start(
    tmp_path: Path, project_params: Params
) -> None:
    done = launched("train", f"env --ignore-environment PYTHONPATH={ROOT}", tmp_path, project_params)
    assert (done.returncode, done.stderr.count("DISTILLERY_LAUNCHED=train")) == (1, 1)
    assert done.stderr.splitlines()[-1].startswith(f"Error: {MISSING['train']}")


def test_the_exit_code_of_the_launcher_is_the_stages(tmp_path: Path, project_params: Params) -> None:
    done = launched("train", "sh -c 'echo slurmstepd: time limit >&2; exit 140'", tmp_path, project_params)
    assert done.returncode == 140
    assert done.stderr.splitlines()[-1] == "slurmstepd: time limit"


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_launcher_that_is_not_there_is_named(stage: str, project_params: Params) -> None:
    params = project_params({f"run.launcher.{stage}": "srun-of-elsewhere -N1"})
    paths = [word for name in OPTIONS[stage] for word in (f"--{name}", name)]
    result = CliRunner().invoke({"train": train, "evaluate": evaluate}[stage], [*paths, "--params", str(params)])
    assert result.exit_code == 1
    program = f"run.launcher.{stage}: no program 'srun-of-elsewhere' on this machine."
    assert result.stderr == f"Error: {program} Run it where there is one, or set null.\n"


def test_a_launcher_that_is_no_command_line_is_refused(project_params: Params) -> None:
    with pytest.raises(ParamsError, match=r"run\.launcher\.train: .*not a command line \(No closing quotation\)"):
        load_params(project_params({"run.launcher.train": "sh -c 'exec"}))
