"""Rows on several processes: the results of one, in their order; errors and killed workers end the run in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.lib import workers
from stages.lib.answers import rule_verdict
from stages.lib.deciders import WithoutJudge
from stages.lib.params import load_params
from stages.lib.rows.distilled import Distilled
from stages.lib.workers import CHUNK, CHUNKS_AHEAD, WorkerError, cores, map_rows
from tests.workspace import ROOT

CASES = [json.loads(line) for line in (ROOT / "benchmarks/answers.jsonl").read_text(encoding="utf-8").splitlines()]
EXPRESSIONS = [("What is it?", rf"\boxed{{{form}}}", r"\frac{1}{3}+x") for form in (r"x+\frac{2}{6}", "9^{9^9}", "x")]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers from the first row on."""
    monkeypatch.setattr(workers, "ALONE_S", 0.0)


def judged(case: tuple[str, str, str]) -> object:
    return rule_verdict(*case)


def odd(row: int) -> int:
    if row == 77:
        raise ValueError(f"row {row}")
    return row


def process(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def test_the_rule_gives_the_same_verdicts_in_any_number_of_processes() -> None:
    """Also on expressions, which a process of math-verify compares for each worker."""
    cases = [(case["question"], case["response"], str(case["answer"])) for case in CASES[:60]] + EXPRESSIONS
    alone = list(map_rows(judged, cases, processes=1))
    assert {verdict.verdict for verdict in alone[-3:]} == {"right", "unsure", "wrong"}  # type: ignore[attr-defined]
    assert list(map_rows(judged, iter(cases), processes=2)) == alone


def test_a_decider_is_prepared_in_each_worker_and_decides_the_same() -> None:
    params = load_params(ROOT / "params.yaml")
    groups = [[Distilled.model_validate(row(case, place))] for place, case in enumerate(CASES[:40])]
    decide = WithoutJudge(params.filter, params.train.student)
    assert list(map_rows(decide, groups, processes=2)) == [decide(group) for group in groups]


def row(case: dict[str, str], place: int) -> dict[str, object]:
    known = {"id": f"q{place}", "question": case["question"], "answer": str(case["answer"]), "solution": None}
    said = {"sample": 0, "reasoning": "", "response": case["response"], "finish_reason": "stop", "model": "m"}
    return {**known, **said, "source": "s", "usage": {}}


def test_rows_are_taken_as_they_are_needed_and_few_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def counted() -> Iterator[int]:
        nonlocal taken
        for number in range(100_000):
            taken = number
            yield number

    found = map_rows(process, counted(), processes=2)
    assert {next(found) for _ in range(3)} - {os.getpid()}
    assert taken <= CHUNK * (CHUNKS_AHEAD * 2 + 2)
    found.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(workers, "ALONE_S", 60.0)
    assert set(map_rows(process, range(100), processes=2)) == {os.getpid()}


def test_an_error_is_that_of_the_function_and_a_killed_worker_is_one_line() -> None:
    with pytest.raises(ValueError, match="row 77"):
        list(map_rows(odd, range(200), processes=2))
    with pytest.raises(WorkerError, match=r"^one of 2 worker processes was killed, .*taskset -c 0,1 make repro'\)\.$"):
        list(map_rows(kill_itself, [1, 2], processes=2))


def kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "from stages.lib import workers\nfrom tests.test_workers import process\nworkers.ALONE_S = 0.0\n"
        "if __name__ == '__main__':\n    found = workers.map_rows(process, range(10**6), 2)\n"
        "    print(next(found), flush=True)\n    [None for _ in found]\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    assert worker != parent.pid
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_the_cores_are_those_that_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)
