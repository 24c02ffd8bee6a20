"""The embedded teacher: a real server that solves what it reads, slips on a set share, and ends with its owner."""

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SERVER = "stages.lib.teacher.backends.embedded.server"
MODEL = "chain-sum-solver"
STEP = re.compile(r"(-?\d+) ([+-]) (\d+) = (-?\d+)")
FINAL = re.compile(r"The answer is (-?\d+)\.")


@dataclass
class Server:
    """The server's process, and one connection to it."""

    process: subprocess.Popen[str]
    port: int
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def send(self, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        self.connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def chat(self, question: str, **more: Any) -> tuple[int, dict[str, Any]]:
        messages = [{"role": "user", "content": question}]
        return self.send("/v1/chat/completions", json.dumps({"model": MODEL, "messages": messages} | more).encode())

    def answer(self, question: str) -> tuple[str, str]:
        """The reasoning and the content that the server gives to a question."""
        status, body = self.chat(question)
        assert status == 200, body
        message = body["choices"][0]["message"]
        return message["reasoning_content"], message["content"]


@contextmanager
def served(folder: Path, *options: object) -> Iterator[Server]:
    """The server as a process of its own, started in ``folder``, which holds nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", SERVER, *map(str, options)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin and process.stdout
        try:
            yield Server(process, int(process.stdout.readline()))
        finally:
            if not process.stdin.closed:
                process.stdin.close()
            process.wait(timeout=20)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """``serve("--slip-share", 0.3)``: a server, the same for the same options, in a folder that stays empty."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("empty")

        @cache
        def start(*options: object) -> Server:
            return stack.enter_context(served(folder, *options))

        yield start
        assert not list(folder.iterdir())


@dataclass(frozen=True)
class Sum:
    """A sum made up here: its text and its terms."""

    text: str
    terms: list[int]


def made_up(count: int, seed: int, terms: int = 4, highest: int = 99) -> list[Sum]:
    """Sums that stand in no file, each once."""
    rng = random.Random(seed)
    sums: dict[str, Sum] = {}
    while len(sums) < count:
        values = [rng.randint(1, highest), *(rng.choice((1, -1)) * rng.randint(1, highest) for _ in range(terms - 1))]
        text = " ".join([str(values[0]), *(f"{'+' if value > 0 else '-'} {abs(value)}" for value in values[1:])])
        sums[text] = Sum(text, values)
    return list(sums.values())


def wrong_steps(question: Sum, reasoning: str) -> int:
    """How many steps are wrong by themselves; each must take up where the last one ended, a term each, to the end."""
    lines = reasoning.split("\n")
    assert len(lines) == len(question.terms) - 1
    before, wrong = question.terms[0], 0
    for line, term in zip(lines, question.terms[1:], strict=True):
        match = STEP.fullmatch(line)
        assert match, f"not the form of a step: {line!r}"
        start, sign, size, end = int(match[1]), match[2], int(match[3]), int(match[4])
        assert (start, sign, size) == (before, "+" if term > 0 else "-", abs(term))
        wrong += end != before + term
        before = end
    return wrong


def final(content: str) -> int:
    match = FINAL.fullmatch(content)
    assert match, f"not the form of an answer: {content!r}"
    return int(match[1])


def test_models_names_the_one_model_in_the_protocol_form(serve: Callable[..., Server]) -> None:
    status, body = serve("--model", "some-name").send("/v1/models")
    assert status == 200
    assert body["object"] == "list"
    assert [(model["id"], model["object"]) for model in body["data"]] == [("some-name", "model")]


def test_a_completion_has_every_field_that_a_client_reads(serve: Callable[..., Server]) -> None:
    status, body = serve().chat("What is 51 + 22 - 80?")
    assert status == 200
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["reasoning_content"] == "51 + 22 = 73\n73 - 80 = -7"
    assert choice["message"]["content"] == "The answer is -7."
    usage = body["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > usage["completion_tokens_details"]["reasoning_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_another_model_is_404_and_named(serve: Callable[..., Server]) -> None:
    status, body = serve().chat("1 + 1", model="gpt-17")
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert "gpt-17" in body["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"model": "chain-sum-solver", "messages": []}',
        b'{"model": "chain-sum-solver", "messages": "1 + 1"}',
        b'{"model": "chain-sum-solver", "messages": [{"role": "system", "content": "1 + 1"}]}',
        b'{"model": "chain-sum-solver", "messages": [{"role": "user"}]}',
        b'{"model": "chain-sum-solver", "messages": [{"role": "user", "content": null}]}',
        b'{"model": "chain-sum-solver", "messages": [{"role": "user", "content": "1 + 1"}], "max_tokens": "5"}',
        b'{"model": "chain-sum-solver", "messages": [{"role": "user", "content": "1 + 1"}], "max_tokens": -5}',
        b'{"model": "chain-sum-solver", "messages": [{"role": "user", "content": "1 + 1"}], "stream": true}',
    ],
)
def test_a_body_that_is_no_request_is_400_with_an_error_object(serve: Callable[..., Server], body: bytes) -> None:
    server = serve()
    status, answer = server.send("/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["message"]
    assert server.chat("1 + 1")[0] == 200, "the server goes on after it"


def test_max_tokens_cuts_the_answer_and_says_length(serve: Callable[..., Server]) -> None:
    server = serve()
    whole = server.chat("51 + 22 - 80 + 3")[1]
    tokens = whole["usage"]["completion_tokens"]
    reasoning_tokens = whole["usage"]["completion_tokens_details"]["reasoning_tokens"]
    for limit in (1, reasoning_tokens, tokens - 1):
        cut = server.chat("51 + 22 - 80 + 3", max_tokens=limit)[1]
        assert cut["choices"][0]["finish_reason"] == "length"
        assert cut["usage"]["completion_tokens"] == limit
        message, full = cut["choices"][0]["message"], whole["choices"][0]["message"]
        assert full["reasoning_content"].startswith(message["reasoning_content"])
        assert full["content"].startswith(message["content"])
        assert (message["reasoning_content"], message["content"]) != (full["reasoning_content"], full["content"])
    assert server.chat("51 + 22 - 80 + 3", max_tokens=tokens)[1]["choices"] == whole["choices"]


def test_it_solves_sums_that_stand_in_no_file(serve: Callable[..., Server]) -> None:
    server = serve()
    questions = made_up(50, seed=11) + made_up(50, seed=12, terms=7, highest=10**9) + made_up(20, seed=13, terms=2)
    for question in questions:
        reasoning, content = server.answer(f"I have 2 hands. Tell me now: {question.text} = ?")
        assert final(content) == sum(question.terms)
        assert wrong_steps(question, reasoning) == 0


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("12+30-5", 37),
        ("-4 + 3 =", -1),
        ("first 1 + 1, then 20 - 7 - 7", 6),
        ("0 - 0 + 0", 0),
        ("算一算:8 - 3 + 1 =", 6),
        ("7 +\n 5", 12),
        ("5 - 3 🙂\u2028", 2),
    ],
)
def test_it_reads_the_last_sum_however_it_is_written(serve: Callable[..., Server], text: str, total: int) -> None:
    assert final(serve().answer(text)[1]) == total


@pytest.mark.parametrize("text", ["", "Why is the sky blue?", "There are 12 apples.", "{} %s {question}"])
def test_it_says_so_where_there_is_no_sum(serve: Callable[..., Server], text: str) -> None:
    reasoning, content = serve("--slip-share", 1).answer(text)
    assert reasoning and content
    assert not FINAL.search(content)


def test_it_slips_on_the_set_share_and_each_slip_is_one_step(serve: Callable[..., Server]) -> None:
    questions = made_up(2000, seed=21)
    first, again = serve("--slip-share", 0.3, "--seed", 7), serve("--seed", 7, "--slip-share", 0.3)
    assert first is not again
    slipped = []
    for question in questions:
        reasoning, content = first.answer(question.text)
        wrong = wrong_steps(question, reasoning)
        assert wrong in (0, 1)
        assert final(content) == int(reasoning.rsplit("= ", 1)[1]), "the slip is carried through to the end"
        assert (final(content) != sum(question.terms)) == (wrong == 1)
        slipped.append(wrong == 1)
    assert abs(sum(slipped) - 600) < 4 * (2000 * 0.3 * 0.7) ** 0.5
    for question, slip in list(zip(questions, slipped, strict=True))[::10]:
        answered = again.answer(question.text)
        assert (final(answered[1]) != sum(question.terms)) == slip, "the same questions each time"


def test_every_step_and_both_directions_are_slipped_on(serve: Callable[..., Server]) -> None:
    server = serve("--slip-share", 1)
    places, directions = set(), set()
    for question in made_up(60, seed=22):
        lines = server.answer(question.text)[0].split("\n")
        before = question.terms[0]
        for place, (line, term) in enumerate(zip(lines, question.terms[1:], strict=True)):
            after = int(line.rsplit("= ", 1)[1])
            if after != before + term:
                places.add(place)
                directions.add(after > before + term)
            before = after
    assert places == {0, 1, 2}
    assert directions == {True, False}


def test_another_seed_slips_on_other_questions(serve: Callable[..., Server]) -> None:
    one, other = serve("--slip-share", 0.5, "--seed", 1), serve("--slip-share", 0.5, "--seed", 2)
    answers = [(one.answer(question.text), other.answer(question.text)) for question in made_up(50, seed=23)]
    assert 5 < sum(first != second for first, second in answers) < 50


@pytest.mark.parametrize("text", ["1" * 100_000, "1 " * 50_000, "1" + " " * 100_000, "- + " * 25_000, "-1" * 50_000])
def test_a_text_of_100_kb_keeps_nobody_waiting(serve: Callable[..., Server], text: str) -> None:
    server = serve()
    started = time.monotonic()
    assert server.chat(text)[0] == 200
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("share", "right"), [(0, 100), (1, 0)])
def test_share_0_is_always_right_and_share_1_always_wrong(serve: Callable[..., Server], share: int, right: int) -> None:
    server = serve("--slip-share", share)
    questions = made_up(100, seed=24)
    assert sum(final(server.answer(question.text)[1]) == sum(question.terms) for question in questions) == right


def test_the_requests_file_gets_each_body_as_a_line(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--requests", tmp_path / "requests.jsonl")
    questions = ["1 + 1", "a\nb\r\n2 + 2", "\u2028 3 + 3 🙂"]
    for question in questions:
        server.chat(question)
    lines = (tmp_path / "requests.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert [json.loads(line)["messages"][0]["content"] for line in lines] == questions


def test_it_ends_when_its_standard_input_closes(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert server.process.stdin
        assert server.send("/v1/models")[0] == 200
        server.process.stdin.close()
        assert server.process.wait(timeout=8) == 0


def test_it_ends_at_once_though_an_answer_is_still_being_given(tmp_path: Path) -> None:
    with served(tmp_path, "--latency-s", 15, "--requests", tmp_path / "requests.jsonl") as server:
        assert server.process.stdin
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "1 + 1"}]})
        server.connection.request("POST", "/v1/chat/completions", body)
        while not (tmp_path / "requests.jsonl").exists():
            time.sleep(0.01)
        server.process.stdin.close()
        server.process.wait(timeout=8)


def test_it_ends_when_its_owner_is_killed() -> None:
    script = (
        "import subprocess, sys, time; "
        f"server = subprocess.Popen([sys.executable, '-m', '{SERVER}'], stdin=subprocess.PIPE); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        port = int(owner.stdout.readline())
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert owner.stdout.read() == "", "reading ends when the last process that holds the pipe has ended"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_in_use_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", SERVER, "--port", str(port)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"Error: 127.0.0.1:{port}: ")
    assert "run.embedded_port" in line
