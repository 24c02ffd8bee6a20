"""An on-policy arm: the student answers, a teacher of the same vocabulary scores its tokens. Tiny models, for real."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from stages.lib.params import OnPolicyArm, load_params
from stages.lib.token_teacher import teacher_identity
from stages.lib.trainers.on_policy import check_teacher, prompt_order
from stages.lib.trainers.on_policy.vocabulary import fit_to_student, rows_of_output
from stages.lib.trainers.on_policy.worked import with_examples
from stages.lib.training import Conversation, Job, TrainingError
from stages.lib.why.pipeline import followers, read_pipeline
from stages.train import main as train
from tests.trainings import ON_POLICY, SYSTEM, sums, write_sharegpt
from tests.workspace import ROOT

SHARED: dict[str, Any] = {"train.per_device_train_batch_size": 2, "train.gradient_accumulation_steps": 2}
SHARED |= {"on_policy": {"polished": ON_POLICY}}

Params = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.fixture(scope="session")
def tiny_teacher(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student with other random weights, and an output layer that is padded to 640 rows."""
    from transformers import AutoModelForCausalLM, Qwen2ForCausalLM, set_seed

    folder = tmp_path_factory.mktemp("teacher") / "longer"
    shutil.copytree(tiny_student, folder)
    config = AutoModelForCausalLM.from_pretrained(tiny_student).config
    config.vocab_size = 640
    set_seed(1)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def options(tmp_path: Path, start: Path, teacher: Path, params: Path, name: str = "model") -> list[str]:
    dataset = tmp_path / "sums"
    if not dataset.exists():
        write_sharegpt(dataset, sums(10))
    paths = {"dataset": dataset, "start-from": start, "teacher": teacher, "model": tmp_path / name, "params": params}
    paths |= {"metrics": tmp_path / f"{name}.json", "loss": tmp_path / f"{name}.csv"}
    paths |= {"left-out": tmp_path / f"{name}.left_out.jsonl"}
    return ["--arm", "polished", *(text for key, path in paths.items() for text in (f"--{key}", str(path)))]


@pytest.mark.heavy
def test_the_student_comes_nearer_to_its_teacher_and_all_tokens_are_counted(
    tmp_path: Path, tiny_student: Path, tiny_teacher: Path, tiny_params: Params, runs: Callable[..., Result]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arm = ON_POLICY | {"max_steps": 40}
    changes = SHARED | {"on_policy": {"polished": arm}, "train.finetuning": {"kind": "full"}}
    params = tiny_params(changes | {"run.report_to": ["tensorboard"]})
    runs(train, *options(tmp_path, tiny_student, tiny_teacher, params))
    seen = json.loads((tmp_path / "model.json").read_bytes())
    found = seen["on_policy"]
    assert (seen["in"], seen["rows"], seen["steps"], seen["effective_batch"], seen["epochs"]) == (10, 10, 40, 4, 16.0)
    assert seen["start_from"] == tiny_student.name
    assert seen["teacher"] == teacher_identity(tiny_teacher)
    assert found["prompts"] == 160
    assert found["tokens_rolled_out"] == found["tokens_scored"] == seen["tokens_trained"] <= 160 * 12
    assert found["tokens_prompted"] + found["tokens_rolled_out"] == seen["tokens_seen"] == found["tokens_of_teacher"]
    assert 0 < found["share_cut_off"] <= 1
    assert found["tokens_rolled_out"] >= 160 * 12 * found["share_cut_off"] - 0.01
    with (tmp_path / "model.csv").open() as file:
        curve = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(curve) == 40
    assert min(curve) >= 0
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5]), curve
    (folder,) = (tmp_path / ".cache" / "trackers" / "tensorboard" / "polished").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(curve, abs=1e-4)
    assert len(events.Scalars("train/completions/mean_length")) == 40
    assert rows_of_output(tmp_path / "model") == rows_of_output(tiny_student), "padded as it was published"


@pytest.mark.heavy
def test_an_interrupted_one_resumes_with_the_same_prompts_and_ends_with_the_same_bytes(
    tmp_path: Path,
    tiny_student: Path,
    tiny_teacher: Path,
    tiny_params: Params,
    runs: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import Trainer

    arm = ON_POLICY | {"teacher": {"source": "filtered", "worked_examples": 2}}
    params = tiny_params(SHARED | {"on_policy": {"polished": arm}, "run.checkpoint_steps": 2})
    runs(train, *options(tmp_path, tiny_student, tiny_teacher, params, "undisturbed"))
    save = Trainer._save_checkpoint

    def dies_after_it(self: Any, *arguments: Any) -> None:
        save(self, *arguments)
        if self.state.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", dies_after_it)
        CliRunner().invoke(train, options(tmp_path, tiny_student, tiny_teacher, params))
    assert not (tmp_path / "model").exists()
    runs(train, *options(tmp_path, tiny_student, tiny_teacher, params))
    for path in (tmp_path / "undisturbed").iterdir():
        assert path.read_bytes() == (tmp_path / "model" / path.name).read_bytes(), path.name
    for suffix in ("json", "csv"):
        assert (tmp_path / f"model.{suffix}").read_bytes() == (tmp_path / f"undisturbed.{suffix}").read_bytes()
    found = json.loads((tmp_path / "model.json").read_bytes())
    assert found["on_policy"]["tokens_of_teacher"] > found["tokens_seen"], "it saw the worked examples too"


def job_of(tmp_path: Path, student: Path, teacher: Path, params: Path, rows: list[Conversation]) -> Job:
    read = load_params(params)
    arm, markers = read.on_policy["polished"], read.convert.markers
    return Job(
        "polished", rows, student, read.train, arm, read.run, markers, tmp_path / "model", teacher, rows=tmp_path
    )


def test_a_teacher_of_another_vocabulary_is_refused_before_any_weights_are_read(
    tmp_path: Path, tiny_student: Path, tiny_teacher: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    other = Path(shutil.copytree(tiny_teacher, tmp_path / "other"))
    content = json.loads((other / "tokenizer.json").read_text())
    names = {number: name for name, number in content["model"]["vocab"].items()}
    content["model"]["vocab"] |= {names[10]: 20, names[20]: 10}
    (other / "tokenizer.json").write_text(json.dumps(content))
    (other / "model.safetensors").write_bytes(b"no weights")
    line = refuses(train, *options(tmp_path, tiny_student, other, tiny_params(SHARED)))
    assert f"tokens differ, the first is 10: {names[20]!r} instead of {names[10]!r}." in line


def test_a_smaller_output_layer_is_refused_and_a_larger_one_is_cut(
    tmp_path: Path, tiny_student: Path, tiny_teacher: Path, tiny_params: Params
) -> None:
    from transformers import AutoModelForCausalLM

    params, rows = tiny_params(SHARED), sums(2)
    check_teacher(job_of(tmp_path, tiny_student, tiny_teacher, params, rows))
    with pytest.raises(TrainingError, match=r"has \d+ rows, the student's .* 640\. The tokens are the same"):
        check_teacher(job_of(tmp_path, tiny_teacher, tiny_student, params, rows))
    student, teacher = (AutoModelForCausalLM.from_pretrained(each) for each in (tiny_student, tiny_teacher))
    before = teacher.get_output_embeddings().weight.detach().clone()
    fit_to_student(teacher, student)
    after = teacher.get_output_embeddings().weight
    assert len(after) == rows_of_output(tiny_student)
    assert after.equal(before[: len(after)])


def test_each_round_has_every_prompt_once() -> None:
    order = prompt_order(5, 12, seed=3)
    assert (sorted(order[:5]), sorted(order[5:10]), len(order)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], 12)
    assert order[:5] != order[5:10]
    assert order == prompt_order(5, 12, seed=3) != prompt_order(5, 12, seed=4)


def test_worked_examples_are_other_questions_with_their_answers() -> None:
    rows = sums(4)
    examples = {row.user: row for row in rows}
    for row in rows:
        turns = with_examples(row, examples, 3, f"3/{row.user}")
        assert turns[0] == {"role": "system", "content": SYSTEM}
        assert turns[-1] == {"role": "user", "content": row.user}
        shown = [(one["content"], two["content"]) for one, two in zip(turns[1:-1:2], turns[2:-1:2], strict=True)]
        assert sorted(shown) == sorted((each.user, each.assistant) for each in rows if each.user != row.user)


def test_it_trains_with_both_folders_or_not_at_all(
    tmp_path: Path, tiny_student: Path, tiny_teacher: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    words = options(tmp_path, tiny_student, tiny_teacher, tiny_params(SHARED))
    words[words.index("polished")] = "filtered"
    assert "--start-from and --teacher are for arms of on_policy" in refuses(train, *words)


def test_its_settings_are_those_of_params(tiny_params: Params) -> None:
    arm = load_params(tiny_params(SHARED)).trained_arms["polished"]
    assert isinstance(arm, OnPolicyArm)
    assert arm.model_dump() == ON_POLICY


def test_the_arms_that_it_starts_from_and_learns_from_come_first() -> None:
    arms = {"polished": ON_POLICY, "nearer": ON_POLICY | {"teacher": {"source": "big", "worked_examples": 0}}}
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params |= {"on_policy": arms, "teachers": {"big": {"kind": "path", "name": "somewhere"}}}
    pipeline = read_pipeline(ROOT / "dvc.yaml", params)
    after = {name: followers({name}, pipeline) for name in ("train@filtered", "train@unfiltered", "teachers@big")}
    trained = {name: {each for each in found if each.startswith("train")} for name, found in after.items()}
    assert trained == {
        "train@filtered": {"train-on-policy@polished", "train-on-policy@nearer"},
        "train@unfiltered": {"train-on-policy@polished"},
        "teachers@big": {"train-on-policy@nearer"},
    }
    assert {"evaluate-on-policy@nearer", "compare", "report"} <= set(after["teachers@big"])
