"""The teacher's probabilities: from a loaded teacher, from a server, and from the answers themselves."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from stages.lib.logprobs import Scored
from stages.lib.logprobs.cache import open_cache
from stages.lib.logprobs.scores import Targets, hash_of, uncompressed
from stages.lib.teacher.failures import TeacherError
from stages.score import Planned, read_missing
from stages.score import main as score
from tests.trainings import sums, write_sharegpt

Params = Callable[..., Path]
Runs = Callable[..., Result]
Refuses = Callable[..., str]
LOCAL = {"score.kind": "teacher", "score.top_k": 5, "arms.filtered.alpha": 0.5}


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def arguments(tmp_path: Path, params: Path, logprobs: Path | None = None) -> list[object]:
    if not (dataset := tmp_path / "sums").exists():
        write_sharegpt(dataset, sums(6))
    files = {"dataset": dataset, "logprobs": logprobs or tmp_path / "none.parquet", "scores": tmp_path / "s.parquet"}
    files |= {"metrics": tmp_path / "s.json", "params": params}
    return ["--arm", "filtered", *(each for name, path in files.items() for each in (f"--{name}", path))]


def local(teacher: Path, **changes: Any) -> dict[str, Any]:
    return LOCAL | {"score.teacher": {"kind": "path", "name": str(teacher)}} | changes


def written(tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return pq.read_table(tmp_path / "s.parquet").to_pylist(), json.loads((tmp_path / "s.json").read_bytes())


@pytest.mark.parametrize("changes", [{}, {"score.kind": "teacher", "score.top_k": 5}], ids=["null", "alpha 0"])
def test_nobody_is_asked_where_no_arm_needs_it(
    tmp_path: Path, tiny_params: Params, tiny_student: Path, runs: Runs, changes: dict[str, Any]
) -> None:
    named = {"score.teacher": {"kind": "path", "name": "nowhere"}} if changes else {}
    runs(score, *arguments(tmp_path, tiny_params(changes | named)))
    rows, metrics = written(tmp_path)
    assert rows == []
    assert (metrics["in"], metrics["tokens"], metrics["mass"]) == (0, 0, None)
    assert not (tmp_path / "data").exists()


def test_a_teacher_reads_the_tokens_of_the_training(
    tmp_path: Path, tiny_params: Params, tiny_student: Path, tiny_teacher: Path, runs: Runs
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    runs(score, *arguments(tmp_path, tiny_params(local(tiny_teacher))))
    rows, metrics = written(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_student), AutoModelForCausalLM.from_pretrained(tiny_teacher)
    for row, conversation in zip(rows, sums(6), strict=True):
        ids = tokenizer(tokenizer.apply_chat_template(conversation.messages(), tokenize=False))["input_ids"]
        prompt = tokenizer.apply_chat_template(conversation.messages()[:-1], tokenize=False, add_generation_prompt=True)
        begin = len(tokenizer(prompt)["input_ids"])
        assert (row["tokens_hash"], row["reason"]) == (hash_of(ids), None)
        assert row["positions"] == list(range(begin, len(ids)))
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, begin - 1 : -1].log_softmax(-1).topk(5)
        assert row["top_ids"] == expected.indices.tolist()
        assert np.allclose(row["top_logprobs"], expected.values.numpy(), atol=1e-5)
    tokens = sum(len(row["positions"]) for row in rows)
    assert (metrics["in"], metrics["rows"], metrics["tokens"], metrics["tokens_trained"]) == (6, 6, tokens, tokens)
    assert 0.1 < metrics["mass"] < 1
    assert set(metrics["unscored"].values()) == {0}


def test_rows_over_cutoff_len_are_not_scored(
    tmp_path: Path, tiny_params: Params, tiny_teacher: Path, runs: Runs
) -> None:
    from tests.trainings import rows_of_which_one_is_too_long

    write_sharegpt(tmp_path / "sums", rows_of_which_one_is_too_long())
    runs(score, *arguments(tmp_path, tiny_params(local(tiny_teacher))))
    assert len(written(tmp_path)[0]) == 9


def test_what_was_read_is_not_read_again(
    tmp_path: Path, tiny_params: Params, tiny_teacher: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another arm, or a stage that was killed, takes it from the cache: no teacher is loaded."""
    params = tiny_params(local(tiny_teacher))
    runs(score, *arguments(tmp_path, params))
    before = (tmp_path / "s.parquet").read_bytes()
    (tmp_path / "s.parquet").unlink()
    monkeypatch.setattr("stages.score.LocalScorer", None)
    runs(score, *arguments(tmp_path, params))
    assert (tmp_path / "s.parquet").read_bytes() == before
    assert (tmp_path / "data" / "store" / "scores.sqlite").is_file()


def some_scores(ids: list[int], places: list[int]) -> Scored:
    return Scored(np.array(places, "<i4"), np.array([ids[:1]], "<i4"), np.array([[-0.5]], "<f4"))


def test_a_row_is_kept_while_the_teacher_has_others_to_read(tmp_path: Path) -> None:
    """So a kill loses what is in flight alone: also between rows that an earlier run kept."""
    with open_cache(tmp_path / "scores.sqlite", {}) as cache:
        cache.put([2, 2], [1], some_scores([2, 2], [1]))

        def rows() -> Iterator[Planned]:
            yield [1, 1], [1]
            deadline = time.monotonic() + 10
            while not cache.has([1, 1], [1]):
                assert time.monotonic() < deadline, "the first row is not kept"
                yield [2, 2], [1]

        read_missing(rows(), 0, some_scores, 4, cache)


def test_at_an_error_all_that_was_asked_is_kept(tmp_path: Path) -> None:
    """One row is there, one fails, one is in flight; those after it are not asked."""
    asked, failed = [], threading.Event()
    both = threading.Barrier(2)

    def scores(ids: list[int], places: list[int]) -> Scored:
        asked.append(ids[0])
        if ids[0] == 1:
            both.wait(10)
            failed.set()
            raise TeacherError("it is not there.")
        if ids[0] == 2:
            both.wait(10)
            failed.wait(10)
            time.sleep(0.3)  # the error is noticed while this row is in flight
        return some_scores(ids, places)

    with open_cache(tmp_path / "scores.sqlite", {}) as cache:
        with pytest.raises(TeacherError, match="it is not there"):
            read_missing((([each, 5], [1]) for each in range(50)), 100, scores, 2, cache)
        kept = [each for each in range(50) if cache.has([each, 5], [1])]
        assert 1 not in kept
        assert {0, 2} <= set(kept)
        assert {1, *kept} == set(asked)
        assert len(asked) < 10


def test_a_teacher_with_other_tokens_is_refused_before_it_is_loaded(
    tmp_path: Path, tiny_params: Params, tiny_student: Path, refuses: Refuses
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(tmp_path / "teacher")
    (tmp_path / "teacher" / "config.json").write_text("{}")
    said = refuses(score, *arguments(tmp_path, tiny_params(local(tmp_path / "teacher"))))
    assert "its vocabulary is not the student's" in said
    assert "'<think>' instead of 'none'" in said


def test_the_trainer_finds_a_row_by_its_tokens(
    tmp_path: Path, tiny_params: Params, tiny_student: Path, tiny_teacher: Path, runs: Runs
) -> None:
    from transformers import AutoTokenizer

    runs(score, *arguments(tmp_path, tiny_params(local(tiny_teacher))))
    rows, _ = written(tmp_path)
    uncompressed(tmp_path / "s.parquet", tmp_path / "targets")
    targets = Targets(tmp_path / "targets")
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    for row, conversation in list(zip(rows, sums(6), strict=True))[::-1]:
        ids = tokenizer(tokenizer.apply_chat_template(conversation.messages(), tokenize=False))["input_ids"]
        found = targets.of(ids)
        assert found.positions.tolist() == row["positions"]
        assert found.ids.tolist() == row["top_ids"]
        assert np.array_equal(found.logprobs, np.array(row["top_logprobs"], np.float32))
    assert targets.of([1, 2, 3]).ids.shape == (0, 5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"arms.filtered.alpha": 0.5}, "arms.filtered.alpha: it needs the teacher's probabilities, and score is null."),
        ({"score.kind": "answers"}, "score: kind answers reads what distill.logprobs asks for, which is null."),
        ({"distill.logprobs": 5}, "logprobs: the embedded teacher has no probabilities."),
        (LOCAL | {"train.trainer.kind": "llamafactory"}, "arms.filtered.alpha: kind llamafactory has no such loss"),
        (
            {
                "distill.logprobs": 5,
                "distill.teacher.kind": "openai_compatible",
                "distill.teacher.extra_body": {"top_logprobs": 3},
            },
            "teacher.extra_body contains 'top_logprobs', which logprobs sets.",
        ),
    ],
)
def test_params_that_contradict_each_other_are_refused(
    tmp_path: Path, tiny_params: Params, refuses: Refuses, changes: dict[str, Any], expected: str
) -> None:
    teacher = {"score.teacher": {"kind": "path", "name": "t"}} if changes.get("score.kind") == "teacher" else {}
    assert expected in refuses(score, *arguments(tmp_path, tiny_params(changes | teacher)))
