"""The same useless reply to question after question: the run stops, says what the server says, and pays no more."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from tests.distill_runner import KEY, DistillRunner, Route, Serve, completion, good, question

THINKING = "parameter.enable_thinking must be set to false for non-streaming calls"


def refusal(message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": "invalid_parameter_error"}}, status=400)


def refusing(message: str) -> Route:
    """A server that refuses the questions with a 99 in them."""

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return refusal(message) if "99" in content else completion()

    return route


def unread(runner: DistillRunner) -> list[dict[str, Any]]:
    path = runner.store.with_name("answers.unread.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_the_same_400_for_the_first_questions_stops_the_run_with_a_hint(
    runner: DistillRunner, serve: Serve, concurrency: int
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return refusal(THINKING)

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=concurrency, max_failed_share=1.0)
    runner.ask(*(question(number) for number in range(200)))
    line = runner.refused()
    assert f"the server answers 400 for model 'chain-sum-solver': {THINKING}. " in line
    assert "Set run.stream to true in params.yaml" in line
    assert len(server.asked) <= 5 + 2 * concurrency


def test_a_400_whose_numbers_differ_is_the_same_400(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return refusal(
            f"max_tokens is too large: 65536, {len(content)} in the prompt (request id: 2025{len(server.asked)})"
        )

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number, "9" * number) for number in range(1, 60)))
    assert "Change distill.teacher.max_tokens in params.yaml" in runner.refused()
    assert len(server.asked) <= 12


def test_a_refusal_among_answers_stops_nothing(runner: DistillRunner, serve: Serve) -> None:
    server = serve(refusing("No such luck."))
    runner.use(server)
    runner.set(concurrency=1, max_failed_share=0.8)
    runner.ask(*(question(n, f"{99 if n % 3 else 11} + {n}") for n in range(60)))
    runner.run()
    assert {row["error"] for row in runner.failures()} == {"No such luck."}
    assert len(runner.failures()) == 40


def test_questions_that_a_filter_refuses_one_after_the_other_are_rows(runner: DistillRunner, serve: Serve) -> None:
    server = serve(refusing("Input data may contain inappropriate content."))
    runner.use(server)
    runner.set(concurrency=1, max_failed_share=1.0)
    runner.ask(*(question(n, f"99 + {n}") for n in range(20)), question(30))
    runner.run()
    assert (len(runner.failures()), len(runner.distilled())) == (20, 1)


def test_a_run_for_the_few_that_are_always_refused_comes_to_its_end(runner: DistillRunner, serve: Serve) -> None:
    server = serve(refusing("No such luck."))
    runner.use(server)
    runner.set(concurrency=2, max_failed_share=0.2)
    runner.ask(*(question(n, f"11 + {n % 90}.{n // 90}") for n in range(100)))
    runner.run()
    runner.ask(
        *(question(n, f"11 + {n % 90}.{n // 90}") for n in range(100)),
        *(question(100 + n, f"99 + {n}") for n in range(9)),
    )
    runner.run()
    assert len(runner.failures()) == 9
    assert len(server.asked) == 109


BODIES = {
    "half a JSON": '{"choices": [{"message": {"content": "The ans',
    "a page": "<html><body><h1>Sign in</h1>to the network</body></html>",
    "content of another kind": '{"choices": [{"message": {"content": 2}, "finish_reason": "stop"}]}',
    "no choices": '{"id": "1", "output": {"text": "2"}}',
    "a stream without an end": 'data: {"choices": [{"delta": {"content": "2"}}]}\n\n',
    "given up": '{"choices": [{"message": {"content": "The ans"}, "finish_reason": "network_error"}]}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_cannot_be_read_is_kept_and_a_few_of_them_are_enough(
    runner: DistillRunner, serve: Serve, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return (
            completion() if len(server.asked) <= 20 else web.Response(text=f"{body} {KEY}", content_type="text/plain")
        )

    server = serve(route)
    runner.use(server)
    runner.set(max_failed_share=1.0)
    runner.ask(*(question(number) for number in range(200)))
    line = runner.refused()
    assert "the server answers 200 for model 'chain-sum-solver' (" in line
    assert "questions in a row failed like that. The bodies are next to the store" in line
    assert runner.stored() == 20
    kept = unread(runner)
    assert len(kept) == len(server.asked) - 20 <= 16, "every body is kept, and few were asked for"
    assert {row["body"] for row in kept} == {f"{body} (the key)"}
    assert all(row["request"]["messages"] and len(row["key"]) == 64 for row in kept)
    server.route = good
    runner.run()
    assert len(runner.distilled()) == 200, "its questions are asked again"


def test_a_server_that_drops_all_calls_in_flight_once_stops_nothing(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while len(server.asked) < 16:  # all workers at once
            await asyncio.sleep(0.001)
        return completion("abort") if attempt == 1 and len(server.asked) <= 16 else completion()

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=16)
    runner.ask(*(question(number) for number in range(40)))
    runner.run()
    assert len(runner.distilled()) == 40
    assert len(unread(runner)) == 16


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_broken_ends_the_run(runner: DistillRunner, serve: Serve, status: int) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return web.json_response({"error": {"message": "the engine is dead"}}, status=status)

    server = serve(route)
    runner.use(server)
    runner.set(max_failed_share=1.0)
    runner.ask(*(question(number) for number in range(200)))
    line = runner.refused()
    assert (
        f"the server answers {status} for model 'chain-sum-solver' (http_{status}): the engine is dead. 10 questions"
        in line
    )
    assert len(server.asked) < 60


def test_a_stage_that_fails_by_its_share_shows_the_servers_words(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return refusal("No such luck.") if "99" in content else completion()

    runner.use(serve(route))
    runner.ask(question(0), question(1, "99 + 1"), question(2, "99 + 2"))
    line = runner.refused(leaves=("distill_failures.jsonl",))
    assert 'The server said 2 times: "No such luck."' in line
