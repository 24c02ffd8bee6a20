"""Distill as a whole: what it buys, what it keeps, what it says, and what it refuses."""

import asyncio
import json
import os
import pty
import random
import re
import resource
import socket
import stat
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.distill_runner import KEY, ROOT, DistillRunner, Serve, completion, good, prompted, question

RUN_FACTS = {"bought": 0, "from_store": 0, "paid_now": 0.0, "saved_by_store": 0.0, "currency": "CNY", "seconds": 0}

LATE = ("numpy", "openai", "pyarrow", "tqdm")  # each takes 0.03 to 1 s of CPU, and a small run needs none of them


def test_distill_starts_without_packages_that_a_small_run_does_not_need() -> None:
    program = f"import sys, stages.distill, stages.lib.teacher.pool; print(*set({LATE}) & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# ---- what is bought, and what is kept ----


def test_every_question_becomes_a_row_and_the_counts_add_up(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(30)), question(30, "Why is the sky blue?"))
    runner.set(max_tokens=17, max_failed_share=1.0)
    runner.run()
    distilled, failures, metrics = runner.distilled(), runner.failures(), runner.metrics()
    assert metrics["in"] == 31 == len(distilled) + len(failures)
    assert metrics["distilled"] == len(distilled) > 0
    assert metrics["failed"] == len(failures) > 0
    assert metrics["failed_by_reason"] == dict(Counter(row["reason"] for row in failures))
    assert sorted(row["id"] for row in distilled + failures) == sorted(f"q-{number}" for number in range(31))
    assert metrics["completion_tokens"] == sum(row["usage"]["completion_tokens"] for row in distilled)
    assert metrics["prompt_tokens"] == sum(row["usage"]["prompt_tokens"] for row in distilled)


def test_a_row_holds_the_question_as_it_was_and_the_answer(runner: DistillRunner) -> None:
    runner.set(slip_share=0.0)
    runner.ask(question(4) | {"solution": "worked", "source": "gsm8k/train"})
    runner.run()
    (row,) = runner.distilled()
    assert row | {"usage": {}} == {
        "id": "q-4",
        "question": "What is 5 + 6 - 7?",
        "answer": "4",
        "solution": "worked",
        "source": "gsm8k/train",
        "sample": 0,
        "reasoning": "5 + 6 = 11\n11 - 7 = 4",
        "response": "The answer is 4.",
        "finish_reason": "stop",
        "model": "chain-sum-solver",
        "usage": {},
    }
    assert row["usage"]["completion_tokens"] > 0


def test_rows_stand_in_the_order_of_the_questions(runner: DistillRunner, serve: Serve) -> None:
    async def later_and_later_first(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(random.uniform(0, 0.03))
        return completion()

    runner.use(serve(later_and_later_first))
    runner.ask(*(question(number) for number in range(40)))
    runner.set(concurrency=16)
    runner.run()
    assert [row["id"] for row in runner.distilled()] == [f"q-{number}" for number in range(40)]


def test_second_run_makes_no_teacher_calls(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(20)))
    runner.run()
    assert len(runner.requested()) == 20
    facts = runner.folder / "metrics" / "runs" / "distill.json"
    assert json.loads(facts.read_text()) | {"seconds": 0} == RUN_FACTS | {"bought": 20}
    runner.run("again")
    assert len(runner.requested()) == 20
    assert json.loads(facts.read_text()) | {"seconds": 0} == RUN_FACTS | {"from_store": 20}
    assert runner.outputs("again") == runner.outputs()


def test_twice_the_questions_ask_only_the_new_ones(runner: DistillRunner) -> None:
    questions = [question(number) for number in range(40)]
    runner.ask(*questions[10:30])
    runner.run()
    asked = len(runner.requested())
    runner.ask(*questions)
    runner.run()
    new = runner.requested()[asked:]
    assert sorted(new) == sorted(prompted(row["question"]) for row in questions[:10] + questions[30:])
    assert len(runner.distilled()) == 40


@pytest.mark.parametrize(
    ("name", "value", "asked"),
    [
        ("model", "another-model", 5),
        ("temperature", 0.6, 5),
        ("top_p", 0.9, 5),
        ("max_tokens", 500, 5),
        ("prompt", "father", 5),
        ("samples_per_question", 2, 5),  # the first sample of each is there already
        ("concurrency", 1, 0),
        ("timeout_s", 5.0, 0),
        ("max_attempts", 1, 0),
        ("backoff_s", 0.5, 0),
        ("max_failed_share", 0.5, 0),
    ],
)
def test_what_shapes_the_answer_asks_anew_and_what_shapes_speed_does_not(
    runner: DistillRunner, serve: Serve, name: str, value: Any, asked: int
) -> None:
    server = serve(good)
    runner.use(server)
    runner.ask(*(question(number) for number in range(5)))
    runner.run()
    runner.set(**{name: value})
    runner.run()
    assert len(server.asked) == 5 + asked


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "value"), [("slip_share", 0.9), ("seed", 4)])
def test_what_shapes_the_embedded_answers_asks_anew(runner: DistillRunner, name: str, value: float) -> None:
    runner.ask(*(question(number) for number in range(5)))
    runner.run()
    runner.set(**{name: value})
    runner.run()
    assert len(runner.requested()) == 10


def test_another_server_with_the_same_model_is_asked_anew(runner: DistillRunner, serve: Serve) -> None:
    runner.ask(question(0))
    for server in (serve(good), serve(good)):
        runner.use(server)
        runner.run()
        assert len(server.asked) == 1


def test_sampling_values_are_sent_when_set_and_left_out_when_null(runner: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    runner.use(server)
    runner.ask(question(0))
    runner.run()
    assert not {"temperature", "top_p", "max_tokens", "sample", "endpoint"} & set(server.bodies[-1])
    runner.set(temperature=0.6, top_p=0.95, max_tokens=4096)
    runner.run()
    sent = server.bodies[-1]
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.6, 0.95, 4096)
    assert len(server.bodies) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_what_only_one_server_knows_is_sent_as_it_stands_and_asks_anew(
    runner: DistillRunner, serve: Serve, stream: bool
) -> None:
    server = serve(good)
    runner.use(server)
    runner.set(stream=stream)
    runner.ask(question(0))
    runner.run()
    runner.set(extra_body={"chat_template_kwargs": {"enable_thinking": True}}, temperature=0.6)
    runner.run()
    assert len(server.bodies) == 2
    assert server.bodies[1]["chat_template_kwargs"] == {"enable_thinking": True}
    assert (server.bodies[1]["temperature"], server.bodies[1].get("stream", False)) == (0.6, stream)
    runner.run()
    assert len(server.bodies) == 2


def test_two_samples_give_two_rows_of_each_question_with_different_keys(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(5)))
    runner.set(samples_per_question=2)
    runner.run()
    assert [(row["id"], row["sample"]) for row in runner.distilled()] == [
        (f"q-{n}", s) for n in range(5) for s in (0, 1)
    ]
    assert Counter(runner.requested()) == {prompted(question(number)["question"]): 2 for number in range(5)}
    keys = [json.loads(line)["key"] for line in runner.store.read_bytes().splitlines()]
    assert len(set(keys)) == 10


def test_two_questions_with_the_same_text_are_asked_once(runner: DistillRunner) -> None:
    runner.ask(question(1), question(2, question(1)["question"]), question(3))
    runner.run()
    assert len(runner.requested()) == 2
    first, second, _ = runner.distilled()
    assert (first["id"], second["id"]) == ("q-1", "q-2")
    assert first["reasoning"] == second["reasoning"]


@pytest.mark.parametrize(
    "text",
    [
        "{} {0} {question} {x!r:>{y}} }{ %s %(a)d %",
        "{question}",
        "{question} and again {question}",
        "🙂 两只鸡\u2028\u2029\x85 e\u0301 \U0001f468\u200d\U0001f469",
        'a\nb\r\n\tc "quoted" \\n \\u0041 \x01',
        "a\x00b",
        "<think>1 + 1</think> <|im_end|>",
        "x" * 100_000,
        "两" * 35_000,
    ],
    ids=[
        "braces",
        "the placeholder",
        "twice the placeholder",
        "unicode",
        "line ends",
        "NUL",
        "markers",
        "100 kB",
        "100 kB 两",
    ],
)
def test_the_question_is_sent_and_kept_to_the_letter(runner: DistillRunner, serve: Serve, text: str) -> None:
    server = serve(good)
    runner.use(server)
    runner.ask(question(0, text))
    runner.run()
    assert server.asked == [prompted(text)]
    (row,) = runner.distilled()
    assert row["question"] == text
    runner.run()
    assert len(server.asked) == 1


@pytest.mark.parametrize("text", ["{question} %s", "🙂\u2028\u2029\x85", "x" * 100_000 + "\r\n"])
def test_the_answer_is_kept_to_the_letter(runner: DistillRunner, serve: Serve, text: str) -> None:
    async def echo(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(reasoning_content=f"a{text}b", content=f"c{text}d")

    runner.use(serve(echo))
    runner.ask(question(0))
    runner.run()
    (row,) = runner.distilled()
    assert (row["reasoning"], row["response"]) == (f"a{text}b", f"c{text}d")


def test_a_prompt_without_a_place_for_the_question_is_refused(runner: DistillRunner) -> None:
    runner.ask(question(0))
    runner.set(prompt="brief")
    line = runner.refused()
    assert "distill.prompt" in line
    assert "stages/prompts/brief.txt" in line
    assert runner.requested() == []


def test_an_old_answer_that_can_no_longer_be_read_is_a_failure_row(runner: DistillRunner) -> None:
    runner.ask(question(0), question(1))
    runner.run()
    records = [json.loads(line) for line in runner.store.read_bytes().splitlines()]
    records[0]["body"] = '{"choices": []}'
    runner.store.write_text("".join(json.dumps(record) + "\n" for record in records))
    runner.set(max_failed_share=0.5)
    runner.run()
    assert [(row["reason"], row["status"]) for row in runner.failures()] == [("no_choices", 200)]
    assert len(runner.distilled()) == 1
    assert len(runner.requested()) == 2


def test_the_torn_last_line_of_a_killed_writer_is_repaired_and_asked_again(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(6)))
    runner.run()
    undisturbed = runner.outputs()
    runner.store.write_bytes(runner.store.read_bytes()[:-40])
    runner.run()
    assert len(runner.requested()) == 7
    assert runner.outputs() == undisturbed
    assert runner.stored() == 6


def test_a_broken_line_in_the_store_is_named_and_nothing_is_lost(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(3)))
    runner.run("first")
    lines = runner.store.read_bytes().splitlines(keepends=True)
    runner.store.write_bytes(lines[0] + b"garbage\n" + b"".join(lines[1:]))
    before = runner.store.read_bytes()
    assert runner.refused().startswith(f"{runner.store}:2: ")
    assert runner.store.read_bytes() == before


# ---- what it says while it works ----


@pytest.mark.heavy
def test_a_pipe_gets_plain_lines(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(20)))
    with runner.start() as stage:
        stdout, stderr = stage.communicate(timeout=60)
    assert stage.returncode == 0
    assert stdout == ""
    assert stderr == "distill: 20 of 20 answered (0 from the store, 20 bought), 0 failed\n"


@pytest.mark.heavy
def test_a_long_run_tells_a_pipe_how_far_it_is(
    runner: DistillRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stages.lib.teacher.progress.LINE_EVERY_S", 0.1)
    runner.ask(*(question(number) for number in range(40)))
    runner.set(latency_s=0.05)
    runner.run()
    figures = r"distill: (\d+) of 40, 0 failed, \d+ in flight, \dk tokens, [\d.]+/s, \d+ s left$"
    lines = [re.match(figures, text) for text in caplog.messages]
    counts = [int(match[1]) for match in lines if match]
    assert 2 <= len(counts) <= 20
    assert counts == sorted(counts)


@pytest.mark.heavy
def test_a_terminal_gets_a_bar(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(20)))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with runner.start(stderr=theirs) as stage:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert stage.returncode == 0
    assert b"20/20" in shown
    assert b"100%" in shown


def test_the_bar_says_what_is_done_and_what_it_costs(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return completion(content="" if "99" in content else "2.", usage={"completion_tokens": 1000})

    runner.use(serve(route))
    runner.set(models={"chain-sum-solver": {"input": 4.0, "cached_input": 1.0, "output": 1000.0}}, max_failed_share=1.0)
    runner.ask(*(question(number) for number in range(4)))
    runner.run()
    runner.ask(*(question(number) for number in range(20)), question(20, "99 + 1"))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 200))
    with runner.start(stderr=theirs) as stage:
        os.close(theirs)
        shown = ""
        while True:
            try:
                shown += os.read(ours, 65536).decode()
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert stage.returncode == 0
    bars = [line for line in shown.split("\r") if "/21 [" in line]
    assert any(
        re.search(
            r"distill: +\d+%.*\| (8|12|16)/21 \[00:0\d<00:0\d, .*answer/s, 4 of them from the store, 0 failed, "
            r"4 in flight, (4|8|12)k tokens, (4|8|12).00 CNY of about 17.00 CNY\]",
            bar,
        )
        for bar in bars
    ), bars


@pytest.mark.heavy
def test_the_api_key_goes_to_the_server_and_nowhere_else(runner: DistillRunner, serve: Serve) -> None:
    async def mostly_good(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        sent = request.headers["Authorization"]
        if "99" in content:  # as some servers do: the key in the error
            return web.json_response({"error": {"message": f"Incorrect API key provided: {sent}"}}, status=401)
        if " 3 " in content:
            return web.json_response({"error": {"message": f"refused {sent}"}}, status=400)
        return completion()

    server = serve(mostly_good)
    runner.use(server)
    runner.set(max_failed_share=1.0)
    runner.ask(*(question(number) for number in range(10)))
    with runner.start() as stage:
        said = "".join(stage.communicate(timeout=60))
    assert stage.returncode == 0, said
    assert runner.metrics()["failed"] > 0
    runner.ask(*(question(number) for number in range(10)), question(99, "99 + 1"))
    with runner.start("refused") as stage:
        said += "".join(stage.communicate(timeout=60))
    assert stage.returncode == 1, said
    assert "Incorrect API key" in said
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in said
    files = [path for path in runner.folder.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_api_key_is_also_read_from_the_env_file(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY")
    (runner.folder / ".env").write_text("# mine\nAPI_KEY='from the file'\n")
    server = serve(good)
    runner.use(server)
    runner.ask(question(0))
    runner.run()
    assert server.keys == {"Bearer from the file"}


def test_the_key_is_read_from_the_variable_that_params_name(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(good)
    runner.use(server)
    runner.set(teacher="TEACHER_KEY")
    runner.ask(question(0))
    assert runner.refused().startswith("TEACHER_KEY: not set. ")
    assert server.asked == []
    monkeypatch.setenv("TEACHER_KEY", "sk-another-key")
    runner.run()
    assert server.keys == {"Bearer sk-another-key"}


@pytest.mark.parametrize("backend", ["embedded", "openai_compatible"])
def test_a_run_served_by_the_store_needs_no_key_and_no_server(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    server = serve(good)
    runner.use(server)
    runner.set(kind=backend)
    runner.ask(question(0), question(1))
    runner.run("first")
    monkeypatch.delenv("API_KEY")
    server.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        runner.set(port=taken.getsockname()[1])  # the embedded server would not start
        runner.run("again")
    assert runner.outputs("again") == runner.outputs("first")


@pytest.mark.parametrize("value", [None, "", "sk-你的密钥", "sk-one\nX-Other: two"])
def test_an_api_key_that_is_none_is_one_line_before_any_call(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("API_KEY")
    if value is not None:
        monkeypatch.setenv("API_KEY", value)
    server = serve(good)
    runner.use(server)
    runner.ask(question(0))
    line = runner.refused()
    assert line.startswith("API_KEY: ")
    assert "sk-" not in line
    assert server.asked == []


def test_a_proxy_is_not_asked_for_the_embedded_teacher(runner: DistillRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    runner.ask(question(0))
    runner.run()
    assert len(runner.distilled()) == 1


def test_a_port_in_use_is_one_line(runner: DistillRunner) -> None:
    runner.ask(question(0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runner.set(port=port)
        line = runner.refused()
    assert line.startswith(f"127.0.0.1:{port}: ")
    assert "run.embedded.port" in line


# ---- bad input ----


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b'{"id": "a", "question": "1 + 1", "answer": "2"}\n{"id": "b", "question": "1', ":2: ", "not a JSON object"),
        (b"\n", ":1: ", "not a JSON object"),
        (b"[1]\n", ":1: ", "object"),
        (b'{"id": "a", "answer": "2"}\n', ":1: ", "no field 'question'"),
        (b'{"question": "1 + 1", "answer": "2"}\n', ":1: ", "no field 'id'"),
        (b'{"id": "a", "question": "1 + 1"}\n', ":1: ", "no field 'answer'"),
        (b'{"id": "a", "question": 5, "answer": "2"}\n', ":1: ", "field 'question'"),
        (b'{"id": "a", "question": "", "answer": "2"}\n', ":1: ", "field 'question'"),
        (b'{"id": "a", "question": "1 + 1", "answer": 2}\n', ":1: ", "field 'answer'"),
        (b'{"id": "a", "question": "\\ud83d", "answer": "2"}\n', ":1: ", "not a JSON object"),
        (2 * b'{"id": "a", "question": "1 + 1", "answer": "2"}\n', ":2: ", "questions.jsonl:1 already"),
        (b"", ": ", "nothing in it"),
        ('{"id": "a", "question": "1 加 1", "answer": "2"}\n'.encode("gb18030"), ":1: ", "not UTF-8"),
        ('{"id": "a", "question": "1 + 1", "answer": "2"}\n'.encode("utf-16"), ":1: ", "not UTF-8"),
        (None, ": ", "no such file"),
    ],
    ids=[
        *("cut off", "blank", "a list", "no question", "no id", "no answer", "number for text", "empty question"),
        *("number for answer", "half a character", "twice the id", "empty", "GB18030", "UTF-16", "missing"),
    ],
)
def test_bad_questions_are_named_by_file_and_line_before_any_call(
    runner: DistillRunner, content: bytes | None, where: str, what: str
) -> None:
    path = runner.folder / "questions.jsonl"
    if content is not None:
        path.write_bytes(content)
    line = runner.refused()
    assert line.startswith(f"{path}{where}")
    assert what in line
    assert runner.requested() == []


def test_a_file_that_breaks_off_behind_stored_answers_leaves_the_facts_of_the_last_run(runner: DistillRunner) -> None:
    runner.ask(question(0), question(1))
    runner.run()
    facts = runner.folder / "metrics" / "runs" / "distill.json"
    before = facts.read_bytes()
    assert json.loads(before)["bought"] == 2
    questions = runner.folder / "questions.jsonl"
    questions.write_bytes(questions.read_bytes() + b'{"id": "q2", "ques')
    assert runner.refused("again").startswith(f"{questions}:3: ")
    assert facts.read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_one_line(runner: DistillRunner) -> None:
    runner.ask(question(0))
    (runner.folder / "file").write_text("in the way")
    assert runner.refused(distilled=runner.folder / "file" / "distilled.jsonl").startswith(f"{runner.folder / 'file'}")
    assert runner.stored() == 1, "what was received is kept"
    assert runner.refused(store=runner.folder / "file" / "answers.jsonl").startswith(f"{runner.folder / 'file'}")
    assert runner.refused(store=runner.folder).startswith(f"{runner.folder}: ")


@pytest.mark.heavy
def test_a_full_disk_under_the_store_is_one_line_and_loses_nothing(
    runner: DistillRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # Python would leave cut modules behind
    runner.ask(*(question(number) for number in range(60)))
    with runner.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))) as stage:
        _, stderr = stage.communicate(timeout=30)
    assert stage.returncode == 1
    (line,) = stderr.splitlines()
    assert line.startswith(f"Error: {runner.store}: ")
    assert not (runner.folder / "out").exists()
    stored, asked = runner.stored(), len(runner.requested())
    assert 10 < stored < 60
    assert runner.store.read_bytes().endswith(b"\n")
    runner.run()
    assert len(runner.requested()) - asked == 60 - stored
    assert len(runner.distilled()) == 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("option", ["store", "distilled"])
def test_a_full_device_is_one_line_and_stays_a_device(runner: DistillRunner, option: str) -> None:
    runner.ask(question(0))
    assert runner.refused("out", (), **{option: "/dev/full"}).startswith("/dev/full: ")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert not Path("/dev/full.lock").exists()
