"""What a machine does to the chain: a full disk, a read-only folder, two runs at once, locks that a kill left behind.

Small disks are mounted in a namespace of their own, so no right is needed but that to make one.
"""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from tests.workspace import Workspace, kill

pytestmark = pytest.mark.heavy

Mounting = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def mounting(workspace: Workspace) -> Mounting:
    """``mounting("mount …; dvc repro")``: the workspace's script, with mounts that end with it."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return workspace.try_to_run("unshare", "--map-root-user", "--mount", "bash", "-c", script)

    if not shutil.which("unshare") or run("mount -t tmpfs -o size=8k tmpfs data/store").returncode != 0:
        pytest.skip("the kernel lets nobody but root mount a small disk here")
    return run


def test_a_full_disk_loses_no_answer_that_was_stored(workspace: Workspace, mounting: Mounting) -> None:
    workspace.change({"collect.train_size": 96})
    before = len(workspace.requested())
    done = mounting("""
        cp -r data/store .cache/kept
        mount -t tmpfs -o size=40k tmpfs data/store
        cp .cache/kept/* data/store
        dvc repro distill
        ended=$?
        cp data/store/* .cache/kept
        umount data/store
        cp .cache/kept/* data/store
        exit $ended
    """)
    assert done.returncode != 0
    said = f"{workspace.folder}/data/store/answers.jsonl: No space left on device. Stored answers are kept"
    assert len([line for line in done.stderr.splitlines() if line.startswith(f"Error: {said}")]) == 1, done.stderr
    assert "Traceback" not in done.stderr
    stored, refused = workspace.stored(), len(workspace.requested())
    assert before < len(stored) < refused < 96
    assert workspace.repro("distill") == {"distill"}
    assert sorted(workspace.requested()[refused:]) == sorted(set(workspace.messages()) - set(stored))


def test_a_full_disk_under_the_cache_of_dvc_costs_no_request(workspace: Workspace, mounting: Mounting) -> None:
    workspace.change({"collect.train_size": 96})
    done = mounting("mount -t tmpfs -o size=64k tmpfs .dvc/cache && dvc repro distill")
    assert done.returncode != 0
    assert "failed to reproduce 'distill': [Errno 28] No space left on device" in done.stderr
    assert workspace.asked() == 96
    assert "distill" in workspace.repro("distill")
    assert workspace.asked() == 96
    assert len((workspace.folder / "data" / "distilled.jsonl").read_bytes().splitlines()) == 96
    assert workspace.repro("distill") == set()


def test_a_read_only_folder_is_one_line_and_nothing_is_lost(workspace: Workspace, mounting: Mounting) -> None:
    workspace.change({"distill.max_failed_share": 0.06})
    times = workspace.times()
    read_only = "mount --bind data data && mount -o remount,bind,ro data && "
    said = mounting(read_only + "dvc repro distill").stderr
    assert said.startswith("ERROR: failed to reproduce 'distill': [Errno 30] Read-only file system: "), said
    said = mounting(
        read_only + "python -m stages.collect --questions data/a --heldout b --left-out c --metrics d"
    ).stderr
    assert said.splitlines()[-1].startswith("Error: data/"), said
    assert "Read-only file system. Fix that" in said
    assert workspace.times() == times
    assert workspace.repro("distill") == {"distill"}


def test_of_two_runs_at_once_the_second_says_who_is_at_work_and_disturbs_nothing(workspace: Workspace) -> None:
    workspace.change({"collect.train_size": 24, "run.embedded.latency_s": 0.5})
    first = workspace.start_asking()
    os.killpg(first.pid, signal.SIGSTOP)  # until the second has had its say
    second = workspace.try_to_run("dvc", "repro", "distill")
    os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "is busy, it is being blocked by:" in second.stderr.splitlines()[0]
    assert f"(PID {first.pid}): " in second.stderr
    assert first.communicate(timeout=120) and first.returncode == 0
    assert workspace.repro("distill") == set()
    assert Counter(workspace.requested()) == Counter(workspace.messages())


def test_the_locks_of_a_killed_run_hold_nobody_up(workspace: Workspace) -> None:
    workspace.change({"collect.train_size": 24, "run.embedded.latency_s": 0.5})
    process = workspace.start_asking()
    kill(process)
    left = json.loads((workspace.folder / ".dvc" / "tmp" / "rwlock").read_text())
    assert {holder["pid"] for holder in left["write"].values()} == {process.pid}
    assert workspace.repro("distill") == {"distill"}


def test_a_lock_that_cannot_be_read_is_named(workspace: Workspace) -> None:
    """A machine that went down while DVC wrote it: what to remove is in the message."""
    lock = workspace.folder / ".dvc" / "tmp" / "rwlock"
    lock.write_text('{"read": {')
    workspace.change({"distill.max_failed_share": 0.06})
    done = workspace.try_to_run("dvc", "repro", "distill")
    assert done.returncode != 0
    assert "rwlock" in done.stderr
    lock.unlink()
    assert workspace.repro("distill") == {"distill"}
