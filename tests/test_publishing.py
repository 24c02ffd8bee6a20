"""Publishing: the real clients push to stand-ins on 127.0.0.1, and a push refuses what must not go up."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.publishing import PublishingError
from stages.lib.publishing.__main__ import main
from stages.lib.publishing.checks import refuse_dirty
from stages.lib.publishing.secrets import keys_in
from tests.published_project import IDENTITY, WEIGHTS, build_project
from tests.standin_hub import client_environment, served
from tests.standin_uploads import UploadHub

TOKEN = "hf_" + "a1B2" * 9
OPENAI_KEY = "sk-" + "0123456789abcdef" * 2
TOKENS = {
    "HF_TOKEN": TOKEN,
    "MODELSCOPE_API_TOKEN": TOKEN,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
SERVED: dict[str, Any] = {
    "kind": "openai_compatible",
    "base_url": "http://10.1.2.3:8000/v1",
    "temperature": None,
    "top_p": None,
    "max_tokens": None,
    "extra_body": {},
}
Push = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]
Passes = Callable[..., str]


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with served(UploadHub()) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return build_project(tmp_path / "project")


@pytest.fixture
def push(tmp_path: Path, hub: UploadHub) -> Push:
    """``push(project, "dataset", "filtered", "--to", "hub", …)`` in a process of its own."""

    def run(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = client_environment(tmp_path / "home", hub.address) | TOKENS | variables
        command = [sys.executable, "-m", "stages.lib.publishing", *arguments, "--repo", "me/it"]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def refused(refuses: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``refused(project, "dataset", "filtered", …)``: the one line of a push that asks no hub."""

    def run(project: Path, *arguments: str) -> str:
        monkeypatch.chdir(project)
        return refuses(main, *arguments, "--repo", "me/it")

    return run


@pytest.fixture
def passes(runs: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``passes(project, …)``: what a dry run prints."""

    def run(project: Path, *arguments: str) -> str:
        monkeypatch.chdir(project)
        return runs(main, *arguments, "--repo", "me/it", "--dry-run").output

    return run


@pytest.mark.heavy
@pytest.mark.parametrize("client", ["hub", "modelscope"])
def test_a_dataset_and_its_cards_arrive_to_the_byte(project: Path, push: Push, hub: UploadHub, client: str) -> None:
    done = push(project, "dataset", "filtered", "--to", client, "--force", "dirty")
    assert done.returncode == 0, done.stderr
    there = hub.files["me/it"]
    assert set(there) == {"README.md", "README.zh-CN.md", "dataset_info.json", "filtered.json"}
    source = project / "data" / "sharegpt" / "filtered"
    assert there["filtered.json"] == (source / "filtered.json").read_bytes()
    assert there["README.md"].startswith(b"---\n")
    assert b"license: apache-2.0\n" in there["README.md"]
    assert "许可证" in there["README.zh-CN.md"].decode()
    assert {**hub.made["me/it"]}.get("visibility", hub.made["me/it"].get("Visibility")) in ("private", 1, "1")
    assert TOKEN in hub.tokens
    assert TOKEN not in done.stdout + done.stderr
    assert not list((project / ".cache" / "publishing").glob("*"))


@pytest.mark.heavy
@pytest.mark.parametrize("client", ["hub", "modelscope"])
def test_a_push_that_died_is_completed_by_the_next_without_sending_weights_twice(
    project: Path, push: Push, hub: UploadHub, client: str
) -> None:
    hub.broken_commits = 1000
    limits = {"MODELSCOPE_UPLOAD_COMMIT_MAX_ATTEMPTS": "1", "MODELSCOPE_UPLOAD_RECOVERY_ENABLED": "false"}
    died = push(project, "model", "filtered", "--to", client, "--force", "dirty", **limits)
    assert died.returncode == 1
    assert died.stderr.splitlines()[-1].startswith(f"Error: {client}: ")
    assert "me/it" not in hub.files
    hub.broken_commits = 0
    done = push(project, "model", "filtered", "--to", client, "--force", "dirty")
    assert done.returncode == 0, done.stderr
    assert hub.files["me/it"]["model.safetensors"] == WEIGHTS
    assert sum("/blobs/" in path for path in hub.asked) == 1


def test_a_dry_run_lists_the_files_and_needs_no_token(
    project: Path, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = passes(project, "model", "filtered", "--to", "hub", "--force", "dirty")
    assert "model.safetensors" in said
    assert said.splitlines()[-1] == "4 files would go to me/it (hub); nothing was uploaded."


def test_a_key_in_the_data_is_refused_and_never_shown(project: Path, refused: Refused, passes: Passes) -> None:
    dataset = project / "data" / "sharegpt" / "filtered"
    (dataset / "dropped.jsonl").write_text(f'{{}}\n{{}}\n{{"note": "{OPENAI_KEY}"}}\n')
    arguments = ("dataset", "filtered", "--to", "hub")
    line = refused(project, *arguments, "--force", "dirty")
    assert line.startswith("dropped.jsonl:3: an OpenAI-style key (sk-…). ")
    assert OPENAI_KEY not in line
    assert passes(project, *arguments, "--force", "keys,dirty")
    (dataset / "dropped.jsonl").write_text("the word is open-sesame\n")
    (project / ".env").write_text("SOME_KEY=open-sesame\n")
    assert refused(project, *arguments, "--force", "dirty").startswith("dropped.jsonl:1: the value of SOME_KEY. ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OPENAI_KEY, "an OpenAI-style key (sk-…)"),
        ("sk-proj-" + "aB3" * 12, "an OpenAI-style key (sk-…)"),
        ("key=" + TOKEN, "a Hugging Face token (hf_…)"),
        ("ms-01234567-89ab-cdef-0123-456789abcdef", "a ModelScope token (ms-…)"),
        ("AKIAIOSFODNN7EXAMPLE", "an AWS access key (AKIA…)"),
        ("LTAI5tExampleExample12", "an Alibaba Cloud access key (LTAI…)"),
        ("ghp_" + "aB3d" * 9, "a GitHub token (gh…_…)"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("a risk-averse-and-task-oriented-approach of 2024", None),
        ("hf_hub_download and ms-marco", None),
        ("the disk-0123456789abcdef0123456789abcdef", None),
    ],
)
def test_what_has_the_form_of_a_key_is_found(tmp_path: Path, text: str, found: str | None) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"first\n{text}\n")
    assert list(keys_in({"a.txt": path}, {})) == ([f"a.txt:2: {found}"] if found else [])


def test_an_unknown_licence_is_refused_unless_one_is_given(tmp_path: Path, refused: Refused, passes: Passes) -> None:
    (tmp_path / "own").mkdir()
    source = {
        "kind": "file",
        "path": "data/own/gsm8k.jsonl",
        "columns": {"question": "question", "answer": "answer"},
        "gold": "plain",
        "where": {},
        "shuffle_seed": None,
    }
    own = build_project(tmp_path / "own", {"collect.source": source})
    arguments = ("dataset", "filtered", "--to", "hub", "--force", "dirty")
    assert refused(own, *arguments).startswith("licence: that of 'data/own/gsm8k.jsonl' is unknown. ")
    assert passes(own, *arguments, "--licence", "cc-by-4.0")


@pytest.mark.parametrize(
    ("teacher", "start", "told"),
    [
        ("gpt-4o", "terms: those of the teacher 'gpt-4o' restrict training on its outputs", "--accept-terms"),
        ("our-model", "licence: the terms of the teacher 'our-model' are unknown.", "--licence=mit"),
    ],
)
def test_a_teacher_whose_terms_restrict_or_are_unknown_is_refused_unless_told(
    tmp_path: Path, refused: Refused, passes: Passes, teacher: str, start: str, told: str
) -> None:
    (tmp_path / "own").mkdir()
    own = build_project(tmp_path / "own", {"distill.teacher": SERVED | {"model": teacher}})
    arguments = ("dataset", "filtered", "--to", "hub", "--force", "dirty")
    assert refused(own, *arguments).startswith(start)
    assert passes(own, *arguments, told)


def test_what_is_not_committed_is_refused(project: Path, refused: Refused) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "\n")
    line = refused(project, "dataset", "filtered", "--to", "hub")
    assert line.startswith("git: uncommitted: params.yaml. ")


@pytest.mark.heavy
def test_outputs_that_are_not_what_the_lock_says_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages:\n  made:\n    cmd: echo one > out.txt\n    outs: [out.txt]\n")
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "-q"], [*dvc, "init", "-q"], [*dvc, "repro", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["git", *IDENTITY, "commit", "-qm", "A run"], cwd=tmp_path, check=True)
    refuse_dirty(tmp_path, ["made"])
    (tmp_path / "out.txt").unlink()
    (tmp_path / "out.txt").write_text("two\n")
    with pytest.raises(PublishingError, match=r"^dvc: made: out\.txt modified, so the files are not those of"):
        refuse_dirty(tmp_path, ["made"])


def test_a_token_that_is_missing_is_named_with_the_page_that_gives_one(
    project: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    line = refused(project, "dataset", "filtered", "--to", "hub", "--force", "dirty")
    assert line.startswith("HF_TOKEN: not set. Make a token with write access (https://")


def test_modelers_without_openminds_environment_says_how_to_make_it(
    project: Path, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELERS_TOKEN", "m" * 20)
    monkeypatch.setenv("OPENMIND_CLI", str(tmp_path / "none" / "openmind-cli"))
    line = refused(project, "dataset", "filtered", "--to", "modelers", "--force", "dirty")
    assert line.endswith("Run 'make openmind-env'.")
