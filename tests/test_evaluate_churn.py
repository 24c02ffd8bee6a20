"""Churn: the same weights asked twice, with another batch size; what flips is counted, and nothing else changes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.evaluate import main as evaluate
from stages.lib.evaluation.churn import SecondPass, churn
from stages.lib.params import load_params
from stages.lib.rows import write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question
from tests.benchmark_arms import Arm

Params = Callable[..., Path]
Build = Callable[[Path], None]
# of 99 questions of unlike lengths, a student in bfloat16 answers a few otherwise in batches of 3
ASKED = {"evaluate.max_gen_toks": 40, "evaluate.backend.batch_size": 8, "evaluate.backend.dtype": "bfloat16"}
QUESTIONS = [Question(id=f"q{n}", question=f"What is {n} + 5?{' And then?' * (n % 23)}", answer="3") for n in range(99)]


def row(number: int, response: str, correct: bool | None) -> Evaluated:
    rest = dict.fromkeys(set(Evaluated.model_fields) - {"history", "system", "again"})
    texts = dict.fromkeys(("question", "prompt", "decided_by", "doc_hash", "prompt_hash", "target_hash", "cluster"), "")
    about = {"id": f"q{number}", "benchmark": "heldout", "task": "heldout", "response": response, "correct": correct}
    return Evaluated.model_validate(rest | texts | about)


def test_flips_are_counted_apart_from_other_texts_and_the_net_has_a_sign() -> None:
    first = [row(n, "a", n < 6) for n in range(12)]
    second = [row(n, "a", n < 6) for n in range(10)]  # the last two were not sampled
    second[0] = row(0, "b", False)  # lost
    second[1] = row(1, "c", False)  # lost
    second[9] = row(9, "d", True)  # gained
    second[2] = row(2, "e", True)  # another text, as right as before
    found = churn(first, second, 7)
    # statsmodels' own Wilson intervals of 3 and of 4 in 10
    assert found == {
        "batch_size": 7,
        "n": 10,
        "flipped": 3,
        "gained": 1,
        "lost": 2,
        "net": -0.1,
        "flipped_share": 0.3,
        "flipped_low": 0.1078,
        "flipped_high": 0.6032,
        "differ": 4,
        "differ_share": 0.4,
        "differ_low": 0.1682,
        "differ_high": 0.6873,
        "confidence": 0.95,
    }


def test_answers_without_a_score_have_other_texts_and_no_flips() -> None:
    found = churn([row(0, "a", None), row(1, "b", None)], [row(0, "a", None), row(1, "c", None)], 7)
    assert (found["n"], found["differ"], "flipped" in found) == (2, 1, False)


def test_only_the_sampled_questions_reach_the_second_pass_and_the_order_stays() -> None:
    class Model:
        def __init__(self, name: str) -> None:
            self.name, self.asked = name, list[int]()

        def generate_until(self, requests: list[Any]) -> list[str]:
            self.asked += [request.doc_id for request in requests]
            return [f"{self.name} {request.doc_id}" for request in requests]

    class Request:
        task_name = "t"

        def __init__(self, doc_id: int) -> None:
            self.doc_id = doc_id

    first, second = Model("first"), Model("second")
    asked = [Request(3), Request(1), Request(2)]
    answers = SecondPass(first, second, {("t", 1), ("u", 2)}).generate_until(asked)
    assert answers == ["first 3", "second 1", "first 2"]
    assert (first.asked, second.asked) == ([3, 2], [1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate.churn": {"batch_size": 50, "limit": 9}}, "its batch_size is that of the backend (50)"),
        (
            {
                "evaluate.churn": {"batch_size": 7, "limit": 9},
                "evaluate.backend.kind": "vllm",
                "evaluate.backend.args": {"data_parallel_size": 2},
            },
            "with data_parallel_size, lm-eval's vllm ignores the batch size",
        ),
    ],
)
def test_a_second_pass_that_would_measure_nothing_is_refused(
    changes: dict[str, Any], said: str, project_params: Params
) -> None:
    with pytest.raises(Exception, match="evaluate: churn: ") as refused:
        load_params(project_params(changes))
    assert said in str(refused.value)


@pytest.fixture(scope="module")
def undecided(tiny_student: Path, built_once: Callable[[str, Build], Path]) -> Path:
    """A random student whose head is not its embedding: its likeliest tokens are nearly equally likely."""

    def build(folder: Path) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

        config = AutoConfig.from_pretrained(tiny_student)
        config.tie_word_embeddings = False
        set_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_student).save_pretrained(folder)

    return built_once("undecided student", build)


@pytest.mark.heavy
def test_the_second_pass_counts_what_changes_and_leaves_the_first_as_it_is(
    tmp_path: Path,
    undecided: Path,
    tiny_params: Params,
    runs: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "distillery.evaluate")
    once, twice = Arm(tmp_path / "once"), Arm(tmp_path / "twice")
    for arm, changes in ((once, {}), (twice, {"evaluate.churn": {"batch_size": 3, "limit": 90}})):
        arm.folder.mkdir()
        write_rows(arm.folder / "heldout.jsonl", QUESTIONS)
        monkeypatch.setenv("DVC_ROOT", str(arm.folder))
        words = arm.arguments(tiny_params(ASKED | changes), undecided, None)
        runs(evaluate, *words)
    found = twice.metrics["heldout"].pop("churn")
    assert twice.metrics == once.metrics | {"heldout": once.metrics["heldout"] | {"churn": found}}
    assert twice.scores == once.scores
    changed = [each for each in twice.rows if each.again is not None]
    assert [each.model_copy(update={"again": None}) for each in twice.rows] == once.rows
    assert (found["n"], found["differ"]) == (90, len(changed))
    assert len(changed) > 0, "in bfloat16 the order of additions decides some tokens"
    assert all(each.again and each.again.response != each.response for each in changed)
    assert found["flipped"] == sum(each.again is not None and each.again.correct != each.correct for each in changed)

    before = [(twice.folder / f"filtered{end}").read_bytes() for end in (".json", ".jsonl", ".scores.csv")]
    caplog.clear()
    runs(evaluate, *words)
    assert not [line for line in caplog.messages if "to compute" in line], "both passes are in the cache"
    assert before == [(twice.folder / f"filtered{end}").read_bytes() for end in (".json", ".jsonl", ".scores.csv")]
    words = twice.arguments(tiny_params(ASKED | {"evaluate.churn": {"batch_size": 3, "limit": 20}}), undecided, None)
    runs(evaluate, *words)
    asked = [line for line in caplog.messages if "to compute" in line]
    assert asked == ["evaluate: filtered: heldout, second pass: 20 answers to compute"]
    with (twice.folder / "filtered.scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 99
    assert json.loads((twice.folder / "filtered.json").read_bytes())["heldout"]["churn"]["n"] == 20
