""".ci/run and the Makefile beneath it: all runs count, the closing line sums up, the caller's environment stays."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BESIDE = b"../" + b"shared"
GOOD = "12 passed, 41 deselected, 1 warning in 240.12s (0:04:00)"
BAD = "3 failed, 400 passed, 2 skipped, 5 deselected in 600.12s (0:10:00)"


@pytest.mark.parametrize(
    ("runs", "closing", "status"),
    [
        (((GOOD, 0), (GOOD, 0), (GOOD, 0)), "36 passed, 0 failed, 0 skipped", 0),
        (((BAD, 2), (GOOD, 0), (GOOD, 0)), "424 passed, 3 failed, 2 skipped", 1),
        (((GOOD, 0), (BAD, 2), (GOOD, 0)), "424 passed, 3 failed, 2 skipped", 1),
        (((GOOD, 0), (GOOD, 0), (BAD, 2)), "424 passed, 3 failed, 2 skipped", 1),
        (((GOOD, 0), ("no environment", 2), (GOOD, 0)), "24 passed, 0 failed, 0 skipped", 1),
        ((("lint failed", 2), ("1 passed, 2 errors in 1.00s", 1), (GOOD, 0)), "13 passed, 2 failed, 0 skipped", 1),
    ],
)
def test_ci_fails_where_a_run_fails_and_sums_all_up(
    tmp_path: Path, runs: tuple[tuple[str, int], ...], closing: str, status: int
) -> None:
    targets = zip(("test", "test-openmind", "test-transformers4"), runs, strict=True)
    cases = "".join(f'{target}) echo "{said}"; exit {code};;\n' for target, (said, code) in targets)
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\n[ "$CI" = true ] || exit 99\ncase "$1" in\n{cases}esac\nexit 99\n')
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == closing
    assert done.returncode == status


def test_nothing_but_ci_knows_a_folder_beside_the_clone() -> None:
    """The whole public data is named by DISTILLERY_DATA, which .ci/run sets where it lies there."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [name for name in files.split("\0") if name and BESIDE in (ROOT / name).read_bytes()]
    assert named == [".ci/run"]


def test_make_keeps_what_the_caller_has_in_the_python_path() -> None:
    """CANN's set_env.sh puts the packages there without which an NPU runs nothing."""
    environment = os.environ | {"PYTHONPATH": "/opt/cann/python"}
    command = ["make", "--no-print-directory", "--eval", "shown: ; @echo $$PYTHONPATH", "shown"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == f"{ROOT}:/opt/cann/python"
