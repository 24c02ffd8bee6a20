"""What an edit costs: the table of docs/upgrading.md is that of dvc.yaml, and DVC finds the same; ``make why``."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from stages.lib.why.__main__ import main
from tests.workspace import ALL, ROOT, Workspace, write_changed_params

PAGE = (ROOT / "docs" / "upgrading.md").read_text()
PARAMS: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
PARAMS["train"]["student"]["kind"] = "path"  # of the workspace's tiny student
CONDITION = re.compile(r" \(where ([a-z_.]+): NAME\)")


def why(*words: str) -> str:
    result = CliRunner().invoke(main, [*words])
    assert result.exit_code == 0, result.output
    return result.stdout


def rows() -> Iterator[tuple[list[str], str]]:
    """The table: the files of a row, and what an edit to one of them runs again."""
    for line in PAGE.partition("<!-- table of make why -->")[2].splitlines():
        if line.startswith("| `"):
            names, again = line.strip("| ").split(" | ")
            yield re.findall("`([^`]+)`", names), again


def edits() -> Iterator[tuple[list[str], set[str]]]:
    """A file of each name in the table, all of a row edited together, and the stages that the row says run again.

    ``NAME`` is the module or the prompt that params choose: each choice is an edit of its own.
    """
    for names, again in rows():
        if not any("NAME" in name for name in names):
            yield [some_file(name) for name in names], stages_of(again)
            continue
        chosen = {str(value(key)) for key in CONDITION.findall(again)}
        for kind in sorted(chosen):
            keys = {part: CONDITION.findall(part) for part in again.split("; ")}  # a part without a key is of all kinds
            parts = [part for part, key in keys.items() if not key or value(key[0]) == kind]
            yield [some_file(name.replace("NAME", kind)) for name in names], stages_of("; ".join(parts))


def value(key: str) -> Any:
    found: Any = PARAMS
    for part in key.split("."):
        found = found.get(part, {})
    return found


def some_file(name: str) -> str:
    """A file of that name, or the first of that folder."""
    path = ROOT / name
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.suffix in (".py", ".txt", ".yaml"))
    )
    return files[0].relative_to(ROOT).as_posix()


def stages_of(again: str) -> set[str]:
    """``collect, every convert (where …)`` as the names of stages."""
    found = set()
    for words in re.split("[,;] ", CONDITION.sub("", again)):
        group = words.removeprefix("every ")
        found |= {stage for stage in ALL if stage.partition("@")[0] == group and ("@" in stage) == (group != words)}
    return found


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


def groups() -> list[list[list[str]]]:
    """The edits, in groups of which no two touch one room, so that one ``dvc status`` tells them apart by its deps."""
    found: list[tuple[set[str], list[list[str]]]] = []
    for files, _ in edits():
        rooms = {"/".join(file.split("/")[:3]) for file in files}
        group = next((group for group in found if not group[0] & rooms), None)
        if group is None:
            found.append(group := (set(), []))
        group[0].update(rooms)
        group[1].append(files)
    return [group for _, group in found]


@pytest.fixture(scope="module")
def run_again(standing: Workspace) -> dict[tuple[str, ...], set[str]]:
    """By edited files, the stages of which DVC names one of them, or a folder around one, as a changed dep."""
    found: dict[tuple[str, ...], set[str]] = {tuple(files): set() for files, _ in edits()}
    for group in groups():
        with edited(standing, [file for files in group for file in files]):
            changed = status(standing)
        for stage, reasons in changed.items():
            for dep in {dep for reason in reasons for dep in reason["changed deps"]}:
                (files,) = [files for files in group if any(is_within(file, dep) for file in files)]
                found[tuple(files)].add(stage)
    return found


def is_within(file: str, dep: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.heavy
@pytest.mark.parametrize(("files", "again"), edits(), ids=lambda value: value[0] if isinstance(value, list) else "")
def test_an_edit_runs_again_what_the_table_says(
    run_again: dict[tuple[str, ...], set[str]], files: list[str], again: set[str]
) -> None:
    assert run_again[tuple(files)] == again


def test_the_table_of_the_page_is_that_of_dvc_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = re.search(r"<!-- table of make why -->\n(.*)<!-- end of the table -->", PAGE, re.DOTALL)
    assert shown, "docs/upgrading.md lost its table"
    assert shown[1] == why("--table"), "put the output of 'python -m stages.lib.why --table' into docs/upgrading.md"
    assert {stage for _, again in edits() for stage in again} == ALL


def test_why_says_which_stages_an_edit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    said = why("--file", "stages/lib/answers/values.py").splitlines()
    again = "difficulty, filter, every filter-traces, evaluate-base, every evaluate, every "
    again += "evaluate-on-policy, report."
    assert said[0] == f"stages/lib/answers/values.py: an edit runs again: {again}"
    assert said[1].startswith("Then, if their outputs change: distill, convert@unfiltered, convert@filtered, ")
    said = why("--file", "stages/lib/trainers/openmind/tokens.py").splitlines()
    assert said[0].startswith("stages/lib/trainers/openmind/tokens.py: an edit runs no stage")
    assert said[1].startswith("With other params: every train")
    said = why("--file", "stages/lib/students/hub.py").splitlines()
    again = "every score, every teachers, every train-on-policy."  # their teachers are of any kind
    assert said[0] == f"stages/lib/students/hub.py: an edit runs again: {again}"
    assert "it affects no output" in why("--file", "./stages/lib/command.py")


def test_why_knows_what_it_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, ["--file", "stages/lib/no_such.py"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: stages/lib/no_such.py: no such file. Give a path from ")
    result = CliRunner().invoke(main, ["--stage", "trian"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no stage 'trian'. Known: collect, difficulty, distill, ")


@pytest.mark.heavy
def test_why_names_the_key_with_its_old_and_its_new_value(standing: Workspace) -> None:
    with edited(standing, ["stages/lib/page/charts.py"]):
        before = (standing.folder / "params.yaml").read_bytes()
        changes = {"arms.filtered.learning_rate": 0.25, "report.samples": 3}
        write_changed_params(standing.folder / "params.yaml", changes, standing.folder / "params.yaml")
        said = standing.run("python", "-m", "stages.lib.why")
        one = standing.run("python", "-m", "stages.lib.why", "--stage", "train")
        (standing.folder / "params.yaml").write_bytes(before)
    assert "train@filtered would run:\n  arms.filtered.learning_rate: 0.001 → 0.25\n" in said
    assert "train@unfiltered would not run: nothing changed since dvc.lock." in said
    assert "evaluate@filtered would run if the outputs of train@filtered change.\n" in said
    report = said.partition("report would run:\n")[2]
    assert "  report.samples: " in report
    assert "  stages/lib/page changed: charts.py" in report
    assert [line.partition(" ")[0] for line in one.splitlines() if line[0] != " "] == [
        "train@unfiltered",
        "train@filtered",
    ]
    assert "would run" not in standing.run("python", "-m", "stages.lib.why"), "and nothing where all is as it was"


def status(workspace: Workspace) -> dict[str, Any]:
    """By stage, what DVC finds changed: in itself, not in what runs before it."""
    found: dict[str, Any] = json.loads(workspace.run("dvc", "status", "--json"))
    return {stage.replace("dvc.yaml:", ""): why for stage, why in found.items()}


@pytest.mark.heavy
def test_a_key_of_a_section_is_a_matter_of_that_stage(workspace: Workspace) -> None:
    changes = {
        "collect.contamination.ngram": {"collect"},
        "distill.max_failed_share": {"distill"},
        "filter.on_unsure": {"filter"},
        "convert.ascii": {stage for stage in ALL if stage.startswith("convert@")},
        "train.weight_decay": stages_of("every train"),
        "evaluate.limit": stages_of("evaluate-base, every evaluate"),
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


@pytest.mark.heavy
def test_a_stage_asked_for_by_force_asks_for_what_is_missing_alone(workspace: Workspace) -> None:
    store = workspace.folder / "data" / "store" / "answers.jsonl"
    store.write_bytes(b"".join(store.read_bytes().splitlines(keepends=True)[1:]))
    before = workspace.asked()
    assert workspace.repro() == set()
    (command,) = re.findall("`(dvc repro --force [^`]*)`", (ROOT / "docs" / "upgrading.md").read_text())
    workspace.run("bash", "-c", command)
    assert workspace.asked() == before + 1


@pytest.mark.heavy
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
