"""A student behind a server, a killed evaluation that goes on, and a cache that knows the weights."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.evaluate import main as evaluate
from stages.lib.runtime.digests import files_hash
from tests.benchmark_arms import ROOT, Arm, own_choice_task
from tests.completions_server import Completions, serving
from tests.workspace import write_changed_params

Runs = Callable[..., Result]
Refuses = Callable[..., str]
SHORT = {"evaluate.max_gen_toks": 12, "evaluate.backend.batch_size": 2, "run.threads": 1, "run.max_attempts": 1}


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name in ("OPENAI_API_KEY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tiny_student: Path) -> Iterator[Completions]:
    with serving(tiny_student, "distilled-filtered") as found:
        yield found


def params_for(folder: Path, server: Completions | None, changes: dict[str, Any] | None = None) -> Path:
    path = folder / "params.yaml"
    served = {"run.served.base_url": server.url, "run.served.model": "distilled-{arm}"} if server else {}
    write_changed_params(ROOT / "params.yaml", SHORT | served | (changes or {}), path)
    return path


@pytest.mark.heavy
def test_a_served_student_scores_as_it_does_on_hf(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs
) -> None:
    eval_data = own_choice_task(tmp_path)
    found = {}
    for backend in ("hf", "local-completions"):
        params = params_for(
            tmp_path,
            server,
            {"evaluate.backend.kind": backend, "evaluate.benchmarks": ["heldout", "lm-eval:mmlu_anatomy"]},
        )
        arm = Arm(tmp_path)
        runs(evaluate, *arm.arguments(params, tiny_student, eval_data))
        metrics = arm.metrics
        settings = metrics.pop("settings")
        assert settings["backend"] == backend
        found[backend] = ([(row.id, row.response, row.prompt) for row in arm.rows], metrics)
    assert found["hf"] == found["local-completions"]
    assert len(server.requests) == 6 + 4 * 4
    assert {body["model"] for body in server.requests} == {"distilled-filtered"}


@pytest.mark.heavy
def test_a_chat_is_asked_with_messages_and_gets_the_same_answers(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs
) -> None:
    responses = {}
    for backend in ("local-completions", "local-chat-completions"):
        arm = Arm(tmp_path)
        params = params_for(tmp_path, server, {"evaluate.backend.kind": backend})
        runs(evaluate, *arm.arguments(params, tiny_student, None))
        responses[backend] = [row.response for row in arm.rows]
    assert responses["local-completions"] == responses["local-chat-completions"]
    assert [message["role"] for message in server.requests[-1]["messages"]] == ["system", "user"]


@pytest.mark.heavy
def test_the_key_comes_from_the_environment_and_reaches_no_file(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED_KEY", "sk-of-the-served")
    arm = Arm(tmp_path)
    changes = {"evaluate.backend.kind": "local-completions", "run.served.api_key_variable": "SERVED_KEY"}
    runs(evaluate, *arm.arguments(params_for(tmp_path, server, changes), tiny_student, None))
    assert set(server.keys) == {"Bearer sk-of-the-served"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"sk-of-the-served" in path.read_bytes()]


@pytest.mark.heavy
def test_without_a_key_none_is_sent(tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs) -> None:
    arm = Arm(tmp_path)
    runs(
        evaluate,
        *arm.arguments(
            params_for(tmp_path, server, {"evaluate.backend.kind": "local-completions"}), tiny_student, None
        ),
    )
    assert set(server.keys) == {None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"run.served.base_url": "http://me:secret@127.0.0.1/v1"}, "run.served.base_url: not a plain http address"),
        ({"run.served.base_url": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1/models: cannot be reached ("),
        ({"run.served.model": "{arm}"}, "no model 'filtered' there. It serves distilled-filtered."),
        (
            {"evaluate.backend.kind": "local-chat-completions", "evaluate.benchmarks": ["lm-eval:mmlu_anatomy"]},
            "evaluate.benchmarks: 'mmlu_anatomy' needs log-likelihoods, which local-chat-completions does not give.",
        ),
        ({"evaluate.backend.kind": "vllm"}, "evaluate.backend.kind: vllm is not installed here."),
        (
            {"evaluate.backend.kind": "hf", "evaluate.max_gen_toks": 1024},
            "evaluate.max_gen_toks: 1024, but the student",
        ),
        (
            {"evaluate.backend.kind": "hf", "evaluate.backend.args": {"no_such": 1}},
            "evaluate.backend.args: lm-eval's hf refuses them (",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line_before_anything_is_asked(
    changes: dict[str, Any], expected: str, tmp_path: Path, tiny_student: Path, server: Completions, refuses: Refuses
) -> None:
    params = params_for(tmp_path, server, {"evaluate.backend.kind": "local-completions"} | changes)
    line = refuses(evaluate, *Arm(tmp_path).arguments(params, tiny_student, own_choice_task(tmp_path)))
    assert expected in line
    assert "secret" not in line
    assert not server.requests


@pytest.mark.heavy
def test_a_server_that_fails_is_one_line_without_the_key_and_what_came_is_kept(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs
) -> None:
    words = Arm(tmp_path).arguments(
        params_for(tmp_path, server, {"evaluate.backend.kind": "local-completions"}), tiny_student, None
    )
    server.failing = True
    done = Arm(tmp_path).run(words, {"OPENAI_API_KEY": "sk-of-the-served"})
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"Error: {server.url}: the served model failed (HTTP 500: ")
    assert "Traceback" not in done.stderr
    assert set(server.keys) == {"Bearer sk-of-the-served"}
    assert "sk-of-the-served" not in done.stderr + done.stdout
    server.failing = False
    runs(evaluate, *words)
    asked = len(server.requests)
    runs(evaluate, *words)
    assert len(server.requests) == asked, "a second run asks for nothing"


@pytest.mark.heavy
def test_killed_in_the_second_pass_it_asks_only_for_the_rest(tmp_path: Path, tiny_student: Path, runs: Runs) -> None:
    with serving(tiny_student, "distilled-filtered", delay_s=0.3) as server:
        twice = {"evaluate.churn": {"batch_size": 1, "limit": 4}}
        params = params_for(tmp_path, server, {"evaluate.backend.kind": "local-completions"} | twice)
        arm = Arm(tmp_path)
        words = arm.arguments(params, tiny_student, None)
        command = [sys.executable, "-m", "stages.evaluate", *words]
        process = subprocess.Popen(command, cwd=ROOT, env=arm.environment(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(server.requests) < 6 + 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        asked = len(server.requests)
        assert 6 + 2 <= asked < 6 + 4, "it was killed in the midst"
        runs(evaluate, *words)
        # one is asked at a time in the second pass: it was under way, and is all that is asked again
        assert len(server.requests) <= 6 + 4 + 1
        found = arm.metrics["heldout"]
        assert (found["n"], found["churn"]["n"], found["churn"]["differ"]) == (6, 4, 0)


def kept(folder: Path) -> int:
    """How many answers the cache holds."""
    for path in folder.rglob("answers_rank0.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as cache, suppress(sqlite3.OperationalError):
            return int(cache.execute("SELECT COUNT(*) FROM unnamed").fetchone()[0])
    return 0


@pytest.mark.slow
def test_killed_on_hf_it_loses_at_most_the_batch_that_was_under_way(
    tmp_path: Path, tiny_student: Path, runs: Runs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "distillery.evaluate")
    (tmp_path / "killed").mkdir()
    (tmp_path / "left").mkdir()
    params = params_for(tmp_path, None, {"evaluate.max_gen_toks": 600, "evaluate.backend.batch_size": 1})
    arm, other = Arm(tmp_path / "killed"), Arm(tmp_path / "left")
    words = arm.arguments(params, tiny_student, None)
    command = [sys.executable, "-m", "stages.evaluate", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=arm.environment(), stderr=subprocess.DEVNULL)
    while kept(arm.folder) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = kept(arm.folder)
    assert 2 <= before < 6, "it was killed in the midst"
    monkeypatch.setenv("DVC_ROOT", str(arm.folder))
    runs(evaluate, *words)
    assert f"evaluate: filtered: heldout: {6 - before} answers to compute" in caplog.messages
    monkeypatch.setenv("DVC_ROOT", str(other.folder))
    runs(evaluate, *other.arguments(params, tiny_student, None))
    assert arm.rows == other.rows, "as if it had not been killed"


@pytest.mark.heavy
def test_other_weights_get_no_old_answers(
    tmp_path: Path, tiny_student: Path, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "distillery.evaluate")
    arm, weights = Arm(tmp_path), tmp_path / "weights"
    shutil.copytree(tiny_student, weights)
    words = arm.arguments(params_for(tmp_path, None), weights, None)
    for _ in range(2):
        runs(evaluate, *words)
    assert sum("6 answers to compute" in line for line in caplog.messages) == 1, "the second run asks for nothing"
    other_weights(weights)
    runs(evaluate, *words)
    assert sum("6 answers to compute" in line for line in caplog.messages) == 2
    assert len(list((tmp_path / ".cache" / "evaluation" / "filtered").iterdir())) == 1, "the old ones are gone"


def other_weights(folder: Path) -> None:
    """One byte of the weights, size and time as before."""
    path = folder / "model.safetensors"
    before, data = path.stat(), bytearray(path.read_bytes())
    digest = files_hash(folder)
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert files_hash(folder) != digest
