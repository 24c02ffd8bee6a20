"""dvc.yaml says what the code does: its deps are the imports, its params the sections that are read."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.lib.params import Collect, Params, Section
from tests.workspace import stages_in

ROOT = Path(__file__).resolve().parents[1]
PLOTS = ROOT / "metrics" / "dvc.yaml"  # written by train
DVC: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
# no output depends on these: params/ has no defaults, command.py shapes messages, workers.py and cluster/ the speed
# (test_workers.py and test_ray.py compare the bytes), an empty package holds nothing
EXEMPT = {"stages/__init__.py", "stages/lib/__init__.py", "stages/lib/command.py", "stages/lib/workers.py"} | {
    path.relative_to(ROOT).as_posix()
    for room in ("params", "cluster")
    for path in (ROOT / "stages/lib" / room).glob("*.py")
}
# modules that are chosen by a param: where they are, and the key of the choice
CHOICES = {
    "stages.lib.students.": "train.student.kind",
    "stages.lib.trainers.": "train.trainer.kind",
}
PROMPTS = {
    "difficulty": "stages/prompts/${convert.system_prompt}.txt",
    "distill": "stages/prompts/${distill.prompt}.txt",
    "filter": "stages/prompts/judge",  # the folder, for filter.judge may be absent
    "filter-traces": "stages/prompts/judge",
    "convert": "stages/prompts/${convert.system_prompt}.txt",
    "evaluate-base": "stages/prompts/${convert.system_prompt}.txt",
    "evaluate": "stages/prompts/${convert.system_prompt}.txt",
    "evaluate-on-policy": "stages/prompts/${convert.system_prompt}.txt",
    "prefer": "stages/prompts/pairwise",  # the folder, for prefer may be null
}
# evaluate@ARM loads trained weights from a folder: it never looks for the untrained student
STUDENTS = {f"stages/lib/students/{kind}.py" for kind in ("hub", "modelers", "modelscope", "package", "path")}
# an arm of on_policy is trained by that trainer, which uses trl's processes; no other arm is
TRAINERS = ("llamafactory", "on_policy", "openmind", "swift", "trl")
FILES = {kind: set((ROOT / "stages" / "lib" / "trainers" / kind).glob("*.py")) for kind in TRAINERS}
OF = {kind: {path.relative_to(ROOT).as_posix() for path in files} for kind, files in FILES.items()}
EXTERNAL = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages/lib/training").glob("external*.py")}
BY_PATH = {"stages/lib/training/external_encode.py"}  # the Python of another environment runs it, and none imports it
UNREACHED = {
    # score counts rows as trl does, whose worker could train with any trainer
    "score": OF["llamafactory"]
    | OF["on_policy"]
    | OF["openmind"]
    | OF["swift"]
    | EXTERNAL
    | {"stages/lib/token_teacher.py", "stages/lib/training/nodes.py"},
    "evaluate": STUDENTS,
    "evaluate-on-policy": STUDENTS,
    "train": OF["on_policy"] | OF["trl"] | {"stages/lib/vocabulary.py"},
    "train-on-policy": OF["llamafactory"] | OF["openmind"] | OF["swift"],
}
# params.trained_arms are those of both sections; a training reads its own
OTHER_ARMS = {"train": {"on_policy"}, "train-on-policy": {"arms"}}


def module(stage: str) -> str:
    """The file of a stage, and its section: evaluate-base is evaluate's, filter-traces is filter's."""
    return re.sub("-(base|traces|on-policy)$", "", stage).replace("-", "_")


def definition(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = DVC[stage]
    inner: dict[str, Any] = found.get("do", found)
    return inner


def kinds(prefix: str) -> list[str]:
    """The modules that can be chosen there: stages.lib.sources. has chain_sum and gsm8k."""
    folder = ROOT.joinpath(*prefix.split("."))
    files = [path for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted([*(path.stem for path in files), *(path.parent.name for path in folder.glob("*/__init__.py"))])


def choices() -> Iterator[dict[str, str]]:
    """Choices by prefix, so that each kind of each choice is in one of them."""
    known = {prefix: kinds(prefix) for prefix in CHOICES}
    for number in range(max(map(len, known.values()))):
        yield {prefix: names[min(number, len(names) - 1)] for prefix, names in known.items()}


def resolved(dep: str, chosen: dict[str, str]) -> str:
    for prefix, key in CHOICES.items():
        dep = dep.replace(f"${{{key}}}", chosen[prefix])
    return dep


@cache
def module_files(name: str) -> list[str]:
    """The files that importing a module of ours runs: its own and those of the packages around it."""
    return list(files_along(name.split(".")))


def files_along(parts: list[str]) -> Iterator[str]:
    for length in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:length])
        if (path / "__init__.py").is_file():
            yield (path / "__init__.py").relative_to(ROOT).as_posix()
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py").relative_to(ROOT).as_posix()


@cache
def naming_nodes(file: str) -> list[ast.AST]:
    """The nodes of a file that may name a module."""
    kinds = (ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Constant)
    return [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, kinds)]


def mentioned_modules(file: str, chosen: dict[str, str]) -> Iterator[str]:
    """What a file imports, at its top or inside a function, by name or by a name made up at run time."""
    for node in naming_nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            prefix = str(node.values[0].value)
            if prefix.startswith("stages.lib."):
                yield from (prefix + name for name in ([chosen[prefix]] if prefix in chosen else kinds(prefix)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("stages."):
            yield node.value  # python -m stages.…


def reached_files(stage: str, chosen: dict[str, str]) -> set[str]:
    waiting, reached = [f"stages/{stage}.py"], set()
    while waiting:
        file = waiting.pop()
        reached.add(file)
        for module in mentioned_modules(file, chosen):
            if module.startswith("stages"):
                waiting += [found for found in module_files(module) if found not in reached]
    return reached


def listed_files(stage: str, chosen: dict[str, str]) -> set[str]:
    """The Python files of a stage's deps, those in its rooms among them."""
    found = set()
    for dep in definition(stage)["deps"]:
        path = ROOT / resolved(dep, chosen)
        files = path.rglob("*.py") if path.is_dir() else [path] if path.suffix == ".py" else []
        found |= {file.relative_to(ROOT).as_posix() for file in files}
    return {file for file in found if file.startswith("stages/")}


@pytest.mark.parametrize("stage", DVC)
def test_deps_are_the_files_that_the_stage_reaches(stage: str) -> None:
    """No file that a stage imports is missing, and each file of a room that it lists is reached by one kind or more."""
    idle = None
    for chosen in choices():
        reached = reached_files(module(stage), chosen) - EXEMPT
        listed = listed_files(stage, chosen) - BY_PATH
        missing = reached - listed - UNREACHED.get(stage, set())
        assert not missing, f"dvc.yaml: {stage}: deps lacks {sorted(missing)} ({chosen})"
        idle = listed - reached if idle is None else idle & (listed - reached)
    assert not idle, f"dvc.yaml: {stage}: deps lists {sorted(idle)}, which the stage never reaches"


@pytest.mark.parametrize("stage", DVC)
def test_params_are_the_sections_that_the_stage_reads(stage: str) -> None:
    tree = ast.parse((ROOT / "stages" / f"{module(stage)}.py").read_text())
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    named |= {"arms", "on_policy"} - OTHER_ARMS.get(stage, set()) if "trained_arms" in named else set()
    read = named & set(Params.model_fields) - {"run"}
    listed = {param.split(".")[0] for param in definition(stage)["params"]} - {"datasets"}
    # train.student is the base arm's; a rubric's score is a field of filter's rows; train only refuses another one
    sections = {"evaluate": {"train"}, "filter": {"score"}, "filter-traces": {"score"}}
    sections |= {"train": {"score"}, "train-on-policy": {"score"}}
    sections["evaluate-on-policy"] = sections["evaluate"]
    assert listed == read - sections.get(stage, set())


def test_collect_and_difficulty_share_the_section_of_collect() -> None:
    """Another collect.keep_hard collects nothing again."""
    listed = {param for param in definition("collect")["params"] if param.startswith("collect.")}
    assert listed == {f"collect.{name}" for name in Collect.model_fields} - {"collect.keep_hard"}
    assert "collect.keep_hard" in definition("difficulty")["params"]


def test_no_stage_depends_on_how_fast_it_runs() -> None:
    assert not [stage for stage in DVC for param in definition(stage)["params"] if param.split(".")[0] == "run"]


def test_no_param_is_lost_to_the_key_of_the_run_cache() -> None:
    """DVC leaves whatever is called size or nfiles out of that key: another size would bring back old results."""
    sections: list[type[Section]] = [Section]
    for section in sections:
        sections += section.__subclasses__()
        assert not {"size", "nfiles"} & section.model_fields.keys(), section
    assert any(section is Params for section in sections)


@pytest.mark.parametrize("stage", DVC)
def test_every_section_and_choice_that_dvc_yaml_names_is_in_every_profile(stage: str) -> None:
    """DVC knows no key that may be absent, and says so in words that name no remedy."""
    texts = [str(each) for each in (DVC[stage].get("foreach", ""), *definition(stage)["deps"])]
    named = re.findall(r"\$\{([a-z_0-9.]+)\}", " ".join(texts))
    named += [param for param in definition(stage)["params"] if "$" not in param]
    for key in {key for key in named if not key.startswith(("key", "item"))}:
        for profile in (ROOT / "profiles").glob("*.yaml"):
            found = YAML(typ="safe").load(profile.read_text())
            for part in key.split("."):
                assert part in found, (profile.name, key)
                found = found[part]


def test_each_prompt_that_a_stage_reads_is_a_dep() -> None:
    for stage in DVC:
        # the embedded backend knows the marking prompt by its text, whoever asks; params/ reads what it is told to
        files = {file for file in reached_files(module(stage), next(choices())) if "/backends/" not in file} - EXEMPT
        reads = any("prompt_text(" in (ROOT / file).read_text() for file in files)
        listed = [dep for dep in definition(stage)["deps"] if dep.startswith("stages/prompts/")]
        assert reads == (stage in PROMPTS), stage
        assert listed == ([PROMPTS[stage]] if reads else []), stage


def test_no_stage_imports_a_stage() -> None:
    names = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    for name in names:
        imported = set(mentioned_modules(f"stages/{name}.py", {}))
        assert not imported & {f"stages.{other}" for other in names}, name
    for path in (ROOT / "stages" / "lib").rglob("*.py"):
        imported = set(mentioned_modules(path.relative_to(ROOT).as_posix(), {}))
        assert not imported & {f"stages.{other}" for other in names}, path


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {}
    for path in (ROOT / "stages").rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
        imported = {[*module_files(name)][-1] for name in names if name.startswith("stages.lib.")}
        graph[path.relative_to(ROOT).as_posix()] = imported
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_every_stage_is_named_like_its_file_and_its_test() -> None:
    stages = {module(stage) for stage in DVC}
    assert stages == {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    for stage in stages:
        assert (ROOT / "tests" / f"test_{stage}.py").is_file(), stage
        assert stage in Params.model_fields or stage == "difficulty"  # its section is collect.keep_hard


def test_params_are_the_embedded_profile() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles" / "embedded.yaml").read_bytes()


def test_the_plots_of_all_arms_are_of_the_arms_of_params() -> None:
    """As train writes them, and DVC draws the files that the stages write."""
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    (losses,), (lengths,) = (plot.values() for plot in YAML(typ="safe").load(PLOTS.read_text())["plots"])
    outs = {name: next(iter(definition(name)["plots"][0])) for name in ("train", "convert")}
    datasets = dict.fromkeys(arm["dataset"] for arm in params["arms"].values())
    for stage, plot, keys in (("train", losses, params["arms"]), ("convert", lengths, datasets)):
        assert [f"metrics/{file}" for file in plot["y"]] == [outs[stage].replace("${key}", key) for key in keys]


def test_the_committed_run_is_up_to_date_with_the_code(tmp_path: Path) -> None:
    """On a clone without data, dvc.lock, the code, params and the committed metrics agree."""
    clone = tmp_path / "clone"
    for command in (
        ["git", "clone", "--quiet", str(ROOT), str(clone)],
        [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", "compare"],
    ):
        cwd = clone if clone.exists() else ROOT
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    # prefer reads data/eval, a folder of several outputs, which DVC cannot know to be unchanged where it is missing
    assert stages_in(done.stdout) <= {"prefer"}, done.stdout
