"""README says what is so: its table is that of the metrics, its commands exist, its files are there."""

import re
import subprocess
from pathlib import Path

import pytest

from stages.lib.comparison.results import Comparison
from stages.lib.comparison.table import comparison_table

ROOT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "README.zh-CN.md"]


@pytest.mark.parametrize("name", READMES)
def test_the_table_is_the_one_of_the_committed_metrics(name: str) -> None:
    shown = re.search(r"<!-- comparison[^>]*-->\n(.*?)\n<!-- /comparison -->", (ROOT / name).read_text(), re.DOTALL)
    assert shown
    comparison = Comparison.model_validate_json((ROOT / "metrics" / "compare.json").read_bytes())
    assert shown[1] == comparison_table(comparison)


@pytest.mark.parametrize("name", READMES)
def test_every_make_target_that_is_named_exists(name: str) -> None:
    lines = re.findall(r"^make ([a-z-]+)((?: [A-Z]+=\S+)*)", (ROOT / name).read_text(), re.MULTILINE)
    assert {"demo", "test"} <= {target for target, _ in lines}
    for target, variables in lines:
        command = ["make", "-n", target, *variables.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", READMES)
def test_every_file_that_is_linked_is_there(name: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
        assert (ROOT / link).is_file(), link


def test_help_names_every_target() -> None:
    text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in (
        "setup",
        "demo",
        "test",
        "lint",
        "format",
        "repro",
        "train",
        "evaluate",
        "compare",
        "report",
        "seeds",
        "prune",
        "remote",
        "push",
        "pull",
        "store-export",
        "store-import",
    ):
        assert f"make {target} " in text
    assert "make profile-NAME" in text


def test_no_path_of_a_machine_and_no_registry_is_committed() -> None:
    done = subprocess.run(
        ["git", "grep", "-nE", r"(/(work|root)/[a-z]|--(extra-)?index-url|registry=)", "--", ":!*.lock", ":!tests/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stdout
