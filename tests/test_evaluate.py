"""Evaluation: lm-eval's own scores and hashes, the prompt of the training, what is counted and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.evaluate import main as evaluate
from stages.lib.params import prompt_text
from stages.lib.rows import read_rows, write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question

Params = Callable[..., Path]
Runs = Callable[..., Result]
SHORT = {"evaluate.max_gen_toks": 12, "evaluate.backend.batch_size": 4}


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.jsonl"
    write_rows(path, [Question(id=f"sum-{n}", question=f"What is {n} + 5?", answer=str(n + 5)) for n in range(6)])
    return path


def options(tmp_path: Path, heldout: Path, params: Path, *model: object, arm: str = "base") -> list[object]:
    outputs = {"metrics": ".json", "scores": ".scores.csv", "answers": ".jsonl", "examples": ".examples.jsonl"}
    paths = [word for name, file in outputs.items() for word in (f"--{name}", tmp_path / f"{arm}{file}")]
    return ["--arm", arm, *model, "--heldout", heldout, *paths, "--params", params]


def answers(tmp_path: Path, arm: str = "base") -> list[Evaluated]:
    return list(read_rows(tmp_path / f"{arm}.jsonl", Evaluated, ""))


def test_scores_metrics_and_texts_agree_and_carry_the_harness_hashes(
    tmp_path: Path, heldout: Path, tiny_params: Params, runs: Runs
) -> None:
    from lm_eval.utils import hash_string

    runs(evaluate, *options(tmp_path, heldout, tiny_params(SHORT)))
    rows = answers(tmp_path)
    assert [row.id for row in rows] == [f"sum-{n}" for n in range(6)]
    for row in rows:
        assert row.prompt_hash == hash_string(row.prompt)
        assert row.target_hash == hash_string(row.answer)
    metrics: dict[str, Any] = json.loads((tmp_path / "base.json").read_text())["heldout"]
    assert metrics["n"] == 6
    assert metrics["value"] == metrics["verifier"] == round(sum(row.correct is True for row in rows) / 6, 4)
    assert metrics["cut_off"] == round(sum(bool(row.cut_off) for row in rows) / 6, 4) > 0, (
        "an untrained student talks on to the limit"
    )
    table = list(csv.DictReader((tmp_path / "base.scores.csv").open()))
    assert [(row["question_id"], row["correct"]) for row in table] == [
        (row.id, str(int(bool(row.correct)))) for row in rows
    ]


@pytest.mark.heavy
def test_the_base_arm_gets_the_system_text_or_not_as_params_say(
    tmp_path: Path, heldout: Path, tiny_params: Params, runs: Runs
) -> None:
    for arm, choice in (("base", "same_as_trained"), ("plain", "plain")):
        params = tiny_params(SHORT | {"evaluate.base_prompt": choice})
        runs(evaluate, *options(tmp_path, heldout, params))
        (tmp_path / "base.jsonl").rename(tmp_path / f"{arm}-seen.jsonl")
        metrics = json.loads((tmp_path / "base.json").read_text())
        assert metrics["system_prompt"] == ("brief" if arm == "base" else None)
        # only who was told of the markers can lack them
        assert metrics["heldout"]["no_end_marker"] == (1.0 if arm == "base" else None)
    system = f"<|im_start|>system\n{prompt_text('brief')}<|im_end|>\n"
    turns = "<|im_start|>user\nWhat is 0 + 5?<|im_end|>\n<|im_start|>assistant\n"
    assert answers(tmp_path, "base-seen")[0].prompt == system + turns
    assert answers(tmp_path, "plain-seen")[0].prompt == turns


def test_without_the_chat_template_the_question_follows_the_system_text_as_lm_eval_has_it(
    tmp_path: Path, heldout: Path, tiny_params: Params, runs: Runs
) -> None:
    params = tiny_params(SHORT | {"evaluate.chat_template": False, "evaluate.limit": 1})
    runs(evaluate, *options(tmp_path, heldout, params))
    assert answers(tmp_path)[0].prompt == f"{prompt_text('brief')}What is 0 + 5?"
    assert json.loads((tmp_path / "base.json").read_text())["settings"]["chat_template"] is None


@pytest.mark.heavy
def test_the_same_weights_give_the_same_bytes(
    tmp_path: Path, heldout: Path, tiny_params: Params, tiny_student: Path, runs: Runs
) -> None:
    seen = []
    for _ in range(2):
        runs(evaluate, *options(tmp_path, heldout, tiny_params(SHORT), "--model", tiny_student, arm="filtered"))
        seen.append([(tmp_path / f"filtered.{kind}").read_bytes() for kind in ("json", "jsonl", "scores.csv")])
    assert seen[0] == seen[1]


def test_weights_that_are_not_there_are_named(
    tmp_path: Path, heldout: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    line = refuses(evaluate, *options(tmp_path, heldout, tiny_params(), "--model", tmp_path / "gone", arm="filtered"))
    assert str(tmp_path / "gone") in line
    assert "dvc repro train" in line


def test_an_empty_heldout_set_is_refused(tmp_path: Path, tiny_params: Params, refuses: Callable[..., str]) -> None:
    (tmp_path / "none.jsonl").touch()
    assert "there is nothing in it" in refuses(evaluate, *options(tmp_path, tmp_path / "none.jsonl", tiny_params()))


FREE = ["Summarize in one sentence: the ferry left an hour late because of fog.", "用一句话概括：大雾，渡船晚点。"]


@pytest.fixture
def without_gold(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.jsonl"
    write_rows(path, [Question(id=f"free-{n}", question=text, answer=None) for n, text in enumerate(FREE)])
    return path


def test_preference_asks_like_heldout_and_scores_nothing(
    tmp_path: Path, heldout: Path, without_gold: Path, tiny_params: Params, runs: Runs
) -> None:
    runs(evaluate, *options(tmp_path, without_gold, tiny_params(SHORT | {"evaluate.benchmarks": ["preference"]})))
    rows = answers(tmp_path)
    assert [row.question for row in rows] == FREE
    for row in rows:
        assert (row.answer, row.verdict, row.lm_eval, row.correct, row.unread) == (None,) * 5
        assert row.prediction == row.response.strip()  # an untrained student writes no reasoning
        assert row.question in row.prompt
    metrics = json.loads((tmp_path / "base.json").read_text())["preference"]
    assert "value" not in metrics
    assert (metrics["n"], metrics["differ"], metrics["tokens_median"] > 0) == (2, None, True)
    assert (tmp_path / "base.scores.csv").read_text() == "question_id,benchmark,cluster,correct\n"


def test_preference_and_heldout_ask_the_same_prompts(
    tmp_path: Path, heldout: Path, tiny_params: Params, runs: Runs
) -> None:
    runs(evaluate, *options(tmp_path, heldout, tiny_params(SHORT | {"evaluate.benchmarks": ["heldout", "preference"]})))
    rows = answers(tmp_path)
    scored, free = ([row for row in rows if row.benchmark == name] for name in ("heldout", "preference"))
    assert [(row.prompt, row.response) for row in scored] == [(row.prompt, row.response) for row in free]
    with (tmp_path / "base.scores.csv").open() as file:
        assert [row["benchmark"] for row in csv.DictReader(file)] == ["heldout"] * 6


def test_heldout_without_gold_answers_is_refused_before_a_student_is_loaded(
    tmp_path: Path, without_gold: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    params = tiny_params({"train.student.name": str(tmp_path / "no student")})
    assert refuses(evaluate, *options(tmp_path, without_gold, params)) == (
        f"{without_gold}: 2 questions have no answer (the first is 'free-0'), so 'heldout' cannot score them. Write "
        "'preference' for it in evaluate.benchmarks, and a judge compares the arms (prefer)."
    )
