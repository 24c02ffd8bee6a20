""".ci/run and the Makefile beneath it: all runs count, the closing line sums up, the caller's environment stays."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import pytest_collection_modifyitems

ROOT = Path(__file__).resolve().parents[1]
BESIDE = b"../" + b"shared"
GOOD = ("12 passed, 41 deselected, 1 warning in 240.12s (0:04:00)", 0)
BAD = ("3 failed, 400 passed, 2 skipped, 5 deselected in 600.12s (0:10:00)", 2)
CI_RUNS = ("test", "test-heavy", "test-browser", "test-openmind", "test-llamafactory", "test-transformers4")
PYTEST: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]


@pytest.mark.parametrize(
    ("runs", "closing", "status"),
    [
        ((GOOD, GOOD, GOOD, GOOD, GOOD, GOOD), "72 passed, 0 failed, 0 skipped", 0),
        ((BAD, GOOD, GOOD, GOOD, GOOD, GOOD), "460 passed, 3 failed, 2 skipped", 1),
        ((GOOD, BAD, GOOD, GOOD, GOOD, GOOD), "460 passed, 3 failed, 2 skipped", 1),
        ((GOOD, GOOD, BAD, GOOD, GOOD, GOOD), "460 passed, 3 failed, 2 skipped", 1),
        ((GOOD, GOOD, GOOD, GOOD, GOOD, BAD), "460 passed, 3 failed, 2 skipped", 1),
        ((GOOD, GOOD, GOOD, ("no environment", 2), GOOD, GOOD), "60 passed, 0 failed, 0 skipped", 1),
        (
            (("lint failed", 2), ("1 passed, 2 errors in 1.00s", 1), GOOD, GOOD, GOOD, GOOD),
            "49 passed, 2 failed, 0 skipped",
            1,
        ),
    ],
)
def test_ci_fails_where_a_run_fails_and_sums_all_up(
    tmp_path: Path, runs: tuple[tuple[str, int], ...], closing: str, status: int
) -> None:
    targets = zip(CI_RUNS, runs, strict=True)
    cases = "setup|openmind-env) exit 0;;\n"
    cases += "".join(f'{target}) echo "{said}"; exit {code};;\n' for target, (said, code) in targets)
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\n[ "$CI" = true ] || exit 99\ncase "$1" in\n{cases}esac\nexit 99\n')
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == closing
    assert done.returncode == status


def test_each_test_is_run_by_one_target() -> None:
    """``make test`` leaves out what has a marker of ours, and each of those markers has a target."""
    targets = {}
    for line in PYTEST["markers"]:
        found = re.fullmatch(r"(\w+): .*; run by 'make (test-\w+)'", line)
        assert found, line
        targets[found[1]] = found[2]
    assert expression(PYTEST["addopts"]) == " and ".join(f"not {marker}" for marker in targets)
    assert not expression(pytest_of("test"))
    for marker, target in targets.items():
        assert expression(pytest_of(target)) == marker
    assert {"test", *targets.values()} - {"test-slow", "test-trackers", "test-swift", "test-ray"} == set(CI_RUNS)
    assert re.search(r"^test-all: test test-heavy ##", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_tests_in_a_browser_are_in_the_one_file_that_their_target_reads() -> None:
    files = {path.name for path in ROOT.glob("tests/**/*.py") if "mark." + "browser" in path.read_text()}
    assert files == {"test_page_browser.py"}
    assert pytest_of("test-browser").endswith(" tests/test_page_browser.py")


def pytest_of(target: str) -> str:
    """The line of a target that starts pytest."""
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = re.findall(r"^python -m pytest(.*)$", done.stdout, re.MULTILINE)
    return str(line)


def expression(options: str) -> str:
    """What ``-m`` says in the options of pytest."""
    words = shlex.split(options)
    return words[words.index("-m") + 1] if "-m" in words else ""


def test_a_test_of_two_targets_is_refused(request: pytest.FixtureRequest) -> None:
    request.node.add_marker("heavy")
    pytest_collection_modifyitems(request.config, [request.node])
    request.node.add_marker("slow")
    with pytest.raises(pytest.UsageError, match="one target runs a test, and these are heavy and slow"):
        pytest_collection_modifyitems(request.config, [request.node])


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
