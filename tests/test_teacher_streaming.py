"""Answers read as they are written: the same rows, the raw events in the store, and what becomes of a broken stream."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.distill_runner import DistillRunner, Serve, completion, question, reset

Deltas = list[dict[str, Any]]
ANSWER: Deltas = [
    {"role": "assistant"},
    {"reasoning_content": "1 + 1 "},
    {"reasoning_content": "= 2"},
    {"content": "2."},
]


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def events(deltas: Deltas) -> list[bytes]:
    """A whole stream: a comment, the deltas, why it ended, the usage, the end."""
    pieces = [b": keep-alive\n\n"]
    pieces += [event({"model": "served-model", "choices": [{"delta": delta}]}) for delta in deltas]
    pieces.append(event({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    return [*pieces, event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"]


async def stream(request: web.Request, pieces: list[bytes]) -> web.StreamResponse:
    """Send such pieces one after the other; the response is left open."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    return response


async def good(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    return await stream(request, events(ANSWER))


@pytest.fixture
def streaming(runner: DistillRunner) -> DistillRunner:
    runner.set(stream=True)
    return runner


def test_streamed_and_whole_answers_are_the_same_rows(runner: DistillRunner) -> None:
    runner.ask(*(question(number) for number in range(12)), question(12, "Why is the sky blue?"))
    runner.set(max_tokens=17, max_failed_share=1.0)
    runner.run("whole")
    runner.store = runner.folder / "streamed.jsonl"
    runner.set(stream=True)
    runner.run("streamed")
    assert runner.outputs("streamed") == runner.outputs("whole")
    assert runner.metrics("whole")["failed_by_reason"]["cut_off"] > 0
    bodies = [json.loads(line)["body"] for line in runner.store.read_bytes().splitlines()]
    assert len(bodies) == 13
    assert all(body.startswith("data: ") for body in bodies)


def test_how_an_answer_is_read_does_not_ask_for_it_anew(runner: DistillRunner) -> None:
    runner.ask(question(0), question(1))
    runner.run()
    runner.set(stream=True)
    runner.run()
    assert len(runner.requested()) == 2


def test_the_raw_events_are_stored_and_usage_is_asked_for(streaming: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    streaming.use(server)
    streaming.ask(question(0))
    streaming.run()
    (line,) = streaming.store.read_bytes().splitlines()
    assert json.loads(line)["body"].encode() == b"".join(events(ANSWER))
    assert "stream" not in json.loads(line)["request"]
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    (row,) = streaming.distilled()
    assert (row["reasoning"], row["response"], row["finish_reason"]) == ("1 + 1 = 2", "2.", "stop")
    assert (row["model"], row["usage"]) == ("served-model", {"prompt_tokens": 3, "completion_tokens": 9})


@pytest.mark.parametrize(
    "deltas",
    [
        [{"reasoning_content": "Add"}, {"reasoning_content": " them."}, {"content": "It is 2."}],
        [{"reasoning": "Add"}, {"reasoning": " them."}, {"content": "It is 2."}],
        [{"reasoning": None, "reasoning_content": "Add them."}, {"content": "It is 2.", "reasoning_content": None}],
        [{"content": "<thi"}, {"content": "nk>Add them.</th"}, {"content": "ink>It is 2."}],
        [{"content": "Add them.\n</think>"}, {"content": "\n\nIt is 2."}],
    ],
    ids=["reasoning_content", "reasoning", "null for the other", "<think>", "a lone </think>"],
)
@pytest.mark.parametrize("as_stream", [False, True], ids=["whole", "streamed"])
def test_the_reasoning_is_found_wherever_servers_put_it(
    runner: DistillRunner, serve: Serve, deltas: Deltas, as_stream: bool
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if as_stream:
            return await stream(request, events(deltas))
        message: dict[str, Any] = {"reasoning_content": ""}
        for name, text in ((name, text) for delta in deltas for name, text in delta.items()):
            message[name] = message.get(name, "") + (text or "")
        return completion(**message)

    runner.use(serve(route))
    runner.set(stream=as_stream)
    runner.ask(question(0))
    runner.run()
    (row,) = runner.distilled()
    assert (row["reasoning"], row["response"]) == ("Add them.", "It is 2.")


HALF = events(ANSWER)[:4]


async def reset_midway(request: web.Request) -> web.StreamResponse:
    response = await stream(request, HALF)
    await asyncio.sleep(0.02)
    reset(request)
    return response


async def cut_midway(request: web.Request) -> web.StreamResponse:
    response = await stream(request, HALF)
    assert request.transport
    request.transport.close()
    return response


async def cut_within_an_event(request: web.Request) -> web.StreamResponse:
    return await stream(request, [*HALF, b'data: {"choices": [{"del'])


async def ends_early(request: web.Request) -> web.StreamResponse:
    return await stream(request, HALF)


async def silent_midway(request: web.Request) -> web.StreamResponse:
    response = await stream(request, HALF)
    await asyncio.sleep(30)
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = await stream(request, HALF)
    while True:
        await asyncio.sleep(0.02)
        await response.write(b": keep-alive\n\n")


async def error_midway(request: web.Request) -> web.StreamResponse:
    return await stream(request, [*HALF, event({"error": {"message": "overloaded"}}), b"data: [DONE]\n\n"])


async def no_events(request: web.Request) -> web.StreamResponse:
    return await stream(request, [])


async def not_gzip(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"no gzip", headers={"Content-Type": "text/event-stream", "Content-Encoding": "gzip"})


async def too_many(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})


BREAKS: list[tuple[Callable[[web.Request], Awaitable[web.StreamResponse]], str, int | None]] = [
    (reset_midway, "no_connection", None),
    (cut_midway, "no_connection", None),
    (cut_within_an_event, "not_json", 200),
    (ends_early, "broken_off", 200),
    (silent_midway, "timeout", None),
    (endless, "timeout", None),
    (error_midway, "server_error", 200),
    (no_events, "empty_body", 200),
    (not_gzip, "no_connection", None),
    (too_many, "http_429", 429),
]


@pytest.mark.parametrize(("fault", "reason", "status"), BREAKS, ids=[fault.__name__ for fault, _, _ in BREAKS])
def test_a_broken_stream_is_asked_again_and_stays_a_failure_where_it_stays_broken(
    streaming: DistillRunner,
    serve: Serve,
    fault: Callable[[web.Request], Awaitable[web.StreamResponse]],
    reason: str,
    status: int | None,
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        broken = ("99" in content and attempt <= 2) or "88" in content
        return await fault(request) if broken else await good(request, content, attempt)

    server = serve(route)
    streaming.use(server)
    streaming.set(timeout_s=0.3, max_failed_share=0.5)
    streaming.ask(question(0), question(1, "99 + 1"), question(2, "88 + 1"))
    streaming.run()
    assert [row["id"] for row in streaming.distilled()] == ["q-0", "q-1"]
    (row,) = streaming.failures()
    assert (row["id"], row["reason"], row["status"], row["attempts"]) == ("q-2", reason, status, 3)
    assert len(server.asked) == 1 + 3 + 3
    assert streaming.stored() == 2


@pytest.mark.parametrize(("status", "code"), [(401, None), (402, None), (404, "model_not_found")])
def test_a_refusal_of_everything_is_one_line_in_a_stream_too(
    streaming: DistillRunner, serve: Serve, status: int, code: str | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return web.json_response({"error": {"message": "No.", "code": code}}, status=status)

    server = serve(route)
    streaming.use(server)
    streaming.ask(*(question(number) for number in range(20)))
    assert f"answers {status} for model" in streaming.refused()
    assert len(server.asked) <= 4
