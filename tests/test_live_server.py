"""Distill against a server that is not ours and a model that is real: llama.cpp's, with SmolLM2-135M.

It gives no chain of thought, so no row is distilled; what is tested is the way there and back.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.lib.params import load_params
from stages.lib.replies.reading import read_body
from stages.lib.sources import draw
from stages.lib.store_tools.record import Record, stored_records

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = 5
MAX_TOKENS = 64
TOO_FEW_TOKENS = 4


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server listens, from when it has loaded the model."""
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "tests.llama_server"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        assert server.stdin and server.stdout
        printed = server.stdout.readline().strip()
        assert printed.startswith("http://127.0.0.1:"), log.read_text()
        yield printed
        server.stdin.close()


class Stage:
    """``python -m stages.distill`` in a folder with five sums, asking the server."""

    def __init__(self, folder: Path, project_params: Callable[..., Path], settings: dict[str, Any]) -> None:
        self._folder = folder
        self._project_params = project_params
        self._settings = settings
        rows = draw(load_params(project_params(settings)).collect).candidates
        (folder / "questions.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))

    def run(self, max_tokens: int = MAX_TOKENS, key: str | None = "any word") -> dict[str, Any]:
        """Its run facts; it must end well."""
        params = self._project_params(self._settings | {"distill.teacher.max_tokens": max_tokens})
        environment = os.environ | {"DVC_ROOT": str(self._folder), "PYTHONPATH": str(ROOT)}
        environment.pop("API_KEY", None)
        options = ("questions", "distilled", "failures", "metrics", "store")
        paths = [text for name in options for text in (f"--{name}", str(self._folder / f"{name}.jsonl"))]
        done = subprocess.run(
            [sys.executable, "-m", "stages.distill", *paths, "--params", str(params)],
            cwd=self._folder,
            env=environment | ({"API_KEY": key} if key else {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        facts: dict[str, Any] = json.loads((self._folder / "metrics" / "runs" / "distill.json").read_text())
        return facts

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._folder / f"{name}.jsonl").read_bytes().splitlines()]

    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self._folder / "metrics.jsonl").read_text())
        return metrics

    def records(self) -> list[Record]:
        return list(stored_records(self._folder / "store.jsonl"))


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    """Whether answers are read as they are written."""
    return bool(request.param)


@pytest.fixture
def stage(tmp_path: Path, project_params: Callable[..., Path], address: str, streamed: bool) -> Stage:
    settings = {
        "collect.train_size": QUESTIONS,
        "distill.max_failed_share": 1.0,
        "distill.teacher.kind": "openai_compatible",
        "distill.teacher.base_url": f"{address}/v1",
        "distill.teacher.model": "smollm2",
        "distill.teacher.temperature": 0.0,
        "run.stream": streamed,
        "run.concurrency": 2,
    }
    return Stage(tmp_path, project_params, settings)


def test_five_answers_of_a_real_model_are_kept_read_and_not_asked_for_again(stage: Stage, streamed: bool) -> None:
    assert stage.run()["bought"] == QUESTIONS
    records = stage.records()
    assert len(records) == QUESTIONS
    assert all(record.body.startswith("data:") == streamed for record in records)
    answers = {record.request["messages"][0]["content"]: read_body(record.body.encode()) for record in records}
    for answer in answers.values():
        assert answer.response
        assert answer.finish_reason in ("stop", "length")
        assert 0 < answer.usage["completion_tokens"] <= MAX_TOKENS
        assert answer.usage["prompt_tokens"] > 0
        assert answer.failure == ("cut_off" if answer.finish_reason == "length" else "empty_reasoning")
    assert stage.rows("distilled") == []
    failures = stage.rows("failures")
    for row in failures:
        (answer,) = (answer for text, answer in answers.items() if row["question"] in text)
        assert (row["reason"], row["status"], row["attempts"]) == (answer.failure, 200, 1)
    metrics = stage.metrics()
    assert metrics["in"] == QUESTIONS == metrics["distilled"] + metrics["failed"]
    assert metrics["failed_by_reason"] == dict(Counter(row["reason"] for row in failures))
    # without a key nothing could be asked
    facts = stage.run(key=None)
    assert (facts["bought"], facts["from_store"]) == (0, QUESTIONS)
    assert stage.records() == records
    assert stage.rows("failures") == failures


def test_answers_that_the_server_cuts_off_are_failures_of_that_name(stage: Stage) -> None:
    stage.run(TOO_FEW_TOKENS)
    answers = [read_body(record.body.encode()) for record in stage.records()]
    assert [(answer.finish_reason, answer.usage["completion_tokens"]) for answer in answers] == (
        [("length", TOO_FEW_TOKENS)] * QUESTIONS
    )
    assert stage.metrics()["failed_by_reason"] == {"cut_off": QUESTIONS}
