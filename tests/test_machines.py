"""What a machine may lack that no params say: a git repository, locks that work; and a second worktree's one store.

A kernel without locks is made by a ``sitecustomize`` module, which every Python process of the test imports first.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.command import main_worktree
from stages.lib.doctor.locking import locks, mount_options
from tests.distill_runner import ROOT, DistillRunner, question
from tests.workspace import Workspace, stages_in

NO_LOCKS = "def {kind}(*_):\n    raise OSError(errno.{error}, os.strerror(errno.{error}))\nfcntl.{kind} = {kind}\n"
EVERYBODY = "fcntl.{kind} = lambda *_: None\n"
OF_GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


class Copy:
    """The program in a folder, as a ZIP of the repository brings it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "stages", folder / "stages", ignore=ignored)
        for name in ("Makefile", "params.yaml", "requirements.txt", "requirements.lock", ".gitignore"):
            shutil.copy(ROOT / name, folder / name)
        unwanted = ("DVC_ROOT", "PYTHONPATH", "GIT_DIR")
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted} | OF_GIT
        # the doctor imports torch, which takes three seconds and is no matter here
        (folder.parent / "site" / "torch").mkdir(parents=True)
        (folder.parent / "site" / "torch" / "__init__.py").touch()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def git(self, *arguments: str) -> None:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr

    def demo(self, *options: str) -> subprocess.CompletedProcess[str]:
        """``make demo``, which may get no further than its first check: nothing can be installed."""
        return self.run("make", f"PYTHON={sys.executable}", "PIP_NO_INDEX=1", *options, "demo")

    def says(self) -> str:
        """The doctor's line about git, and what fixes it."""
        without_torch = {"PYTHONPATH": str(self.folder.parent / "site")}
        done = subprocess.run(
            [sys.executable, "-m", "stages.lib.doctor"], cwd=self.folder, env=self.environment | without_torch,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        lines = done.stdout.splitlines()
        (number,) = [number for number, line in enumerate(lines) if line[6:].startswith("git ")]
        return " ".join([*lines[number].split(), *lines[number + 1].partition("→")[1:]])


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "a copy")


@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.heavy), ("-j4",)])
def test_a_copy_without_git_is_told_before_anything_is_installed(copy: Copy, options: tuple[str, ...]) -> None:
    done = copy.demo(*options)
    assert done.returncode == 2
    line = done.stderr.splitlines()[0]
    assert line == (
        f"Error: {copy.folder} is a copy without .git, and DVC needs one. "
        "Git clone it instead, or: git init && git add -A && git commit -m 'Initial commit'"
    )
    assert not (copy.folder / ".venv").exists()
    assert copy.says().startswith(f"fail git {copy.folder} is a copy without .git")


def test_what_it_is_told_to_type_helps(copy: Copy) -> None:
    told = copy.demo().stderr.splitlines()[0].rpartition("or: ")[2]
    assert copy.run("bash", "-c", told).returncode == 0
    assert copy.run(sys.executable, "-m", "stages.lib.doctor.checkout").returncode == 0
    assert copy.says().startswith("ok git git version ")


def test_a_repository_without_a_commit_is_a_warning(copy: Copy) -> None:
    copy.git("init", "-q")
    assert copy.says().startswith("warn git no commit yet")


def test_a_copy_within_another_repository_is_a_warning(copy: Copy) -> None:
    subprocess.run(["git", "init", "-q", str(copy.folder.parent)], check=True)
    assert copy.says().startswith(f"warn git {copy.folder} has no .git, but is inside the repository ")


def test_a_repository_of_another_user_is_told_in_gits_words(copy: Copy) -> None:
    copy.git("init", "-q")
    copy.environment["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    said = copy.says()
    assert said.startswith("fail git git refuses ")
    assert "dubious ownership" in said


def test_a_machine_without_git_is_told_to_install_it(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    copy.environment["PATH"] = str(tmp_path / "bin")
    assert copy.says().startswith("fail git it cannot be started")


# ---- worktrees ----


@pytest.fixture
def repository(copy: Copy) -> Copy:
    copy.git("init", "-q")
    copy.git("add", "-A")
    copy.git("commit", "-qm", "all")
    return copy


def test_every_worktree_has_the_store_of_the_main_one(repository: Copy, tmp_path: Path) -> None:
    repository.git("worktree", "add", "-q", "--detach", "../another one")
    for folder in (repository.folder, tmp_path / "another one"):
        done = subprocess.run(
            [sys.executable, "-m", "stages.lib.store_tools.ledger"], cwd=folder, env=repository.environment, text=True,
            capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout.startswith(f"{repository.folder}/data/store/answers.jsonl: no answers were received"), done


def test_a_store_that_a_worktree_had_of_its_own_is_named(repository: Copy, tmp_path: Path) -> None:
    repository.git("worktree", "add", "-q", "../another")
    own = tmp_path / "another" / "data" / "store" / "answers.jsonl"
    own.parent.mkdir(parents=True)
    own.touch()
    done = subprocess.run(
        [sys.executable, "-m", "stages.lib.store_tools.ledger"], cwd=tmp_path / "another", env=repository.environment,
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert f"'make store-import FILE={own}' adds this worktree's answers" in done.stderr


def test_what_is_no_linked_worktree_is_its_own(repository: Copy, tmp_path: Path) -> None:
    repository.git("clone", "-q", ".", str(tmp_path / "clone"))
    repository.git(
        "clone", "-q", "--separate-git-dir", str(tmp_path / "elsewhere.git"), ".", str(tmp_path / "separate")
    )
    allowed = ("-c", "protocol.file.allow=always")
    repository.git(*allowed, "submodule", "add", "-q", str(tmp_path / "clone"), "part")
    repository.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    repository.git(
        "-C", str(tmp_path / "bare.git"), "worktree", "add", "-q", "--detach", str(tmp_path / "of a bare one")
    )
    (tmp_path / "no repository").mkdir()
    for name in ("clone", "separate", "a copy/part", "of a bare one", "no repository", "a copy"):
        assert main_worktree(tmp_path / name) == tmp_path / name


def test_a_project_below_the_top_of_its_repository_keeps_its_place(repository: Copy, tmp_path: Path) -> None:
    repository.git("worktree", "add", "-q", "../another")
    assert main_worktree(tmp_path / "another" / "stages") == repository.folder / "stages"


def test_a_worktree_whose_repository_is_not_here_is_its_own(repository: Copy, tmp_path: Path) -> None:
    repository.git("worktree", "add", "-q", "../another")
    repository.folder.rename(tmp_path / "moved")
    assert main_worktree(tmp_path / "another") == tmp_path / "another"


@pytest.mark.heavy
def test_a_worktree_asks_for_nothing_that_the_main_one_has_received(workspace: Workspace, tmp_path: Path) -> None:
    workspace.run("git", "worktree", "add", "-q", str(tmp_path / "another"))
    asked = workspace.asked()
    environment = workspace.environment | {"PYTHONPATH": str(tmp_path / "another")}
    done = subprocess.run(
        ["dvc", "repro", "distill"], cwd=tmp_path / "another", env=environment, capture_output=True, text=True
    )
    assert stages_in(done.stdout) == {"eval-data", "collect", "difficulty", "distill"}, done.stderr
    assert workspace.asked() == asked
    assert not (tmp_path / "another" / "data" / "store").exists()


# ---- locks ----


def kernel(folder: Path, text: str) -> str:
    """The PYTHONPATH of processes whose kernel is like this."""
    (folder / "kernel").mkdir()
    (folder / "kernel" / "sitecustomize.py").write_text(f"import errno, fcntl, os\n{text}")
    return f"{folder / 'kernel'}:{ROOT}"


def test_locks_that_work_are_found_to_and_leave_nothing_behind(tmp_path: Path) -> None:
    (finding,) = locks({"the store": tmp_path / "not" / "there yet"})
    assert (finding.state, finding.what) == ("ok", "locks of the store")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["flock", "lockf"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NO_LOCKS.replace("{error}", "ENOLCK"), "{kind}: No locks available"),
        (NO_LOCKS.replace("{error}", "ENOSYS"), "{kind}: Function not implemented"),
        (NO_LOCKS.replace("{error}", "EOPNOTSUPP"), "{kind}: Operation not supported"),
        (EVERYBODY, "a second process was not refused"),
    ],
    ids=["no daemon", "not implemented", "not supported", "granted to everybody"],
)
def test_a_filesystem_without_locks_is_named(
    kind: str, text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", kernel(tmp_path, text.replace("{kind}", kind)))
    (finding,) = locks({"the store": tmp_path})
    assert finding.state == "fail"
    assert finding.found.startswith(f"{tmp_path}: ")
    assert words.replace("{kind}", kind) in finding.found
    assert "symbolic link" in finding.fix
    assert [path.name for path in tmp_path.iterdir()] == ["kernel"]


def test_a_lock_that_is_never_answered_is_named_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.lib.doctor.locking.TIMEOUT_S", 1.0)
    monkeypatch.setenv("PYTHONPATH", kernel(tmp_path, "import time\nfcntl.flock = lambda *_: time.sleep(100)\n"))
    (finding,) = locks({"the store": tmp_path})
    assert (finding.state, finding.found) == ("fail", f"{tmp_path}: no result of a lock call within 1 s")


@pytest.mark.parametrize("option", ["localflock", "nolock", "local_lock=all"])
def test_locks_that_no_other_host_sees_are_a_warning(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/b {tmp_path} nfs rw,{option},hard 0 0\nc {tmp_path}/d xfs rw 0 0\n")
    monkeypatch.setattr("stages.lib.doctor.locking.MOUNTS", mounts)
    (finding,) = locks({"the store": tmp_path})
    assert finding.state == "warn"
    assert option in finding.found
    assert mount_options(tmp_path / "d") == ["rw"]


def failing_under(runner: DistillRunner, text: str) -> str:
    """What distill says on stderr where it fails under a kernel that does as ``text``."""
    environment = os.environ | {"PYTHONPATH": kernel(runner.folder, text)}
    runner.ask(question(0))
    with subprocess.Popen(
        [sys.executable, "-m", "stages.distill", *runner.arguments()],
        cwd=runner.folder, env=environment, text=True, stderr=subprocess.PIPE,
    ) as stage:  # fmt: skip
        _, said = stage.communicate(timeout=60)
    assert stage.returncode == 1
    return said


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_store_without_locks_is_one_line(kind: str, runner: DistillRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    text = NO_LOCKS.replace("{error}", "ENOLCK").replace("{kind}", kind)
    said = failing_under(runner, text)
    (line,) = said.splitlines()
    assert line.startswith(f"Error: {runner.store.parent}/answers.")
    assert "locks do not work on this filesystem (No locks available)" in line
    assert runner.requested() == []


@pytest.mark.heavy
def test_locks_that_fail_midway_lose_no_answer(runner: DistillRunner) -> None:
    """The daemon goes down after the store was opened: what comes then is kept beside the store."""
    text = (
        "real, calls = fcntl.flock, []\n"
        "def flock(file, how):\n"
        "    calls.append(how)\n"
        "    if len(calls) > 3:\n"  # the presence, the repair of the file and its end
        "        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))\n"
        "    return real(file, how)\n"
        "fcntl.flock = flock\n"
    )
    said = failing_under(runner, text)
    assert "'make store-import FILE=" in said
    (rescued,) = runner.store.parent.glob("*.rescued.*.jsonl")
    assert len(rescued.read_bytes().splitlines()) == len(runner.requested()) == 1
