"""docs/experiments.md is a session that works: every command ends well, runs the stages and shows what it says."""

import re
from pathlib import Path

import pytest

from tests.workspace import ALL, Workspace

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"all but eval-data and evaluate-base": ALL - {"eval-data", "evaluate-base"}, "nothing": set[str]()}


def commands() -> list[tuple[str, str]]:
    """The lines of the page's sh blocks: command and comment."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "experiments.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [(command.strip(), comment.strip()) for command, _, comment in (line.partition("  # ") for line in lines)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_session_runs_as_it_is_written(workspace: Workspace) -> None:
    checked = 0
    for command, comment in commands():
        shown = workspace.run("bash", "-c", command)
        if comment.startswith("runs "):
            says = comment.removeprefix("runs ")
            executed = set(re.findall(r"^Running stage '(.+)':$", shown, re.MULTILINE))
            assert executed == (STAGES[says] if says in STAGES else set(says.split())), command
            checked += 1
        elif comment.startswith("shows "):
            for word in comment.removeprefix("shows ").split():
                assert word in shown, f"{command}: no {word} in\n{shown}"
            assert max(map(len, shown.splitlines())) < 250, f"{command}: too wide to be read\n{shown}"
            checked += 1
    assert checked == 8
    names = workspace.run("dvc", "exp", "list", "--all-commits", "--name-only")
    assert names.split() == ["longer"]
    assert workspace.asked() <= 32, "each question was paid for once"
    assert not workspace.run("git", "status", "--short")
