"""Servers that misbehave: what each way costs, and what becomes of the question."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stages.lib.params import load_params
from stages.lib.store.answer_store import open_store
from stages.lib.store_tools.transfer import exported_records, import_answers
from stages.lib.teacher.asking import AskResult, Respondent, ask_missing, chat_request
from tests.distill_runner import DistillRunner, Serve, completion, good, prompted, question, reset


async def too_many(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})


async def broken_inside(request: web.Request) -> web.StreamResponse:
    html = "<html><body><h1>500 Internal Server Error</h1>\n</body></html>"
    return web.Response(text=html, content_type="text/html", status=500)


async def bad_gateway(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>\n<h1>502 Bad Gateway</h1>\n</html>", content_type="text/html", status=502)


async def overloaded(request: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


async def connection_reset(request: web.Request) -> web.StreamResponse:
    reset(request)
    return web.Response()


async def reset_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "The ans')
    reset(request)
    return response


async def cut_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "The ans')
    assert request.transport
    request.transport.close()
    return response


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def hang_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "The ans')
    await asyncio.sleep(30)
    return response


async def truncated(request: web.Request) -> web.StreamResponse:
    return web.Response(text='{"choices": [{"message": {"content": "The ans', content_type="application/json")


async def no_utf_8(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"choices": [{"message": {"content": "\xd0"}}]}', content_type="application/json")


async def html_page(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>Log in to the network</html>", content_type="text/html")


async def nothing(request: web.Request) -> web.StreamResponse:
    return web.Response(text="", content_type="application/json")


async def blank_lines(request: web.Request) -> web.StreamResponse:
    return web.Response(text="\n\n\n", content_type="application/json")


async def error_object(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "overloaded", "code": 503}})


async def without_choices(request: web.Request) -> web.StreamResponse:
    return web.json_response({"model": "served-model", "choices": []})


Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAULTS: list[tuple[Fault, str, int | None]] = [
    (too_many, "http_429", 429),
    (broken_inside, "http_500", 500),
    (bad_gateway, "http_502", 502),
    (overloaded, "http_503", 503),
    (connection_reset, "no_connection", None),
    (reset_in_the_middle, "no_connection", None),
    (cut_in_the_middle, "no_connection", None),
    (hang, "timeout", None),
    (hang_in_the_middle, "timeout", None),
    (truncated, "not_json", 200),
    (no_utf_8, "not_json", 200),
    (html_page, "not_json", 200),
    (nothing, "empty_body", 200),
    (blank_lines, "empty_body", 200),
    (error_object, "server_error", 200),
    (without_choices, "no_choices", 200),
]
with_each_fault = pytest.mark.parametrize(
    ("fault", "reason", "status"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS]
)


@with_each_fault
def test_a_fault_that_passes_costs_calls_and_no_answer(
    runner: DistillRunner, serve: Serve, fault: Fault, reason: str, status: int | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await fault(request) if attempt <= 2 and "99" in content else completion()

    server = serve(route)
    runner.use(server)
    runner.set(timeout_s=0.3)
    runner.ask(question(0), question(1, "99 + 1"), question(2))
    runner.run()
    assert Counter(server.asked) == {prompted(q["question"]): 1 for q in (question(0), question(2))} | {
        prompted("99 + 1"): 3
    }
    assert len(runner.distilled()) == 3
    assert runner.failures() == []


@with_each_fault
def test_a_fault_that_stays_is_a_row_with_its_reason_and_is_asked_again_next_time(
    runner: DistillRunner, serve: Serve, fault: Fault, reason: str, status: int | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await fault(request) if attempt <= 3 and "99" in content else completion()

    server = serve(route)
    runner.use(server)
    runner.set(timeout_s=0.3, max_failed_share=0.5)
    runner.ask(question(0), question(1, "99 + 1"), question(2))
    runner.run()
    (row,) = runner.failures()
    assert (row["id"], row["sample"], row["question"]) == ("q-1", 0, "99 + 1")
    assert (row["reason"], row["status"], row["attempts"]) == (reason, status, 3)
    assert runner.stored() == 2
    assert len(server.asked) == 5
    runner.run()
    assert server.asked[5:] == [prompted("99 + 1")]
    assert runner.failures() == []
    assert len(runner.distilled()) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": ""}, "empty_response"),
        ({"content": None}, "empty_response"),
        ({"reasoning_content": ""}, "empty_reasoning"),
        ({"reasoning_content": None}, "empty_reasoning"),
        ({"finish_reason": "length"}, "cut_off"),
        ({"finish_reason": "length", "content": ""}, "cut_off"),
        ({"finish_reason": "content_filter", "content": ""}, "refused"),
    ],
)
def test_an_answer_of_no_use_is_a_failure_row_and_is_paid_for_once(
    runner: DistillRunner, serve: Serve, answer: dict[str, Any], reason: str
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(**answer) if "99" in content else completion()

    server = serve(route)
    runner.use(server)
    runner.set(max_failed_share=0.5)
    runner.ask(question(0), question(1, "99 + 1"))
    for _ in range(2):
        runner.run()
        (row,) = runner.failures()
        assert (row["reason"], row["status"], row["attempts"]) == (reason, 200, 1)
        assert len(runner.distilled()) == 1
        assert len(server.asked) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_is_one_row_without_a_second_call(runner: DistillRunner, serve: Serve, status: int) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        error = {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}
        return web.json_response({"error": error}, status=status) if "99" in content else completion()

    server = serve(route)
    runner.use(server)
    runner.set(max_failed_share=0.5)
    runner.ask(question(0), question(1, "99 + 1"))
    runner.run()
    (row,) = runner.failures()
    assert (row["reason"], row["status"], row["attempts"]) == ("refused", status, 1)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "code"), [(401, None), (402, None), (403, None), (404, "model_not_found"), (429, "insufficient_quota")]
)
def test_a_refusal_of_everything_stops_the_run_in_one_line(
    runner: DistillRunner, serve: Serve, status: int, code: str | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while len(server.asked) < 4:  # all workers at once
            await asyncio.sleep(0.001)
        return web.json_response({"error": {"message": "No.\nNot you.", "code": code}}, status=status)

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(50)))
    line = runner.refused()
    assert line.startswith(f"{server.base_url}: ")
    assert str(status) in line
    assert len(server.asked) == 4


def test_what_is_under_way_when_a_refusal_comes_is_received_and_kept(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while len(server.asked) < 4:  # all workers at once
            await asyncio.sleep(0.001)
        if "99" in content:
            return web.json_response({"error": {"message": "no credit"}}, status=402)
        await asyncio.sleep(0.3)
        return completion()

    server = serve(route)
    runner.use(server)
    runner.ask(question(99, "99 + 1"), *(question(number) for number in range(50)))
    runner.refused()
    assert len(server.asked) == 4
    assert runner.stored() == 3


@pytest.mark.parametrize(
    ("message", "code"),
    [("Model Not Exist", "invalid_request_error"), ("no such model", "model_not_found"), ("unpaid", "Arrearage")],
    ids=["DeepSeek", "a code", "DashScope's credit"],
)
def test_a_400_that_no_question_can_pass_stops_the_run(
    runner: DistillRunner, serve: Serve, message: str, code: str
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return web.json_response({"error": {"message": message, "code": code}}, status=400)

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(50)))
    line = runner.refused()
    assert f"the server answers 400 for model 'chain-sum-solver': {message}" in line
    assert "distill.teacher" in line
    assert len(server.asked) <= 4


def test_keep_alive_lines_before_a_good_body_are_answered(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(5):
            await response.write(b"\n")
            await asyncio.sleep(0.02)
        body = completion().body
        assert isinstance(body, bytes)
        await response.write(body)
        return response

    server = serve(route)
    runner.use(server)
    runner.ask(question(0))
    runner.run()
    assert runner.distilled()[0]["response"] == "The answer is 2."
    assert len(server.asked) == 1


FAULT_SHARES = {
    **dict.fromkeys(("rate_limit", "rate_limit_retry_after", "server_error", "bad_gateway", "unavailable"), 0.05),
    **dict.fromkeys(("hang", "reset", "body_cut", "truncated_json", "empty_body", "blank_lines"), 0.05),
    **dict.fromkeys(("error_object", "no_choices"), 0.05),
    **dict.fromkeys(("length", "empty_content", "empty_reasoning", "content_filter"), 0.05),
}


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.heavy)], ids=["whole", "streamed"])
def test_a_rehearsal_of_all_faults_at_once_accounts_for_every_question(
    runner: DistillRunner, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    size, samples = 75, 2
    runner.set(faults=FAULT_SHARES, stream=stream, timeout_s=0.8, concurrency=12, max_failed_share=1.0)
    runner.set(samples_per_question=samples)
    runner.ask(*(question(number) for number in range(size)))
    runner.run()
    distilled, failures, metrics = runner.distilled(), runner.failures(), runner.metrics()
    rows = [(row["id"], row["sample"]) for row in distilled + failures]
    assert sorted(rows) == sorted((f"q-{number}", sample) for number in range(size) for sample in range(samples))
    assert metrics["in"] == size * samples == metrics["distilled"] + metrics["failed"]
    assert set(metrics["failed_by_reason"]) == {"cut_off", "empty_response", "empty_reasoning", "refused"}
    assert metrics["failed_by_reason"] == dict(sorted(Counter(row["reason"] for row in failures).items()))
    assert {row["status"] for row in failures if row["reason"] == "refused"} == {400}
    assert all(row["attempts"] >= 1 for row in failures)
    for reason, count in metrics["failed_by_reason"].items():
        assert f"{count} {reason}" in caplog.messages[-2], "the summary counts each kind"
    assert "'make retry' asks for them again" in caplog.messages[-1]
    asked = len(runner.requested())
    assert asked > size * samples, "what passes was asked again"
    before = runner.outputs()
    runner.run()
    assert len(runner.requested()) - asked == metrics["failed_by_reason"]["refused"], "a refusal is not paid for"
    assert runner.outputs() == before


@pytest.mark.parametrize("finish_reason", ["insufficient_system_resource", "error", "abort"])
def test_an_answer_that_the_server_broke_off_is_asked_for_again(
    runner: DistillRunner, serve: Serve, finish_reason: str
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(finish_reason if attempt == 1 else "stop")

    server = serve(route)
    runner.use(server)
    runner.ask(question(1))
    runner.run()
    assert len(server.asked) == 2
    assert runner.metrics()["distilled"] == 1


def test_what_came_before_a_refusal_is_kept(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if len(server.asked) <= 20 else web.json_response({"error": {}}, status=402)

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(50)))
    runner.refused()
    assert runner.stored() == 20
    first, stored = len(server.asked), runner.stored()
    server.route = good
    runner.run()
    assert len(server.asked) - first == 50 - stored


TOLERATED = (error_object, connection_reset, broken_inside)


@pytest.mark.parametrize("fault", [html_page, truncated, nothing, *TOLERATED])
def test_a_server_that_answers_nonsense_to_everything_fails_the_stage_in_one_line(
    runner: DistillRunner, serve: Serve, fault: Fault
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion() if content == prompted(question(0)["question"]) else await fault(request)

    server = serve(route)
    runner.use(server)
    runner.set(max_failed_share=0.5)
    runner.ask(*(question(number) for number in range(8)))
    line = runner.refused(leaves=("distill_failures.jsonl",) if fault in TOLERATED else ())
    reason = next(reason for known, reason, _ in FAULTS if known is fault)
    assert reason in line
    if fault in TOLERATED:  # 7 questions are too few to stop for
        assert "7 of 8" in line
        assert len(runner.failures()) == 7, "they are there to be looked at"
        assert "max_failed_share" in line
    else:
        assert line.startswith(f"{server.base_url}: the server answers 200 for model 'chain-sum-solver' ({reason}): ")
        assert "4 questions in a row failed like that" in line
        assert len(server.asked) <= 1 + 4 * 3, "a few bodies that cannot be read are enough"
    assert runner.stored() == 1, "what was received is kept"
    assert "The answer is 2." in runner.store.read_text()


def test_nobody_listening_is_one_line(runner: DistillRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runner.ask(question(0), question(1))
    runner.set(kind="openai_compatible", base_url=f"http://127.0.0.1:{port}/v1")
    line = runner.refused()
    assert line.startswith(f"http://127.0.0.1:{port}/v1: no server has answered for ")
    assert "distill.teacher.base_url" in line


@pytest.mark.parametrize(("share", "ends_well"), [(0.2, True), (0.19, False), (0.0, False), (1.0, True)])
def test_the_share_of_failures_decides(runner: DistillRunner, serve: Serve, share: float, ends_well: bool) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(content="") if "99" in content else completion()

    runner.use(serve(route))
    runner.set(max_failed_share=share)
    runner.ask(*(question(number) for number in range(8)), question(8, "99 + 1"), question(9, "99 + 2"))
    if ends_well:
        runner.run()
        assert runner.metrics()["failed_by_reason"] == {"empty_response": 2}
        assert [row["id"] for row in runner.failures()] == ["q-8", "q-9"]
    else:
        assert "2 of 10" in runner.refused(leaves=("distill_failures.jsonl",))


def test_all_failing_is_counted_where_params_allow_it(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(content="")

    runner.use(serve(route))
    runner.set(max_failed_share=1.0)
    runner.ask(question(0), question(1))
    runner.run()
    assert (runner.metrics()["in"], runner.metrics()["distilled"], runner.metrics()["failed"]) == (2, 0, 2)
    assert runner.distilled() == []


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"completion_tokens": None, "prompt_tokens": None},
        {"completion_tokens": "9", "prompt_tokens": [3]},
        {"completion_tokens": {"total": 9}},
    ],
)
def test_a_strange_usage_costs_no_answer(runner: DistillRunner, serve: Serve, usage: Any) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        message = {"reasoning_content": "1", "content": "2"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    runner.use(serve(route))
    runner.ask(question(0))
    runner.run()
    assert runner.distilled()[0]["usage"] == (usage or {})
    assert (runner.metrics()["completion_tokens"], runner.metrics()["prompt_tokens"]) == (0, 0)


def test_what_is_in_flight_is_kept_when_the_questions_cannot_be_read_any_more(
    runner: DistillRunner, serve: Serve
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return completion()

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=2)
    named = runner.arguments()
    params = load_params(Path(named[named.index("--params") + 1]))
    respondent = Respondent("distill", "distill.teacher", params.distill.teacher, "teacher")
    passes = 0

    def requests() -> Iterator[dict[str, Any]]:
        nonlocal passes
        passes += 1
        for number in range(12):
            if passes == 2 and number == 6:  # the disk gives the file no more, while the first answers are on their way
                raise OSError(5, "Input/output error")
            yield chat_request(
                respondent.identity(params.run), params.distill.teacher, f"What is {number} + 1?", sample=0
            )

    with open_store(runner.store) as store, pytest.raises(OSError, match="Input/output error"):
        ask_missing(respondent, requests, params.run, store, AskResult())
    assert len(server.asked) >= 2
    assert runner.stored() == len(server.asked)


def test_what_came_after_the_store_was_replaced_is_rescued_beside_it(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        if runner.store.exists() and not replaced:
            copy = runner.store.with_name("saved by an editor")
            copy.write_bytes(runner.store.read_bytes())
            replaced.append(copy.replace(runner.store))
        return completion()

    replaced: list[Path] = []
    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(12)))
    line = runner.refused()
    (rescued,) = runner.store.parent.glob("answers.rescued.*.jsonl")
    assert f"make store-import FILE={rescued}" in line
    import_answers(rescued, runner.store, exported_records)
    assert runner.stored() == len(server.asked) >= 4
    runner.run()
    assert len(server.asked) == 12


def test_a_question_that_was_added_while_the_stage_asked_is_one_line(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if "9 + 9" not in content:
            runner.ask(question(0), question(1, "9 + 9"))
        return completion()

    server = serve(route)
    runner.use(server)
    runner.set(concurrency=1)
    runner.ask(question(0))
    assert runner.refused().startswith(f"{runner.folder / 'questions.jsonl'}: the questions changed during the run")
    runner.run()
    assert len(server.asked) == 2
