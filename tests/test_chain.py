"""The whole chain by the real ``dvc repro``, on a tiny student: what runs, what runs again, and what does not."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tests.workspace import ROOT, Workspace


def test_every_stage_leaves_what_it_promises(finished: Workspace) -> None:
    for path in (
        "report/index.html",
        "metrics/compare.json",
        "models/filtered/model.safetensors",
        "data/eval/base.jsonl",
    ):
        assert (finished.folder / path).is_file(), path
    assert finished.asked() == 12
    status = finished.run("git", "status", "--short", "--untracked-files=all", "--", "data", "models", "report")
    assert {Path(line[3:].strip('"')).name for line in status.splitlines()} <= {".gitignore"}, "outputs in git"


def test_nothing_runs_again_where_nothing_changed(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.change({"run.concurrency": 3, "run.threads": 1})
    workspace.add("params.yaml", "# a remark\n")
    assert workspace.repro() == set()
    assert workspace.times() == before


def test_one_arms_epochs_touch_that_arm_alone_and_flipping_back_trains_nothing(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.change({"arms.filtered.num_train_epochs": 2.0})
    assert workspace.repro() == {"train@filtered", "evaluate@filtered", "compare", "report"}
    touched = {path for path, time in workspace.times().items() if before.get(path) != time}
    assert not [path for path in touched if "unfiltered" in path or "base" in path]
    workspace.change({"arms.filtered.num_train_epochs": 1.0})
    assert workspace.repro() == set(), "the run-cache had it"


def test_a_longer_training_set_asks_for_the_new_questions_only(workspace: Workspace) -> None:
    asked_before = workspace.asked()
    workspace.change({"collect.size": 24})
    executed = workspace.repro("distill")
    assert executed == {"collect", "distill"}
    assert workspace.asked() - asked_before == 12


def test_another_control_touches_neither_the_teacher_nor_the_arms(workspace: Workspace) -> None:
    asked_before = workspace.asked()
    workspace.change({"filter.control_seed": 99})
    assert workspace.repro() == {"filter", "convert@control"}
    assert workspace.asked() == asked_before


def test_another_prompt_runs_from_distill_on_and_never_the_base_arm(workspace: Workspace) -> None:
    (workspace.folder / "stages" / "prompts" / "short.txt").write_text("{question} Be short.\n")
    workspace.change({"distill.prompt": "short"})
    asked_before = workspace.asked()
    executed = workspace.repro()
    assert {"distill", "filter", "report"} <= executed
    assert not executed & {"collect", "evaluate-base"}
    assert workspace.asked() - asked_before == 12, "the prompt is part of what is asked"


def test_a_comment_in_the_trainer_trains_again_and_equal_weights_end_it_there(workspace: Workspace) -> None:
    workspace.add("stages/lib/trainers/trl.py", "# a remark\n")
    assert workspace.repro() == {"train@filtered", "train@unfiltered"}


def test_old_results_can_be_accepted_after_a_harmless_edit(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.add("stages/lib/trainers/trl.py", "# a remark\n")
    workspace.add("stages/filter.py", "# another\n")
    workspace.run("dvc", "commit", "--force", "train")
    assert set(re.findall(r"^(\S+):$", workspace.run("dvc", "status"), re.MULTILINE)) == {"filter"}
    workspace.run("dvc", "commit", "--force", "filter")
    assert workspace.repro() == set()
    assert workspace.times() == before


def test_a_killed_distill_goes_on_where_it_was(workspace: Workspace) -> None:
    asked_before = workspace.asked()
    workspace.change({"distill.samples_per_question": 4, "run.concurrency": 2, "run.embedded_latency_s": 0.3})
    with subprocess.Popen(
        ["dvc", "repro", "distill"],
        cwd=workspace.folder,
        env=workspace.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while workspace.asked() < asked_before + 8:
            assert process.poll() is None, "distill ended before it could be killed"
            assert time.monotonic() < deadline, "distill asked for nothing"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    asked_when_killed = workspace.asked()
    assert asked_when_killed < asked_before + 36
    assert not (workspace.folder / "data" / "distilled.jsonl").exists(), "DVC removes outputs before it runs a stage"
    workspace.change({"run.embedded_latency_s": 0.0})
    assert workspace.repro("distill") == {"distill"}
    assert asked_before + 36 <= workspace.asked() <= asked_before + 36 + 2, "what was under way is asked once more"
    assert len((workspace.folder / "data" / "distilled.jsonl").read_bytes().splitlines()) == 48


def test_clean_keeps_the_store_of_received_answers(workspace: Workspace) -> None:
    store = workspace.folder / "data" / "store" / "answers.jsonl"
    received = store.read_bytes()
    clean = re.search(r"^clean:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert clean
    workspace.run("bash", "-c", clean[1])
    assert store.read_bytes() == received
    left = [
        path for name in ("data", "models", "report") for path in (workspace.folder / name).rglob("*") if path.is_file()
    ]
    assert {path.name for path in left} == {".gitignore", "answers.jsonl", "answers.lock"}
