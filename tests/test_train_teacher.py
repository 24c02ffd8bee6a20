"""The loss of arms with alpha: its value, its places in each kind of batch, and what it makes of a student."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from stages.lib.logprobs.scores import Targets, check_origin, uncompressed
from stages.lib.params import load_params
from stages.lib.rows import DataError
from stages.lib.tokens.tokenizer import aligned_tokenizer
from stages.lib.trainers.trl import _config, _trainer
from stages.lib.trainers.trl.teacher import FIELDS, follow_teacher, kl_with_rest, mixed_loss
from stages.lib.training import Job
from stages.lib.training.checkpoints import digest
from stages.score import main as score
from stages.train import main as train
from tests.test_train_batches import uneven
from tests.trainings import job_of, stored, write_sharegpt

Params = Callable[..., Path]
Runs = Callable[..., Result]
Refuses = Callable[..., str]
ROWS = uneven(10)


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def scored(tmp_path: Path, params: Path) -> Path:
    """The probabilities of the rows, in a file."""
    if not (tmp_path / "sums").exists():
        write_sharegpt(tmp_path / "sums", ROWS)
    files = {"dataset": tmp_path / "sums", "logprobs": tmp_path / "none", "scores": tmp_path / "scores.parquet"}
    files |= {"metrics": tmp_path / "scores.json", "params": params}
    options = ["--arm", "filtered", *(str(each) for name, path in files.items() for each in (f"--{name}", path))]
    score.main(options, standalone_mode=False)
    return tmp_path / "scores.parquet"


@pytest.fixture
def with_teacher(tiny_params: Params, tiny_teacher: Path) -> Callable[..., Path]:
    """``with_teacher(1.0, {…})``: params of an arm with that alpha."""

    def write(alpha: float, changes: dict[str, Any] | None = None) -> Path:
        teacher = {"score.kind": "teacher", "score.teacher": {"kind": "path", "name": str(tiny_teacher)}}
        return tiny_params(
            teacher | {"arms.filtered.alpha": alpha, "train.gradient_accumulation_steps": 2} | (changes or {})
        )

    return write


def log_softmax(values: Any) -> Any:
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def kl_by_hand(teacher: Any, student: Any, ids: list[int]) -> float:
    """Of two whole distributions, with all tokens but these in one bucket."""
    one, other = np.exp(teacher), np.exp(student)
    pairs = [(one[each], other[each]) for each in ids]
    pairs.append((1 - sum(left for left, _ in pairs), 1 - sum(right for _, right in pairs)))
    return float(sum(left * np.log(left / right) for left, right in pairs))


def test_the_divergence_is_that_of_the_likeliest_tokens_and_the_rest() -> None:
    import torch

    chance = np.random.default_rng(3)
    teacher, student = (log_softmax(3 * chance.normal(size=(6, 50))) for _ in range(2))
    ids = np.argsort(-teacher, axis=-1)[:, :4]
    ids[2, 3] = ids[5, 1:] = -1  # fewer are known there
    ids[5, 1:] = -1
    known = ids >= 0
    top = np.where(known, np.take_along_axis(teacher, np.maximum(ids, 0), -1), -np.inf)
    own = np.take_along_axis(student, np.maximum(ids, 0), -1)
    found = kl_with_rest(torch.tensor(top), torch.tensor(own), torch.tensor(known))
    expected = [kl_by_hand(teacher[row], student[row], ids[row][known[row]].tolist()) for row in range(6)]
    assert np.allclose(found.numpy(), expected, rtol=1e-5)
    assert (found > 0).all()
    same = kl_with_rest(torch.tensor(top), torch.tensor(top).clamp(min=-99), torch.tensor(known))
    assert np.allclose(same.numpy(), 0, atol=1e-6)


def test_the_bucket_of_the_rest_is_that_of_trl() -> None:
    import torch
    from trl.experimental.sdpo.loss_utils import add_tail_bucket

    top, own = (
        torch.tensor(3 * np.random.default_rng(seed).normal(size=(5, 40))).log_softmax(-1)[:, :4] for seed in (1, 2)
    )
    one, other = add_tail_bucket(top), add_tail_bucket(own)
    expected = torch.nn.functional.kl_div(other, one, reduction="none", log_target=True).sum(-1)
    found = kl_with_rest(top, own, torch.ones_like(top, dtype=torch.bool))
    assert torch.allclose(found, expected)


def test_a_teacher_that_is_certain_gives_a_finite_loss_and_gradient() -> None:
    import torch

    logits = torch.zeros(1, 3, 5, requires_grad=True)
    targets = {FIELDS[0]: torch.tensor([1, 2]), FIELDS[1]: torch.tensor([[1, 2], [3, -1]])}
    targets[FIELDS[2]] = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    loss, _ = mixed_loss(logits, torch.tensor([[-100, 1, 3]]), targets, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2 * np.log(5), abs=1e-4)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_mixes_entropy_and_divergence_where_there_are_targets(alpha: float) -> None:
    """Two rows, the second padded; the last trained token has no target and has cross-entropy alone."""
    import torch

    chance = np.random.default_rng(5)
    logits = chance.normal(size=(2, 4, 9))
    labels = np.array([[-100, 3, 1, 8], [-100, -100, 2, -100]])
    student, teacher = log_softmax(logits), log_softmax(chance.normal(size=(3, 9)))
    places, ids = [1, 2, 6], [[3, 4], [1, 0], [2, 5]]
    expected = -student[0, 2, 8]
    for number, (place, top) in enumerate(zip(places, ids, strict=True)):
        before = student.reshape(-1, 9)[place - 1]
        entropy = -before[labels.reshape(-1)[place]]
        expected += (1 - alpha) * entropy + alpha * kl_by_hand(teacher[number], before, top)
    values = torch.tensor(np.take_along_axis(teacher, np.array(ids), -1))
    targets = dict(zip(FIELDS, (torch.tensor(places), torch.tensor(ids), values), strict=True))
    found, tokens = mixed_loss(torch.tensor(logits), torch.tensor(labels), targets, alpha)
    assert tokens == 4
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("way", [{}, {"train.trainer.packing": True}], ids=["padded", "packed"])
def test_each_batch_has_the_targets_of_its_rows(
    tmp_path: Path, with_teacher: Params, tiny_student: Path, tiny_teacher: Path, way: dict[str, Any]
) -> None:
    """With the teacher's weights as the student, the divergence is zero at every place, whatever the batch."""
    import torch
    from transformers import AutoModelForCausalLM

    path = with_teacher(1.0, way)
    params = load_params(path)
    uncompressed(scored(tmp_path, path), tmp_path / "targets")
    arm, markers = params.arms["filtered"], params.convert.markers
    job = Job("filtered", ROWS, tiny_student, params.train, arm, params.run, markers, tmp_path / "model", rows=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    config = _config(job, str(tmp_path / "scratch"))
    trainer = _trainer(stored(job, tmp_path / "rows"), model, aligned_tokenizer(job), config)
    follow_teacher(trainer, Targets(tmp_path / "targets"), 1.0)
    rows, seen = [dict(row) for row in trainer.train_dataset], 0
    assert (len(rows) < len(ROWS)) == bool(way)
    for start in range(0, len(rows), 3):
        batch = trainer.data_collator(rows[start : start + 3])
        seen += len(batch[FIELDS[0]])
        assert batch[FIELDS[0]].tolist() == (batch["labels"].reshape(-1) != -100).nonzero().squeeze(-1).tolist()
        assert abs(trainer.compute_loss(trainer.model, batch).item()) < 1e-5
    assert seen == json.loads((tmp_path / "scores.json").read_bytes())["tokens_trained"]


def options(tmp_path: Path, params: Path, name: str, scores: Path | None) -> list[object]:
    files = {"dataset": tmp_path / "sums", "model": tmp_path / name, "metrics": tmp_path / f"{name}.json"}
    files |= {"left-out": tmp_path / f"{name}.left_out.jsonl", "loss": tmp_path / f"{name}.csv", "params": params}
    files |= {"scores": scores} if scores else {}
    return ["--arm", "filtered", *(each for option, path in files.items() for each in (f"--{option}", path))]


def losses(tmp_path: Path, name: str) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader((tmp_path / f"{name}.csv").open())]


FULL = {"train.finetuning.kind": "full", "arms.filtered.num_train_epochs": 40.0, "arms.filtered.learning_rate": 0.005}


@pytest.mark.heavy
def test_with_alpha_one_the_student_becomes_its_teacher(tmp_path: Path, with_teacher: Params, runs: Runs) -> None:
    """The divergence falls below a third of what it was; every trained token had a target."""
    params = with_teacher(1.0, FULL)
    runs(train, *options(tmp_path, params, "model", scored(tmp_path, params)))
    points = losses(tmp_path, "model")
    assert points[-1] < 0.35 * points[0]
    metrics = json.loads((tmp_path / "model.json").read_bytes())
    assert metrics["tokens_with_teacher"] == metrics["tokens_trained"] > 0


@pytest.mark.heavy
def test_two_processes_have_the_loss_of_one(tmp_path: Path, with_teacher: Params, runs: Runs) -> None:
    for processes, name in ((1, "one"), (2, "two")):
        params = with_teacher(0.5, {"run.processes": processes, "train.trainer.group_by_length": True})
        runs(train, *options(tmp_path, params, name, scored(tmp_path, params)))
    assert losses(tmp_path, "one") == pytest.approx(losses(tmp_path, "two"), abs=2e-4)


def test_probabilities_are_missing_or_empty(tmp_path: Path, with_teacher: Params, refuses: Refuses) -> None:
    params = with_teacher(0.5)
    empty = scored(tmp_path, with_teacher(0.0))
    params = with_teacher(0.5)
    assert "Name the one of 'score' with --scores." in refuses(train, *options(tmp_path, params, "model", None))
    said = refuses(train, *options(tmp_path, params, "model", tmp_path / "nowhere"))
    assert said.startswith(f"{tmp_path / 'nowhere'}: not a file of probabilities")
    said = refuses(train, *options(tmp_path, params, "model", empty))
    assert said.startswith("arms.filtered.alpha: no token of its rows has the teacher's probabilities.")


def test_probabilities_of_another_teacher_or_vocabulary_are_refused(
    tmp_path: Path, with_teacher: Params, tiny_student: Path, refuses: Refuses
) -> None:
    scores = scored(tmp_path, with_teacher(0.5))
    other = with_teacher(0.5, {"score.teacher": {"kind": "path", "name": str(tiny_student)}})
    said = refuses(train, *options(tmp_path, other, "model", scores))
    assert said.startswith(f"{scores}: scored with teacher ")
    assert said.endswith(f"and params.yaml has {tiny_student!s:.60}. Run 'dvc repro score@filtered'.")
    params = load_params(with_teacher(0.5))
    with pytest.raises(DataError, match=r"scored with vocabulary [0-9a-f]+, and params\.yaml has another\."):
        check_origin(scores, "filtered", params.score, "another")


def test_a_checkpoint_is_only_that_of_the_same_alpha_and_probabilities(tmp_path: Path, with_teacher: Params) -> None:
    found, scores = [], tmp_path / "scores"
    for alpha, content in ((0.0, b"1"), (0.0, b"2"), (0.5, b"2"), (0.5, b"1"), (0.6, b"1")):
        scores.write_bytes(content)
        found.append(digest(replace(job_of(with_teacher(alpha), tmp_path / "model", ROWS), scores=scores), ROWS))
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_the_hash_of_a_training_takes_no_memory_for_its_probabilities(tmp_path: Path, with_teacher: Params) -> None:
    scores = tmp_path / "scores"
    job = replace(job_of(with_teacher(0.5), tmp_path / "model", ROWS), scores=scores)
    scores.write_bytes(b"1")
    digest(job, ROWS)  # what it imports is there now
    scores.write_bytes(bytes(50_000_000))
    tracemalloc.start()
    digest(job, ROWS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
