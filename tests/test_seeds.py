"""make seeds: what a seed changes, which arms there are, what is written of their differences; a run on three seeds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.seeds import (
    Run,
    SeedsError,
    add_equal_arms,
    chosen_params,
    markdown,
    seed_values,
    summary,
)
from stages.lib.params import load_params
from stages.lib.statistics.evaluations import Answer, Answers
from stages.lib.statistics.noise import over_trainings
from tests.trainings import ON_POLICY
from tests.workspace import ROOT, Workspace, stages_in

Params = Callable[..., Path]
TRAINING = {"train.seed": 7, "filter.control_seed": 7}
SUMS = {"collect.source.seed": 7_000_000, "collect.source.heldout_seed": 7_500_000, "distill.teacher.seed": 7}


@pytest.mark.parametrize(
    ("profile", "varied"),
    [
        ("embedded", TRAINING | SUMS),
        ("own-data", TRAINING | {"distill.teacher.seed": 7, "filter.judge.seed": 7}),  # a file in its own order
        ("article", TRAINING),
        ("ascend", TRAINING),
        ("cuda", TRAINING),
    ],
)
def test_a_seed_is_that_of_the_training_and_of_what_can_be_drawn_again_for_nothing(
    profile: str, varied: dict[str, int]
) -> None:
    params = chosen_params(ROOT / "profiles" / f"{profile}.yaml", "", ())
    assert seed_values(params, 7) == varied
    is_paid = profile in ("article", "ascend", "cuda")
    assert params["run"]["offline"] is is_paid, "with a paid teacher the store must have every answer"


def test_a_shuffled_file_is_drawn_again_where_the_answers_cost_nothing(project_params: Params) -> None:
    shuffled = {"collect.source.kind": "file", "collect.source.shuffle_seed": 3}
    params = chosen_params(project_params(shuffled), "", ())
    assert seed_values(params, 7)["collect.source.shuffle_seed"] == 7
    params = chosen_params(project_params(shuffled | {"distill.teacher.kind": "openai_compatible"}), "", ())
    assert seed_values(params, 7) == TRAINING


def test_the_profiles_own_seed_is_the_profile() -> None:
    params = chosen_params(ROOT / "params.yaml", "", ())
    for key, value in seed_values(params, 3).items():
        section: Any = params
        for part in key.split("."):
            section = section[part]
        assert section == value, key


def test_arms_are_the_profiles_or_a_dataset_trained_like_the_first() -> None:
    params = chosen_params(ROOT / "params.yaml", "filtered,control", ("train.weight_decay=0.1",))
    assert list(params["arms"]) == ["filtered", "control"]
    first = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["arms"]["unfiltered"]
    assert params["arms"]["control"] == first | {"dataset": "control"}
    assert params["compare"]["pairs"] == [["filtered", "base"], ["control", "base"], ["filtered", "control"]]
    assert params["train"]["weight_decay"] == 0.1
    with pytest.raises(SeedsError, match=r"no arm and no dataset 'controll'\. It has unfiltered, filtered, unfiltered"):
        chosen_params(ROOT / "params.yaml", "controll", ())


def test_an_on_policy_arm_brings_the_arms_that_it_starts_from_and_learns_from(project_params: Params) -> None:
    longer = {"dataset": "filtered", "num_train_epochs": 4.0, "max_steps": None, "learning_rate": 0.001}
    taught = ON_POLICY | {"teacher": {"source": "longer", "worked_examples": 0}}
    nearer = ON_POLICY | {"teacher": {"source": "big", "worked_examples": 0}}
    path = project_params(
        {
            "arms.longer": longer | {"cutoff_len": 512, "alpha": 0.0},
            "on_policy": {"polished": taught, "nearer": nearer},
            "teachers": {"big": {"kind": "path", "name": "somewhere"}},
        }
    )
    params = chosen_params(path, "polished", ())
    assert (list(params["arms"]), list(params["on_policy"])) == (["filtered", "longer"], ["polished"])
    assert params["teachers"] == {}
    against_base = [["filtered", "base"], ["longer", "base"], ["polished", "base"]]
    assert params["compare"]["pairs"] == [*against_base, ["polished", "filtered"]]
    params = chosen_params(path, "control,nearer", ())
    assert (list(params["arms"]), list(params["teachers"])) == (["filtered", "control"], ["big"])
    assert list(chosen_params(path, "", ())["on_policy"]) == ["polished", "nearer"], "all arms are the default"


def test_a_setting_may_add_an_arm_and_the_pairs_to_compare() -> None:
    arm = ON_POLICY | {"start_from": "unfiltered", "teacher": {"source": "filtered", "worked_examples": 0}}
    pairs = "compare.pairs=[[polished, unfiltered], [polished, filtered], [control, base]]"
    params = chosen_params(ROOT / "params.yaml", "polished", (f"on_policy.polished={json.dumps(arm)}", pairs))
    assert params["compare"]["pairs"] == [["polished", "unfiltered"], ["polished", "filtered"]]


def test_equal_steps_add_an_arm_for_each_that_has_others(tmp_path: Path) -> None:
    params = chosen_params(ROOT / "params.yaml", "unfiltered,filtered,control", ())
    (tmp_path / "metrics" / "train").mkdir(parents=True)
    for arm, steps in (("unfiltered", 46), ("filtered", 30), ("control", 46)):
        (tmp_path / "metrics" / "train" / f"{arm}.json").write_text(json.dumps({"steps": steps}))
    add_equal_arms(tmp_path, params, "unfiltered")
    assert list(params["arms"]) == ["unfiltered", "filtered", "control", "filtered-equal-steps"]
    assert params["arms"]["filtered-equal-steps"] == params["arms"]["filtered"] | {"max_steps": 46}
    assert params["compare"]["pairs"][-1] == ["filtered-equal-steps", "unfiltered"]


def run(seed: str, base: str, filtered: str, heldout: bytes, params: Path) -> Run:
    def answers(right: str) -> dict[str, Answers]:
        return {"heldout": {f"q{n}": Answer(each == "1", f"q{n}") for n, each in enumerate(right)}}

    found = {"base": answers(base), "filtered": answers(filtered)}
    hashes = {"base": f"hash {base}", "filtered": f"hash {filtered}"}
    curve = [0.2 * int(seed.replace("own", "4")), 0.3, 0.2, 0.1, 0.06]
    return Run(seed, load_params(params), found, hashes, heldout, {"filtered": curve})


def test_each_seed_is_one_observation_and_each_question_another(project_params: Params) -> None:
    path = project_params({"compare.pairs": [["filtered", "base"]]})
    rights = (("3", "1000", "1100"), ("own", "1000", "1110"), ("5", "0000", "1000"))
    runs = [run(seed, base, filtered, seed.encode(), path) for seed, base, filtered in rights]
    found = summary(runs, "own", ["train.seed"])
    assert (found.seeds, found.questions) == (["3", "own", "5"], {"heldout": "drawn again"})
    assert found.own == {"base": "hash 1000", "filtered": "hash 1110"}
    assert found.differences == {"filtered_vs_base": {"heldout": [0.25, 0.5, 0.25]}}
    assert found.scores["filtered"] == {"heldout": [0.5, 0.75, 0.25]}
    error = found.errors["filtered_vs_base"]["heldout"]
    over = over_trainings([0.25, 0.5, 0.25], 0.95, error)
    assert over.spread == "questions" and over.low == pytest.approx(-0.604, abs=0.001), (
        "compare writes the same interval"
    )
    table = markdown(runs)
    assert "| heldout | filtered | 50.0 | 75.0 | 25.0 | **50.0** |" in table
    # the seeds lie closer together than four questions each can tell apart: the interval is that of the questions
    assert "| filtered − base | heldout | +25.0 | +50.0 | +25.0 | **+33.3** | ≥ −60.4 – +100.0 |" in table
    assert "| 12 |\n" in table, "twelve questions"
    assert found.divergence["filtered"][1] == [0.8, 0.3, 0.2, 0.1, 0.06]
    assert table.endswith("| filtered | 0.600 → 0.060 | 0.800 → 0.060 | 1.000 → 0.060 |"), "a quarter of the steps"
    same = [run(seed, base, filtered, b"", path) for seed, base, filtered in rights]
    assert summary(same, "own", []).questions == {"heldout": "the same"}
    assert summary(same, "own", []).errors == {"filtered_vs_base": {"heldout": 0.0}}
    assert markdown(same) != table, "four questions, each asked of three trainings, are four clusters"


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_three_seeds_run_what_they_change_and_compare_shows_the_interval(workspace: Workspace) -> None:
    """The workspace's own seed, 3, is in DVC's cache already."""
    done = workspace.try_to_run("make", "-o", ".venv/ready", "seeds", "ARMS=filtered")
    assert done.returncode == 0, done.stdout + done.stderr
    by_seed = {
        part.splitlines()[0].split(":")[0]: stages_in(part) for part in (done.stdout + done.stderr).split("seeds: ")[1:]
    }
    assert "| paired difference | benchmark | seed 3 | seed 4 | seed 5 | all | over trainings |" in done.stdout
    seeds = json.loads((workspace.folder / "metrics" / "seeds.json").read_text())
    assert seeds["seeds"] == ["3", "4", "5"]
    assert seeds["questions"] == {"heldout": "drawn again"}
    assert len(seeds["differences"]["filtered_vs_base"]["heldout"]) == 3
    folders = [workspace.folder / ".cache" / "seeds" / seed for seed in ("3", "4", "5")]
    assert {folder.name for folder in folders} == {"3", "4", "5"} and by_seed.keys() <= {"3", "4", "5"}
    assert len({(folder / "models/filtered/model.safetensors").read_bytes() for folder in folders}) == 3
    model = "models/filtered/model.safetensors"
    assert (folders[0] / model).read_bytes() == (workspace.folder / model).read_bytes()
    assert workspace.repro("compare") == {"compare"}
    found = json.loads((workspace.folder / "metrics" / "compare.json").read_text())["pairs"]["filtered_vs_base"]
    trainings = found["benchmarks"]["heldout"]["trainings"]
    assert trainings["differences"] == seeds["differences"]["filtered_vs_base"]["heldout"]
    assert trainings["low"] <= trainings["mean"] <= trainings["high"]
    assert "over trainings" in workspace.make("compare")
    again = workspace.run("make", "-o", ".venv/ready", "seeds", "ARMS=filtered")
    assert stages_in(again) == set(), "what is finished is not run again"
