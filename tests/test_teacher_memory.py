"""Memory: a run holds what is in flight and a few bytes a row, whatever the answers' length."""

import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from stages.distill import PlannedCalls
from stages.lib.params import load_params
from stages.lib.store.answer_store import request_key
from tests.distill_runner import ROOT, DistillRunner, question

LONG = 12_000  # bytes of one answer
FEW, MANY = 200, 6000


def fill_the_store(runner: DistillRunner) -> None:
    """An answer to each question, each of them long."""
    params = load_params(Path(runner.arguments()[-1])).distill
    calls = PlannedCalls(runner.folder / "questions.jsonl", params, "http://127.0.0.1:1/v1")
    message = {"content": "2.", "reasoning_content": "1 + 1 = 2. " * (LONG // 11)}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 9}})
    runner.store.parent.mkdir(exist_ok=True)
    with runner.store.open("wb") as store:
        for request in calls.requests():
            record = {"key": request_key(request), "request": request, "body": body}
            store.write(orjson.dumps(record) + b"\n")


def peak_mb(runner: DistillRunner) -> float:
    """The most memory that the stage had at once, in a process of its own."""
    program = (
        "import re; from pathlib import Path; from stages.distill import main; main(standalone_mode=False); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )  # wait4() counts what the parent had before the program was loaded
    command = [sys.executable, "-c", program, *runner.arguments()]
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return int(run.stdout) / 1024


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here")
def test_thirty_times_the_answers_take_no_more_memory(runner: DistillRunner) -> None:
    runner.set(kind="openai_compatible", base_url="http://127.0.0.1:1/v1")
    runner.set(models={"chain-sum-solver": {"input": 1.0, "cached_input": 1.0, "output": 1.0}}, budget=1000.0)
    peaks = []
    for size in (FEW, MANY):
        runner.ask(*(question(number) for number in range(size)))
        fill_the_store(runner)
        peaks.append(peak_mb(runner))
        assert len(runner.distilled()) == size
    assert peaks[1] - peaks[0] < (MANY - FEW) * LONG / 2**20 / 4, peaks
