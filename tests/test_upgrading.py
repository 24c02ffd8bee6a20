"""docs/upgrading.md is true: what its table says runs again after an edit is what DVC finds changed."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.workspace import ALL, ROOT, Workspace

STEP = re.compile(
    "eval-data|evaluate-base|every evaluate|every convert|every training|the trainings|everything|nothing"
    "|collect|distill|filter|report"
)
STAGES = {
    "every evaluate": {stage for stage in ALL if stage.startswith("evaluate@")},
    "every convert": {stage for stage in ALL if stage.startswith("convert@")},
    "every training": {stage for stage in ALL if stage.startswith("train@")},
    "the trainings": {stage for stage in ALL if stage.startswith("train@")},
    "everything": ALL,
    "nothing": set[str](),
}


def rows() -> Iterator[tuple[str, str]]:
    """The table: what changes, and what runs again."""
    for line in (ROOT / "docs" / "upgrading.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| what"):
            changed, again = line.strip("| ").split(" | ")
            yield changed, again


def stages_said(text: str) -> set[str]:
    """The stages that a text names before its reasons, which follow a colon or a semicolon."""
    found = STEP.findall(re.split("[:;]", text)[0])
    return set[str]().union(*(STAGES.get(word, {word}) for word in found))


def files_said(text: str) -> list[str]:
    """The files that a text names in backquotes; of a folder, all that stands in it."""
    paths = [ROOT / name.rstrip("…") for name in re.findall("`([^`]*[./][^`]*)`", text)]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.*")))]
    return [file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts]


def edits() -> Iterator[tuple[list[str], set[str]]]:
    """Files that are edited together, and the stages that the table says run again."""
    for changed, again in rows():
        named = changed.replace("a prompt of `distill`", "`stages/prompts/step_by_step.txt`")
        files = files_said(named.replace("the judge's prompt", "`stages/prompts/judge/strict_teacher.txt`"))
        if files:
            yield files, stages_said(again)


@pytest.fixture(scope="module")
def standing(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished workspace that each test leaves as it found it."""
    folder = tmp_path_factory.mktemp("standing") / "space"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Workspace(folder)


@contextmanager
def edited(workspace: Workspace, files: list[str]) -> Iterator[None]:
    """Each of the files is longer by a remark, and then as before."""
    before = {workspace.folder / file: (workspace.folder / file).read_bytes() for file in files}
    for file in files:
        workspace.add(file, "\n# a remark\n")
    yield
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize(("files", "again"), edits(), ids=lambda value: value[0] if isinstance(value, list) else "")
def test_an_edit_runs_again_what_the_table_says(standing: Workspace, files: list[str], again: set[str]) -> None:
    with edited(standing, files):
        found = status(standing)
    assert set(found) == again


def test_the_table_is_read_whole() -> None:
    assert len(list(rows())) == 17
    assert len(list(edits())) == 16, "one row is about params"


def status(workspace: Workspace) -> dict[str, Any]:
    """By stage, what DVC finds changed: in itself, not in what runs before it."""
    found: dict[str, Any] = json.loads(workspace.run("dvc", "status", "--json"))
    return {stage.replace("dvc.yaml:", ""): why for stage, why in found.items()}


def test_a_key_of_a_section_is_a_matter_of_that_stage(workspace: Workspace) -> None:
    changes = {
        "collect.contamination.ngram": {"collect"},
        "distill.max_failed_share": {"distill"},
        "filter.on_unsure": {"filter"},
        "convert.ascii": {stage for stage in ALL if stage.startswith("convert@")},
        "train.weight_decay": STAGES["every training"],
        "evaluate.limit": STAGES["every evaluate"] | {"evaluate-base"},
        "compare.confidence": {"compare"},
        "report.seed": {"report"},
    }
    values = {
        "filter.on_unsure": "keep",
        "convert.ascii": False,
        "collect.contamination.ngram": 12,
        "evaluate.limit": 7,
    }
    workspace.change({key: values.get(key, 0.5) for key in changes})
    found = status(workspace)
    for key, stages in changes.items():
        assert {stage for stage, why in found.items() if names(why, key)} == stages, key


def names(why: Any, key: str) -> bool:
    """Whether the reasons of ``dvc status`` name a key of params.yaml or the section around it."""
    parts = key.split(".")
    return any(f'"{".".join(parts[:length])}"' in json.dumps(why) for length in range(1, len(parts) + 1))


def test_a_stage_asked_for_by_force_asks_for_what_is_missing_alone(workspace: Workspace) -> None:
    store = workspace.folder / "data" / "store" / "answers.jsonl"
    store.write_bytes(b"".join(store.read_bytes().splitlines(keepends=True)[1:]))
    before = workspace.asked()
    assert workspace.repro() == set()
    (command,) = re.findall("`(dvc repro --force [^`]*)`", (ROOT / "docs" / "upgrading.md").read_text())
    workspace.run("bash", "-c", command)
    assert workspace.asked() == before + 1


def test_what_no_branch_names_goes_from_the_cache_and_the_committed_results_stay(workspace: Workspace) -> None:
    workspace.change({"filter.control_seed": 99})
    workspace.repro("convert@control")
    workspace.change({"filter.control_seed": 3})
    assert workspace.repro("convert@control") == set()
    (command,) = re.findall("`(dvc gc [^`]*)`", (ROOT / "docs" / "upgrading.md").read_text())
    workspace.run("bash", "-c", command + " --force")
    for path in ("data/distilled.jsonl", "report/index.html"):
        (workspace.folder / path).unlink()
    workspace.run("dvc", "checkout")
    assert workspace.repro() == set()
    workspace.change({"filter.control_seed": 99})
    assert workspace.repro("convert@control") == {"filter", "convert@control"}, "the run-cache has lost it"
