"""The whole chain by the real ``dvc repro``, on a tiny student: what runs, what runs again, and what does not."""

import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.workspace import ALL, ARM, DATASETS, ROOT, Workspace, kill

ONE_ARM = ALL - {"convert@control", "convert@unfiltered", "score@unfiltered", "train@unfiltered", "evaluate@unfiltered"}


def test_the_chain_of_one_arm_runs_each_stage_once(tmp_path: Path, tiny_student: Path) -> None:
    """Every stage by DVC in half the time of all arms, which the heavy tests run."""
    workspace = Workspace.of_the_repository(tmp_path / "a 工作 space", tiny_student)
    workspace.change({"datasets": {"filtered": {"rows": "data/filtered.jsonl"}}, "arms": {"filtered": ARM}})
    assert workspace.repro() == ONE_ARM
    assert workspace.asked() == 12
    compared = json.loads((workspace.folder / "metrics" / "compare.json").read_bytes())
    assert (list(compared["arms"]), list(compared["pairs"])) == (["base", "filtered"], ["filtered_vs_base"])
    before = workspace.times()
    assert workspace.repro() == set()
    assert workspace.times() == before


@pytest.mark.heavy
def test_every_stage_leaves_what_it_promises(workspace: Workspace) -> None:
    for path in (
        "report/index.html",
        "metrics/compare.json",
        "models/filtered/model.safetensors",
        "data/eval/base.jsonl",
    ):
        assert (workspace.folder / path).is_file(), path
    assert workspace.asked() == 12
    status = workspace.run("git", "status", "--short", "--untracked-files=all", "--", "data", "models", "report")
    assert {Path(line[3:].strip('"')).name for line in status.splitlines()} <= {".gitignore"}, "outputs in git"


@pytest.mark.heavy
def test_nothing_runs_again_where_nothing_changed(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.change({"run.concurrency": 3, "run.threads": 3})
    workspace.add("params.yaml", "# a remark\n")
    assert workspace.repro() == set()
    assert workspace.times() == before


@pytest.mark.heavy
def test_one_arms_epochs_touch_that_arm_alone_and_flipping_back_trains_nothing(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.change({"arms.filtered.num_train_epochs": 2.0})
    assert workspace.repro() == {"train@filtered", "evaluate@filtered", "prefer", "compare", "report"}
    touched = workspace.touched_since(before)
    assert not [path for path in touched if "unfiltered" in path or "base" in path]
    workspace.change({"arms.filtered.num_train_epochs": 1.0})
    assert workspace.repro() == set(), "the run-cache had it"


@pytest.mark.heavy
def test_a_longer_training_set_asks_for_the_new_questions_only(workspace: Workspace) -> None:
    old = workspace.messages()
    workspace.change({"collect.train_size": 24})
    assert workspace.repro("distill") == {"collect", "difficulty", "distill"}
    assert workspace.messages()[:12] == old
    assert sorted(workspace.requested()[12:]) == sorted(workspace.messages()[12:])
    assert len(workspace.requested()) == 24


@pytest.mark.heavy
def test_another_control_touches_neither_the_teacher_nor_the_arms(workspace: Workspace) -> None:
    asked_before = workspace.asked()
    workspace.change({"filter.control_seed": 99})
    assert workspace.repro() == {"filter", "convert@control", "report"}
    assert workspace.asked() == asked_before


@pytest.mark.heavy
def test_another_way_to_filter_touches_neither_the_teacher_nor_the_other_arms(workspace: Workspace) -> None:
    asked, before = workspace.asked(), workspace.times()
    workspace.change({"filter.strategy": "judge", "filter.judge.slip_share": 0.5})
    # one step more or less may leave the weights as they were, and the control may be one that was drawn before
    executed = workspace.repro() - {"evaluate@filtered", "convert@control", "prefer"}
    assert executed == {"filter", "convert@filtered", "score@filtered", "train@filtered", "compare", "report"}
    to_the_judge = workspace.requested()[asked:]
    assert to_the_judge
    assert not set(to_the_judge) & set(workspace.messages())
    touched = workspace.touched_since(before)
    assert "data/filtered.jsonl" in touched
    untouched = ("unfiltered", "base", "questions", "heldout", "distill")
    assert not [path for path in touched if any(word in path for word in untouched)]


@pytest.mark.heavy
def test_another_judge_and_another_marking_prompt_touch_the_filter_alone(workspace: Workspace) -> None:
    asked = workspace.asked()
    workspace.change({"filter.strategy": "rule_then_judge"})
    # the rule decides all here: the rows stay as they are, and the metrics count the calls saved
    assert workspace.repro() == {"filter", "report"}
    workspace.change({"filter.judge.slip_share": 0.5})
    assert workspace.repro() == {"filter"}
    workspace.add("stages/prompts/judge/strict_teacher.txt", "\n")
    assert workspace.repro() == {"filter"}
    assert workspace.asked() == asked


@pytest.mark.slow
def test_a_dataset_of_others_is_untouched_by_the_prompt_and_touches_nothing_itself(workspace: Workspace) -> None:
    rows = [
        {"question": f"What is {n} + {n}?", "solution": str(2 * n), "deepseek_attempt": f"The answer is {2 * n}."}
        | {"deepseek_thinking_trajectory": f"{n} + {n} = {2 * n}"}
        for n in range(100, 108)
    ]
    (workspace.folder / "s1k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "preset", "name": "s1k", "origin": "file", "path": "s1k.jsonl", "split": "train"}
    arm = ARM | {"dataset": "s1k"}
    workspace.change(
        {
            "traces.s1k": {"source": source, "where": {}, "first": None, "samples_per_question": None},
            "datasets.s1k": {"rows": "data/s1k.jsonl"},
            "arms.s1k": arm,
        }
    )
    of_s1k = {"traces@s1k", "convert@s1k", "score@s1k", "train@s1k", "evaluate@s1k"}
    assert workspace.repro() == of_s1k | {"prefer", "compare", "report"}
    (workspace.folder / "stages" / "prompts" / "short.txt").write_text("{question} Be short.\n")
    workspace.change({"distill.prompt": "short"})
    executed = workspace.repro()
    assert "distill" in executed
    assert not executed & (of_s1k | {"collect", "evaluate-base"})


@pytest.mark.heavy
def test_measuring_the_questions_collects_buys_and_trains_nothing_again(workspace: Workspace) -> None:
    asked = workspace.asked()
    measure = {"samples": 2, "max_solved": 2, "backend": {"kind": "hf", "max_tokens": 8}}
    workspace.change({"collect.keep_hard": measure})
    assert workspace.repro() == {"difficulty", "distill", "filter", "report"} | DATASETS
    assert workspace.asked() == asked
    rows = (workspace.folder / "data" / "filtered.jsonl").read_bytes().splitlines()
    assert {json.loads(row)["pass_rate"]["samples"] for row in rows} == {2}
    assert "Pass rates of the untrained student" in (workspace.folder / "report" / "index.html").read_text()
    workspace.change({"collect.keep_hard": None})
    assert workspace.repro() == set(), "the run-cache had it"


@pytest.mark.heavy
@pytest.mark.parametrize("year", [1990, 2050])
def test_a_clock_that_jumps_recomputes_nothing_and_hides_no_edit(workspace: Workspace, year: int) -> None:
    moment = time.mktime((year, 6, 1, 0, 0, 0, 0, 0, 0))
    workspace.set_clock(moment)
    before = workspace.times()
    assert workspace.repro() == set()
    assert workspace.times() == before
    workspace.add("stages/filter.py", "# a remark\n")
    workspace.set_clock(moment)
    assert workspace.repro() == {"filter"}


@pytest.mark.heavy
def test_another_prompt_runs_from_distill_on_and_never_the_base_arm(workspace: Workspace) -> None:
    (workspace.folder / "stages" / "prompts" / "short.txt").write_text("{question} Be short.\n")
    workspace.change({"distill.prompt": "short"})
    asked_before = workspace.asked()
    executed = workspace.repro()
    assert {"distill", "filter", "report"} <= executed
    assert not executed & {"collect", "evaluate-base"}
    assert workspace.asked() - asked_before == 12, "the prompt is part of what is asked"


@pytest.mark.heavy
def test_a_comment_in_the_trainer_trains_again_and_equal_weights_end_it_there(workspace: Workspace) -> None:
    workspace.add("stages/lib/trainers/trl/__init__.py", "# a remark\n")
    assert workspace.repro() == {"train@filtered", "train@unfiltered"}


@pytest.mark.heavy
def test_old_results_can_be_accepted_after_a_harmless_edit(workspace: Workspace) -> None:
    before = workspace.times()
    workspace.add("stages/lib/trainers/trl/__init__.py", "# a remark\n")
    workspace.add("stages/filter.py", "# another\n")
    workspace.run("dvc", "commit", "--force", "score", "train")
    assert set(re.findall(r"^(\S+):$", workspace.run("dvc", "status"), re.MULTILINE)) == {"filter"}
    workspace.run("dvc", "commit", "--force", "filter")
    assert workspace.repro() == set()
    touched = workspace.touched_since(before)
    assert not [path for path in touched if (workspace.folder / path).stat().st_size], "only empty files are laid anew"


@pytest.mark.heavy
def test_a_distill_killed_again_and_again_buys_twice_what_was_in_flight_alone(workspace: Workspace) -> None:
    before = len(workspace.requested())
    in_flight: set[str] = set()
    workspace.change({"collect.train_size": 96, "run.concurrency": 2, "run.embedded.latency_s": 0.2})
    moments = random.Random(3)
    for _ in range(5):
        process = workspace.start_asking()
        time.sleep(moments.uniform(0, 1))
        kill(process)
        unanswered = set(workspace.requested()) - set(workspace.stored())
        assert len(unanswered) <= 3 * 2, "no more than run.concurrency, and twice that on the way to the disk"
        assert len(workspace.stored()) < 90, "distill was killed, not done"
        in_flight |= unanswered
        assert not (workspace.folder / "data" / "distilled.jsonl").exists(), (
            "DVC removes outputs before it runs a stage"
        )
    workspace.change({"run.embedded.latency_s": 0.0})
    assert workspace.repro("distill") == {"distill"}
    asked = Counter(workspace.requested()[before:])
    assert set(asked) == set(workspace.messages()) - set(workspace.requested()[:before])
    assert {message for message, times in asked.items() if times > 1} <= in_flight
    killed = (workspace.folder / "data" / "distilled.jsonl").read_bytes()
    ask_all_again(workspace)
    assert len(workspace.requested()) == before + asked.total() + len(workspace.messages())
    assert (workspace.folder / "data" / "distilled.jsonl").read_bytes() == killed, "as if it had never been killed"


def ask_all_again(workspace: Workspace) -> None:
    """Distill once more, undisturbed, with an empty store."""
    (workspace.folder / "data" / "store" / "answers.jsonl").unlink()
    workspace.run("dvc", "repro", "--force", "--single-item", "distill")


@pytest.mark.heavy
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
    kept = {".gitignore", "README.md", "answers.jsonl", "answers.lock", "answers.claims", "reviews.jsonl"}
    assert {path.name for path in left} == kept
