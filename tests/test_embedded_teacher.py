"""The embedded teacher: a real server that solves what it reads, slips on a set share, and ends with its owner.

It also streams, commits the faults that it is told to, and marks as the strict teacher.
"""

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
from typing import Any, get_args

import pytest

from stages.lib.params import EmbeddedTeacher, Fault, prompt_text
from stages.lib.teacher.backends.embedded import identity

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

    def ask_raw(self, question: str, **more: Any) -> http.client.HTTPResponse:
        """The response with its body not read yet, over a connection of its own."""
        self.connection.close()
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"model": MODEL, "messages": messages} | more).encode()
        self.connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        return self.connection.getresponse()

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
        assert process.stderr
        assert process.stderr.read() == "", "no fault may be one of the server's own"


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


@pytest.mark.heavy
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


@pytest.mark.heavy
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


@pytest.mark.heavy
@pytest.mark.parametrize(("share", "right"), [(0, 100), (1, 0)])
def test_share_0_is_always_right_and_share_1_always_wrong(serve: Callable[..., Server], share: int, right: int) -> None:
    server = serve("--slip-share", share)
    questions = made_up(100, seed=24)
    assert sum(final(server.answer(question.text)[1]) == sum(question.terms) for question in questions) == right


# streaming


def events(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end with [DONE]; comments are left out."""
    *blocks, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert all(block.startswith(("data: ", ": ")) for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks if block.startswith("data: ")]


def joined(chunks: list[dict[str, Any]], name: str) -> str:
    return "".join(choice["delta"].get(name, "") for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("max_tokens", [None, 1, 9, 12])
def test_a_streamed_answer_is_the_same_answer(serve: Callable[..., Server], max_tokens: int | None) -> None:
    server = serve("--slip-share", 0.3)
    for question in made_up(20, seed=31):
        whole = server.chat(question.text, max_tokens=max_tokens)[1]
        response = server.ask_raw(
            question.text, max_tokens=max_tokens, stream=True, stream_options={"include_usage": True}
        )
        assert (response.status, response.getheader("Content-Type")) == (200, "text/event-stream")
        *chunks, last = events(response.read().decode())
        (choice,) = whole["choices"]
        assert joined(chunks, "reasoning_content") == choice["message"]["reasoning_content"]
        assert joined(chunks, "content") == choice["message"]["content"]
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert reasons == [None] * (len(chunks) - 1) + [choice["finish_reason"]]
        assert {chunk["usage"] for chunk in chunks} == {None}
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert {chunk["object"] for chunk in [*chunks, last]} == {"chat.completion.chunk"}


def test_a_stream_is_in_pieces_the_reasoning_first(serve: Callable[..., Server]) -> None:
    chunks = events(serve().ask_raw("51 + 22 - 80", stream=True).read().decode())
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    kinds = [next(iter(delta)) for delta in deltas[1:-1]]
    assert kinds == sorted(kinds, reverse=True), "reasoning_content, then content"
    assert kinds.count("reasoning_content") > 1
    assert kinds.count("content") > 1


def test_a_stream_says_usage_only_where_it_is_asked_to(serve: Callable[..., Server]) -> None:
    for options in ({}, {"stream_options": {"include_usage": False}}):
        chunks = events(serve().ask_raw("51 + 22 - 80", stream=True, **options).read().decode())
        assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)


def test_a_long_stream_holds_keep_alive_comments(serve: Callable[..., Server]) -> None:
    text = serve().ask_raw(" + ".join("1" * 20), stream=True).read().decode()
    assert text.count("\n\n: keep-alive\n\n") > 1


# faults


def faulty(fault: str, share: float = 1) -> tuple[str, str]:
    return "--faults", json.dumps({fault: share})


def assert_answered(server: Server, question: str, **more: Any) -> None:
    response = server.ask_raw(question, **more)
    assert response.status == 200
    body = response.read().decode()
    content = joined(events(body), "content") if more else json.loads(body)["choices"][0]["message"]["content"]
    assert content == "The answer is 3."


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "retry_after"),
    [
        ("rate_limit", 429, "application/json", None),
        ("rate_limit_retry_after", 429, "application/json", "1"),
        ("server_error", 500, "text/html", None),
        ("bad_gateway", 502, "text/html", None),
        ("unavailable", 503, "text/html", None),
    ],
)
@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_a_status_strikes_the_first_attempt_only(
    serve: Callable[..., Server],
    fault: str,
    status: int,
    content_type: str,
    retry_after: str | None,
    more: dict[str, Any],
) -> None:
    server, question = serve(*faulty(fault)), f"{more} 1 + 2"
    response = server.ask_raw(question, **more)
    assert response.status == status
    assert str(response.getheader("Content-Type")).startswith(content_type)
    assert response.getheader("Retry-After") == retry_after
    body = response.read()
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded" if status == 429 else body.startswith(b"<html>")
    assert_answered(server, question, **more)


@pytest.mark.heavy
def test_a_hang_sends_nothing_once(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(*faulty("hang"))
    monkeypatch.setattr(server.connection, "timeout", 1)
    with pytest.raises(TimeoutError):
        server.ask_raw("1 + 2")
    assert_answered(server, "1 + 2")


@pytest.mark.heavy
def test_a_hanging_stream_begins_and_then_says_no_more(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(*faulty("hang"))
    monkeypatch.setattr(server.connection, "timeout", 1)
    response = server.ask_raw("streamed: 1 + 2", stream=True)
    assert response.readline().startswith(b"data: ")
    with pytest.raises(TimeoutError):
        response.read()
    assert_answered(server, "streamed: 1 + 2", stream=True)


@pytest.mark.heavy
def test_a_reset_breaks_the_connection_once(serve: Callable[..., Server]) -> None:
    server = serve(*faulty("reset"))
    with pytest.raises(ConnectionResetError):
        server.ask_raw("1 + 2")
    assert_answered(server, "1 + 2")


@pytest.mark.heavy
def test_a_reset_stream_breaks_off_midway_once(serve: Callable[..., Server]) -> None:
    server = serve(*faulty("reset"))
    response = server.ask_raw("streamed: 1 + 2", stream=True)
    assert response.readline().startswith(b"data: ")
    with pytest.raises(ConnectionResetError):
        response.read()
    assert_answered(server, "streamed: 1 + 2", stream=True)


@pytest.mark.heavy
@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_a_cut_body_is_shorter_than_announced_once(serve: Callable[..., Server], more: dict[str, Any]) -> None:
    server, question = serve(*faulty("body_cut")), f"{more} 1 + 2"
    response = server.ask_raw(question, **more)
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead) as error:
        response.read()
    assert error.value.partial or more, "http.client keeps no part of a chunked body"
    assert_answered(server, question, **more)


@pytest.mark.heavy
def test_truncated_json_comes_as_a_whole_response_once(serve: Callable[..., Server]) -> None:
    server = serve(*faulty("truncated_json"))
    response = server.ask_raw("1 + 2")
    assert response.status == 200
    body = response.read()
    assert body.startswith(b'{"id"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    assert_answered(server, "1 + 2")


@pytest.mark.heavy
def test_a_truncated_stream_ends_within_an_event_once(serve: Callable[..., Server]) -> None:
    server = serve(*faulty("truncated_json"))
    body = server.ask_raw("streamed: 1 + 2", stream=True).read()
    assert body.startswith(b"data: ") and not body.endswith(b"\n\n")
    assert_answered(server, "streamed: 1 + 2", stream=True)


@pytest.mark.heavy
@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_an_empty_body_is_200_once(serve: Callable[..., Server], more: dict[str, Any]) -> None:
    server, question = serve(*faulty("empty_body")), f"{more} 1 + 2"
    response = server.ask_raw(question, **more)
    assert (response.status, response.read()) == (200, b"")
    assert_answered(server, question, **more)


@pytest.mark.heavy
@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_blank_lines_come_before_the_answer_and_keep_it_waiting(
    serve: Callable[..., Server], more: dict[str, Any]
) -> None:
    server, question = serve(*faulty("blank_lines")), f"{more} 1 + 2"
    started = time.monotonic()
    response = server.ask_raw(question, **more)
    first = response.readline()
    begun = time.monotonic() - started
    body = (first + response.read()).decode()
    assert time.monotonic() - started > begun + 0.2
    if more:
        assert body.startswith(": keep-alive\n\n" * 10)
        assert joined(events(body), "content") == "The answer is 3."
    else:
        assert body.startswith("\n" * 10)
        assert json.loads(body)["choices"][0]["message"]["content"] == "The answer is 3."
    assert_answered(server, question, **more)
    assert server.ask_raw(question).readline().startswith(b"{"), "the second attempt has none"


@pytest.mark.heavy
@pytest.mark.parametrize("fault", ["error_object", "no_choices"])
def test_another_object_than_an_answer_comes_with_200_once(serve: Callable[..., Server], fault: str) -> None:
    server = serve(*faulty(fault))
    status, body = server.chat("1 + 2")
    assert status == 200
    assert body["error"]["message"] if fault == "error_object" else body["choices"] == []
    (chunk,) = events(server.ask_raw("streamed: 1 + 2", stream=True).read().decode())
    assert chunk == body
    assert_answered(server, "1 + 2")
    assert_answered(server, "streamed: 1 + 2", stream=True)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("fault", "finish_reason", "reasoning", "content"),
    [
        ("length", "length", "1 + 2 =", ""),
        ("empty_content", "stop", "1 + 2 = 3", ""),
        ("empty_reasoning", "stop", "", "The answer is 3."),
    ],
)
def test_a_fault_of_the_answer_strikes_every_time(
    serve: Callable[..., Server], fault: str, finish_reason: str, reasoning: str, content: str
) -> None:
    server = serve(*faulty(fault))
    for _ in range(3):
        (choice,) = server.chat("1 + 2")[1]["choices"]
        assert choice["finish_reason"] == finish_reason
        assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == (reasoning, content)
        chunks = events(server.ask_raw("1 + 2", stream=True).read().decode())
        assert (joined(chunks, "reasoning_content"), joined(chunks, "content")) == (reasoning, content)


@pytest.mark.heavy
def test_the_content_filter_refuses_every_time_in_either_providers_words(serve: Callable[..., Server]) -> None:
    server = serve(*faulty("content_filter"))
    seen = []
    for question in made_up(20, seed=41):
        replies = [server.chat(question.text) for _ in range(2)]
        assert replies[0] == replies[1]
        assert replies[0][0] == 400
        seen.append(replies[0][1]["error"]["code"])
    assert set(seen) == {"content_filter", "data_inspection_failed"}


@pytest.mark.heavy
def test_each_fault_of_the_schema_is_committed(serve: Callable[..., Server]) -> None:
    """A kind that the schema names and the server does not know would answer as if nothing were wrong."""
    for fault in get_args(Fault):
        server = serve(*faulty(fault))
        server.connection.timeout = 1
        try:
            response = server.ask_raw("51 + 22")
            body = response.read()
        except (OSError, http.client.HTTPException):
            continue
        finally:
            server.connection.timeout = 30
        good = body[:5] == b'{"id"' and b"51 + 22 = 73" in body and b"The answer is 73." in body and b'"stop"' in body
        assert not good, fault


def struck(server: Server, questions: list[Sum]) -> list[str]:
    """Which fault each question meets at its first attempt."""
    names = {429: "rate_limit", 503: "unavailable"}
    found = []
    for question in questions:
        response = server.ask_raw(question.text)
        cut = b'"finish_reason": "length"' in response.read()
        found.append(names.get(response.status, "length" if cut else ""))
    return found


@pytest.mark.heavy
def test_which_question_meets_which_fault_is_drawn_from_question_and_seed(serve: Callable[..., Server]) -> None:
    questions = made_up(600, seed=42)
    shares = {"unavailable": 0.2, "length": 0.1, "rate_limit": 0.3}
    turned = dict(reversed(shares.items()))
    first = struck(serve("--faults", json.dumps(shares)), questions)
    again = struck(serve("--faults", json.dumps(turned)), questions[::-1])[::-1]
    other = struck(serve("--faults", json.dumps(shares), "--seed", 1), questions)
    assert first == again, "in whatever order the questions come and the faults are named"
    assert first != other
    for name, share in shares.items():
        assert abs(first.count(name) - 600 * share) < 4 * (600 * share * (1 - share)) ** 0.5


@pytest.mark.heavy
def test_faults_and_slips_are_drawn_apart(serve: Callable[..., Server]) -> None:
    questions = made_up(400, seed=43)
    server = serve("--slip-share", 0.5, *faulty("unavailable", 0.5))
    unavailable = [name == "unavailable" for name in struck(server, questions)]
    slipped = [final(server.answer(question.text)[1]) != sum(question.terms) for question in questions]
    both = sum(fault and slip for fault, slip in zip(unavailable, slipped, strict=True))
    assert abs(both - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5


@pytest.mark.heavy
@pytest.mark.parametrize("text", ["{", "[]", '{"rate_limt": 0.1}', '{"reset": 1.5}', '{"reset": "much"}'])
def test_faults_that_are_none_are_refused_with_the_options_name(text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", SERVER, "--faults", text]
    ended = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 2
    assert "'--faults'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_shapes_the_answers_is_in_the_identity() -> None:
    def with_faults(faults: dict[Fault, float]) -> EmbeddedTeacher:
        return EmbeddedTeacher(kind="embedded", model="m", max_tokens=None, slip_share=0.3, seed=3, faults=faults)

    kinds: list[dict[Fault, float]] = [{}, {"reset": 0.1}, {"reset": 0.2}, {"hang": 0.1}]
    assert len({identity(with_faults(faults)) for faults in kinds}) == 4
    assert identity(with_faults({"reset": 0.1, "hang": 0.1})) == identity(with_faults({"hang": 0.1, "reset": 0.1}))


# the strict teacher

VERDICT = re.compile(r"含义是否一致\W*(是|否)")


def to_mark(response: str, gold: str) -> str:
    return prompt_text("strict_teacher").replace("{question}", response + "\n" * 5 + gold)


def verdict(server: Server, response: str, gold: str) -> str:
    reasoning, reply = server.answer(to_mark(response, gold))
    assert reasoning
    assert "第一段总结" in reply and "第二段翻译" in reply
    (found,) = VERDICT.findall(reply)
    return str(found)


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("所以答案是12。", "4 * 3 = 12", "是"),
        ("所以答案是13。", "4 * 3 = 12", "否"),
        ("The answer is -7.", "51 + 22 = 73\n73 - 80 = -7", "是"),
        ("The answer is 7.", "51 + 22 = 73\n73 - 80 = -7", "否"),
        ("赛西,一共是 1,200 个", "600*2=<<600*2=1200>>1200\n#### 1200", "是"),
        ("答案是 12.0", "#### 12", "是"),
        ("10-3", "#### 3", "是"),
        ("我不知道。", "#### 3", "否"),
        ("", "#### 3", "否"),
        ("12" + "\n" * 9 + "答案是5", "#### 5", "是"),
        ("{question} 5 {}", "#### 5", "是"),
    ],
)
def test_it_marks_by_the_last_number_of_either_part(
    serve: Callable[..., Server], response: str, gold: str, expected: str
) -> None:
    assert verdict(serve(), response, gold) == expected


def test_it_replies_in_several_forms_the_same_each_time(serve: Callable[..., Server]) -> None:
    replies = [serve().answer(to_mark(f"{number}", f"{number}"))[1] for number in range(40)]
    forms = {re.sub(r"\d+", "N", reply) for reply in replies}
    assert len(forms) == 5
    assert replies == [serve().answer(to_mark(f"{number}", f"{number}"))[1] for number in range(40)]


@pytest.mark.heavy
@pytest.mark.parametrize("answer", [0, 1])
def test_it_marks_a_set_share_wrongly_on_both_sides(serve: Callable[..., Server], answer: int) -> None:
    right, wrong = ("是", "否") if answer == 0 else ("否", "是")
    server = serve("--slip-share", 0.25)
    verdicts = [verdict(server, f"第{number}题:{answer}", "0") for number in range(600)]
    assert abs(verdicts.count(wrong) - 150) < 4 * (600 * 0.25 * 0.75) ** 0.5
    assert verdicts.count(right) + verdicts.count(wrong) == 600
    assert {verdict(serve("--slip-share", 1), f"第{number}题:{answer}", "0") for number in range(20)} == {wrong}


def test_it_marks_only_what_the_marking_prompt_surrounds(serve: Callable[..., Server]) -> None:
    prompt = prompt_text("strict_teacher")
    no_material = prompt.replace("{question}", "1 + 2")
    for text in (no_material, "x" + to_mark("3", "3"), to_mark("1 + 2", "1 + 2").removeprefix("\n")):
        assert not VERDICT.search(serve().answer(text)[1])


@pytest.mark.heavy
def test_it_streams_and_fails_as_a_judge_too(serve: Callable[..., Server]) -> None:
    server, text = serve(*faulty("unavailable")), to_mark("5", "5")
    assert server.ask_raw(text).status == 503
    chunks = events(server.ask_raw(text, stream=True).read().decode())
    assert joined(chunks, "content") == server.answer(text)[1]


# its life


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


@pytest.mark.heavy
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
    assert "run.embedded.port" in line
