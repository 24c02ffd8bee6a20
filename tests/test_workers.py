"""Rows on several processes: the results of one, in their order; errors and killed workers end the run in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.filter import main as filter_stage
from stages.lib import workers
from stages.lib.answers import rule_verdict
from stages.lib.chat_template import align
from stages.lib.cluster import WorkerError
from stages.lib.hygiene.contamination import index_questions
from stages.lib.params import LocalEngine, NearDuplicateParams, load_params
from stages.lib.rows import write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import Question
from stages.lib.students import student_tokenizer, token_lengths
from stages.lib.wording.examining import Examining
from stages.lib.workers import CHUNK, CHUNKS_AHEAD, cores, map_rows
from tests.workspace import ROOT

CASES = [json.loads(line) for line in (ROOT / "benchmarks/answers.jsonl").read_text(encoding="utf-8").splitlines()]
EXPRESSIONS = [("What is it?", rf"\boxed{{{form}}}", r"\frac{1}{3}+x") for form in (r"x+\frac{2}{6}", "9^{9^9}", "x")]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers from the first row on."""
    monkeypatch.setattr(workers, "ALONE_S", 0.0)


def local(workers: int) -> LocalEngine:
    return LocalEngine(kind="local", workers=workers)


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
    alone = list(map_rows(judged, cases, local(1)))
    assert {verdict.verdict for verdict in alone[-3:]} == {"right", "unsure", "wrong"}  # type: ignore[attr-defined]
    assert list(map_rows(judged, iter(cases), local(2))) == alone


def test_the_filter_writes_the_same_bytes_from_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "distilled.jsonl", [Distilled.model_validate(row(*each)) for each in enumerate(CASES[:200])])
    monkeypatch.setattr(workers, "cores", lambda: 2)
    written = {}
    for alone_s in (0.0, 600.0):
        monkeypatch.setattr(workers, "ALONE_S", alone_s)
        out = tmp_path / str(alone_s)
        names = ("filtered", "rejected", "control", "disagreements", "metrics")
        options = [part for name in names for part in (f"--{name}", str(out / name))]
        arguments = ["--distilled", str(tmp_path / "distilled.jsonl"), "--params", str(ROOT / "params.yaml"), *options]
        done = CliRunner().invoke(filter_stage, arguments)
        assert done.exit_code == 0, done.output
        written[alone_s] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert written[0.0] == written[600.0]
    assert written[0.0]["filtered"]
    assert written[0.0]["rejected"]


def row(place: int, case: dict[str, str]) -> dict[str, object]:
    known = {"id": f"q{place}", "question": case["question"], "answer": str(case["answer"]), "solution": None}
    said = {"sample": 0, "reasoning": "", "response": case["response"], "finish_reason": "stop", "model": "m"}
    return {**known, **said, "source": "s", "usage": {}}


def test_questions_are_examined_the_same_in_several_processes() -> None:
    near = NearDuplicateParams(ngram=3, threshold=0.7, permutations=64, seed=3)
    questions = [Question.model_validate({"id": f"q{n}", **case, "answer": "1"}) for n, case in enumerate(CASES)]
    examining = Examining([index_questions("gsm8k", [CASES[0]["question"]], 8)], near)
    alone, several = (list(map_rows(examining, questions, local(count))) for count in (1, 2))
    assert [each.hits for each in several] == [each.hits for each in alone]
    one, two = (
        [(bytes(each.sketch.bands), bytes(each.sketch.shingles)) for each in found if each.sketch]
        for found in (alone, several)
    )
    assert one == two
    assert len(one) == len(questions)
    assert any(each.hits for each in several)


@pytest.mark.heavy
def test_tokens_are_counted_the_same_in_several_processes() -> None:
    """The tokenizer goes to the workers with its chat template."""
    params = load_params(ROOT / "params.yaml")
    tokenizer = student_tokenizer(params.train.student)
    align(tokenizer, params.convert.markers, "in_user_turn", with_system=True)
    rows = [
        [[{"role": "system", "content": "Think."}, {"role": "user", "content": case["question"]}]] for case in CASES
    ]
    alone, several = (list(map_rows(partial(token_lengths, tokenizer), rows, local(count))) for count in (1, 2))
    assert several == alone


def test_rows_are_taken_as_they_are_needed_and_few_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def counted() -> Iterator[int]:
        nonlocal taken
        for number in range(100_000):
            taken = number
            yield number

    for chunk, size in ((None, CHUNK), (1, 1)):
        found = map_rows(process, counted(), local(2), chunk)
        assert {next(found) for _ in range(3)} - {os.getpid()}
        assert taken <= size * (CHUNKS_AHEAD * 2 + 2) + 2
        found.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(workers, "ALONE_S", 60.0)
    assert set(map_rows(process, range(100), local(2))) == {os.getpid()}


def test_an_error_is_that_of_the_function_and_a_killed_worker_is_one_line() -> None:
    with pytest.raises(ValueError, match="row 77"):
        list(map_rows(odd, range(200), local(2)))
    with pytest.raises(WorkerError, match=r"^one of 2 worker processes was killed, .*workers: 1}\)\.$"):
        list(map_rows(kill_itself, [1, 2], local(2)))


def kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "from stages.lib import workers\nfrom tests.test_workers import local, process\nworkers.ALONE_S = 0.0\n"
        "if __name__ == '__main__':\n    found = workers.map_rows(process, range(10**6), local(2))\n"
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
