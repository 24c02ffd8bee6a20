"""Two hosts and a storage that both reach: what one computed or received, the other neither computes nor asks for."""

import json
import re
import shutil
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from tests.test_teacher_transfer import bodies
from tests.workspace import ALL, ARM, ROOT, Workspace, stages_in

pytestmark = pytest.mark.heavy

THIRD = ARM | {"num_train_epochs": 2.0}
FOURTH = THIRD | {"num_train_epochs": 3.0}


def shared_by(first: Workspace, folder: Path) -> tuple[Workspace, Workspace]:
    """The first has finished and pushed to a folder, the second is a clone that knows the folder."""
    second = first.clone(folder / "second host")
    first.make("remote", f"URL={folder / 'shared folder'}")
    second.make("remote", f"URL={folder / 'shared folder'}")
    first.make("push")
    return first, second


@pytest.fixture
def two_hosts(workspace: Workspace, tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Two hosts that a test may change."""
    return shared_by(workspace, tmp_path)


@pytest.fixture(scope="module")
def standing(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished host that each test leaves as it found it."""
    folder = tmp_path_factory.mktemp("standing") / "space"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Workspace(folder)


@pytest.fixture(scope="module")
def standing_hosts(standing: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    """Two hosts that each test leaves as it found them."""
    first = standing.folder.parent / "first host"
    shutil.copytree(standing.folder, first, symlinks=True)
    return shared_by(Workspace(first), tmp_path_factory.mktemp("hosts"))


def test_what_one_host_pushed_the_other_does_not_compute(two_hosts: tuple[Workspace, Workspace]) -> None:
    first, second = two_hosts
    second.make("pull")
    assert second.repro() == set()
    for path in ("report/index.html", "data/distilled.jsonl", "models/filtered/model.safetensors"):
        assert (second.folder / path).read_bytes() == (first.folder / path).read_bytes(), path
    assert not second.run("git", "status", "--short"), "pulling left nothing to commit"


def test_what_one_host_pushed_to_s3_the_other_does_not_compute(workspace: Workspace, tmp_path: Path, s3: str) -> None:
    build_opener(ProxyHandler({})).open(Request(f"{s3}/distillery", method="PUT")).close()
    second = workspace.clone(tmp_path / "second host")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    for host in (workspace, second):
        host.environment |= keys
        host.make("remote", "URL=s3://distillery/results")
        host.run("dvc", "remote", "modify", "--local", "shared", "endpointurl", s3)
    workspace.make("push")
    second.make("pull")
    assert second.repro() == set()
    assert second.asked() == 0
    for path in ("report/index.html", "data/distilled.jsonl", "models/filtered/model.safetensors"):
        assert (second.folder / path).read_bytes() == (workspace.folder / path).read_bytes(), path
    assert not second.run("git", "status", "--short"), "pulling left nothing to commit"


def test_every_commit_that_was_pushed_can_be_had_back_without_computing(
    two_hosts: tuple[Workspace, Workspace],
) -> None:
    first, second = two_hosts
    first.change({"filter.control_seed": 99})
    assert first.repro("convert@control") == {"filter", "convert@control"}
    first.commit()
    first.make("push")
    for revision in ("HEAD", "HEAD~1"):
        second.run("git", "pull", "-q", str(first.folder), "HEAD")
        second.run("git", "checkout", "-q", revision)
        second.make("pull")
        assert second.repro("convert@control") == set()


def test_the_answers_travel_as_a_file_and_the_other_host_asks_for_none(workspace: Workspace, tmp_path: Path) -> None:
    workspace.make("store-export", f"FILE={tmp_path / 'the answers.jsonl'}")
    second = workspace.clone(tmp_path / "second")
    second.make("store-import", f"FILE={tmp_path / 'the answers.jsonl'}")
    second.change({"distill.samples_per_question": 2})
    assert second.repro("distill") == {"eval-data", "collect", "difficulty", "distill"}
    assert second.asked() == 12, "the second samples only"

    second.make("store-export", f"FILE={tmp_path / 'the answers.jsonl'}")
    workspace.make("store-import", f"FILE={tmp_path / 'the answers.jsonl'}")
    store = Path("data") / "store" / "answers.jsonl"
    assert bodies(workspace.folder / store) == bodies(second.folder / store)
    before = workspace.asked()
    workspace.change({"distill.samples_per_question": 2})
    assert workspace.repro("distill") == {"distill"}
    assert workspace.asked() == before


def test_two_commits_that_meet_in_dvc_lock_are_merged_as_the_page_says(
    two_hosts: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    first, second = two_hosts
    first.run("git", "clone", "-q", "--bare", ".", str(tmp_path / "origin"))
    for host in two_hosts:
        host.try_to_run("git", "remote", "remove", "origin")
        host.run("git", "remote", "add", "origin", str(tmp_path / "origin"))
        host.run("git", "fetch", "-q", "origin")
        host.run(
            "git", "branch", "-q", "--set-upstream-to=origin/" + host.run("git", "branch", "--show-current").strip()
        )
    second.make("pull")
    for host, arm in ((first, "third"), (second, "fourth")):
        host.change({f"arms.{arm}": THIRD if arm == "third" else FOURTH})
        of_arm = {f"{stage}@{arm}" for stage in ("score", "train", "evaluate")}
        assert host.repro() == of_arm | {"prefer", "compare", "report"}
        host.commit()
    first.run("git", "push", "-q")
    first.make("push")

    executed = merged_by(page_block("When both hosts have committed"), second)
    assert executed == {"prefer", "compare", "report"}, "each arm was trained once, on its own host"
    assert second.try_to_run("git", "grep", "-n", "^<<<<<<<").stdout == ""
    kept = {path.split("/")[-1] for path in second.run("git", "ls-files", "models", "data").split()}
    assert kept == {".gitignore", "README.md", "reviews.jsonl"}
    assert second.repro() == set()
    assert second.asked() == first.asked() - 12 == 0
    first.run("git", "pull", "-q")
    first.make("pull")
    assert first.repro() == set()
    of_arms = [
        path for arm in ("third", "fourth") for path in (f"models/{arm}/model.safetensors", f"data/eval/{arm}.jsonl")
    ]
    for path in (*of_arms, "report/index.html"):
        assert (first.folder / path).read_bytes() == (second.folder / path).read_bytes(), path
    arms = json.loads((first.folder / "metrics" / "compare.json").read_bytes())["arms"]
    assert {"third", "fourth"} <= set(arms)


def page_block(heading: str) -> list[str]:
    """The commands beneath a heading of docs/hosts.md."""
    beneath = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8").partition(f"# {heading}\n")[2]
    return beneath.partition("```sh\n")[2].partition("```")[0].splitlines()


def merged_by(lines: list[str], host: Workspace) -> set[str]:
    """Type them; the stages that were executed. The editor puts this host's arm in."""
    executed: set[str] = set()
    for line in lines:
        if line.startswith("$EDITOR params.yaml"):
            host.change({"arms.fourth": FOURTH})
            continue
        done = host.try_to_run("bash", "-c", line.replace("make ", "make -o .venv/ready ", 1))
        if line.startswith("git pull"):
            assert "CONFLICT (content): Merge conflict in dvc.lock" in done.stdout
            assert "Merge conflict in params.yaml" in done.stdout
        else:
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        executed |= stages_in(done.stdout)
    return executed


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("remote", "URL is missing: make remote URL=/mnt/share"),
        ("store-export", "FILE is missing: make store-export FILE=answers.jsonl"),
        ("store-import", "FILE is missing: make store-import FILE=answers.jsonl"),
        ("store-article", "FILE is missing: make store-article FILE=r1_distill.txt"),
    ],
)
def test_a_target_that_lacks_its_value_says_what_to_type(standing: Workspace, target: str, line: str) -> None:
    done = standing.try_to_run("make", "-o", ".venv/ready", target)
    assert done.returncode == 2
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {re.escape(line)}\.  Stop\.\n", done.stderr), done.stderr


def test_pushing_before_the_storage_is_named_says_so(standing: Workspace) -> None:
    done = standing.try_to_run("make", "-o", ".venv/ready", "push")
    assert done.returncode == 2
    assert "no remote specified" in done.stderr


def test_where_the_storage_is_stays_on_the_host(standing_hosts: tuple[Workspace, Workspace]) -> None:
    first, _ = standing_hosts
    assert not first.run("git", "status", "--short")
    assert "shared folder" in (first.folder / ".dvc" / "config.local").read_text()


def test_without_a_pull_the_second_host_would_compute_everything(standing_hosts: tuple[Workspace, Workspace]) -> None:
    """What the tests above rest on: a clone alone holds no results."""
    _, second = standing_hosts
    planned = re.findall(r"^Running stage '(.+)':$", second.run("dvc", "repro", "--dry", "--force"), re.MULTILINE)
    assert set(planned) == ALL
    assert not (second.folder / "models" / "filtered").exists()
