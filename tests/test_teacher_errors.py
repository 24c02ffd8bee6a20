"""Whose fault an error is: what servers were seen to send, in their own words, and what a run makes of it.

The bodies are from public threads and providers' tables of errors; ids and names are shortened.
"""

import json
import logging
from typing import Any

import pytest
from aiohttp import web

from stages.lib.replies.errors import Scope, classify_error, hint_for
from stages.lib.replies.server_message import ServerMessage, error_in, message_of
from stages.lib.teacher.waiting import asked_wait_s
from tests.distill_runner import KEY, DistillRunner, Serve, completion, question

Row = tuple[str, int, Any]
GEMINI_KEY = {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}
STOP: list[Row] = [  # no question can have an answer
    ("OpenAI, no credit", 429, {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}}),
    ("the same, type alone", 429, {"error": {"message": "No.", "type": "insufficient_quota", "code": None}}),
    (
        "Moonshot, no credit",
        429,
        {
            "error": {
                "message": "Your account is suspended, please check your plan and billing details",
                "type": "exceeded_current_quota_error",
            }
        },
    ),
    ("Moonshot as 403", 403, {"error": {"message": "not active", "type": "exceeded_current_quota_error"}}),
    ("Zhipu, no credit", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    ("Zhipu, in arrears", 429, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试。"}}),
    (
        "Z.ai, Anthropic's layout",
        429,
        {"type": "error", "error": {"type": "1113", "message": "Insufficient balance or no resource package."}},
    ),
    ("Z.ai, five hours", 429, {"error": {"code": "1308", "message": "Usage limit reached for 5 hour."}}),
    ("DeepSeek", 402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}),
    ("DashScope, in arrears", 400, {"error": {"message": "Access denied, in good standing?", "code": "Arrearage"}}),
    (
        "DashScope, free tier",
        403,
        {"error": {"message": "The free quota has been exhausted.", "type": "AllocationQuota.FreeTierOnly"}},
    ),
    ("SiliconFlow", 403, {"code": 30011, "message": "Your paid balance is insufficient. Please top up.", "data": None}),
    (
        "MiniMax as 500",
        500,
        {"type": "error", "error": {"type": "api_error", "message": "insufficient balance (1008)"}},
    ),
    ("MiniMax in its own place", 200, {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "no funds"}}),
    (
        "xAI",
        429,
        {
            "code": "Some resource has been exhausted",
            "error": "Your team has either used all available credits or reached its monthly spending limit.",
        },
    ),
    ("OpenCode", 401, {"message": "Insufficient balance.", "type": "CreditsError", "param": "", "code": None}),
    ("one-api", 403, {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}),
    ("new-api", 403, {"error": {"message": "用户额度不足, 剩余额度: ＄-0.000002", "type": "new_api_error"}}),
    ("Anthropic's", 400, {"error": {"message": "Your credit balance is too low to access the API."}}),
    (
        "OpenRouter",
        402,
        {"error": {"code": 402, "message": "This request requires more credits, or fewer max_tokens."}},
    ),
    ("OpenRouter, inside a 200", 200, {"error": {"code": 402, "message": "Prompt tokens limit exceeded"}}),
    (
        "OpenRouter, its provider's words",
        429,
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {"raw": '{"error":{"message":"x","type":"exceeded_current_quota_error"}}'},
            }
        },
    ),
    (
        "OpenRouter, a day's limit",
        429,
        {"error": {"message": "Rate limit exceeded: free-models-per-day. Add 10 credits", "code": 429}},
    ),
    ("LiteLLM, budget", 400, {"error": {"message": "Budget has been exceeded! Current cost: 1.0", "code": "400"}}),
    ("OpenAI, key", 401, {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}}),
    ("Gemini, key", 400, [{"error": GEMINI_KEY}]),
    ("Gemini, nested", 400, {"error": {"message": json.dumps({"error": GEMINI_KEY}), "code": 400}}),
    ("a token, inside a 200", 200, {"error": {"message": "token expired or incorrect"}}),
    ("Zhipu, token", 401, {"error": {"code": "1002", "message": "令牌已过期或验证不正确"}}),
    ("SiliconFlow, model", 400, {"code": 20012, "message": "Model does not exist. Please check it.", "data": None}),
    ("vLLM, model", 404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError"}),
    ("DeepSeek, model", 400, {"error": {"message": "Model Not Exist", "type": "invalid_request_error"}}),
    ("Zhipu, model", 400, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码。"}}),
    (
        "one-api, model",
        503,
        {"error": {"message": "当前分组 default 下对于模型 x 无可用渠道", "type": "one_api_error"}},
    ),
    ("Ollama, model", 404, {"error": "model 'x' not found, try pulling it first"}),
    ("OpenAI, country", 403, {"error": {"code": "unsupported_country_region_territory", "message": "not supported"}}),
    ("a proxy's page", 403, "<html><title>Attention Required! | Cloudflare</title><h1>Sorry</h1></html>"),
]
REFUSE: list[Row] = [  # this question alone
    ("OpenAI", 400, {"error": {"message": "Rejected by our safety system.", "code": "content_policy_violation"}}),
    (
        "Azure",
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering content management policy.",
                "code": None,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        },
    ),
    ("DashScope", 400, {"error": {"message": "Input data may contain inappropriate content.", "code": "x"}}),
    ("DeepSeek", 400, {"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}),
    ("DeepSeek, older", 400, {"detail": "Content Exists Risk"}),
    ("Zhipu", 400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
    ("Volcengine", 400, {"error": {"code": "InputTextSensitiveContentDetected", "message": "It may."}}),
    (
        "MiniMax, inside a 200",
        200,
        {"choices": None, "base_resp": {"status_code": 1026, "status_msg": "new_sensitive"}},
    ),
    (
        "OpenRouter",
        403,
        {
            "error": {
                "code": 403,
                "message": 'x requires moderation. Your input was flagged for "violence". No credits were charged.',
                "metadata": {"reasons": ["violence"], "flagged_input": "What is"},
            }
        },
    ),
    ("a filter, inside a 200", 200, {"error": {"message": "The response was filtered", "code": "content_filter"}}),
    ("vLLM, length", 400, {"object": "error", "message": "This model's maximum context length is 1 tokens."}),
    ("SiliconFlow, length", 400, {"code": 20015, "message": "length of prompt_tokens (68957) must be less than max"}),
    ("llama.cpp, length", 500, {"error": {"message": "the request exceeds the available context size (512 tokens)"}}),
    ("TGI, inside a 200", 200, {"code": 400, "message": "Requested sample logprobs of 21, more than 20"}),
    ("FastAPI", 422, {"detail": [{"loc": ["body"], "msg": "Extra inputs are not permitted", "input": "rate limit"}]}),
]
PASS: list[Row] = [  # asked again
    (
        "OpenAI",
        429,
        {"error": {"message": "Rate limit reached. Please try again in 9ms.", "code": "rate_limit_exceeded"}},
    ),
    ("Moonshot", 429, {"error": {"message": "max request: 3", "type": "rate_limit_reached_error"}}),
    (
        "Moonshot, busy",
        429,
        {"error": {"message": "The engine is currently overloaded", "type": "engine_overloaded_error"}},
    ),
    ("Zhipu", 429, {"error": {"code": "1302", "message": "您的账户已达到速率限制，请您控制请求频率"}}),
    ("DashScope", 429, {"error": {"message": "Allocated quota exceeded", "code": "Throttling.AllocationQuota"}}),
    ("SiliconFlow as 403", 403, {"message": "RPM limit exceeded. Please complete identity verification"}),
    (
        "Gemini",
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan and billing details.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "RetryInfo", "retryDelay": "0.01s"}],
                }
            }
        ],
    ),
    (
        "Groq, a rolling day",
        429,
        {"error": {"message": "Rate limit reached on tokens per day (TPD): try again in 10ms.", "type": "tokens"}},
    ),
    (
        "OpenRouter",
        429,
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {"raw": "glm is temporarily rate-limited upstream. Please retry, or add your own key"},
            }
        },
    ),
    ("OpenRouter, inside a 200", 200, {"error": {"message": "Provider returned error", "code": 502}}),
    ("beside empty choices", 200, {"choices": [], "error": {"message": "Worker limit reached", "code": 502}}),
    (
        "beside half an answer",
        200,
        {
            "choices": [{"message": {"reasoning_content": "1+1", "content": "The answer i"}, "finish_reason": None}],
            "error": {"code": 502},
        },
    ),
    (
        "beside nothing",
        200,
        {
            "choices": [{"message": {"content": None}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0},
            "error": {"code": 429, "message": "busy"},
        },
    ),
    (
        "in the choice",
        200,
        {
            "choices": [
                {
                    "message": {"reasoning_content": "1", "content": "2"},
                    "finish_reason": "stop",
                    "error": {"code": 502, "message": "Network connection lost."},
                }
            ]
        },
    ),
    ("Groq", 498, {"error": {"message": "capacity exceeded", "type": "capacity_exceeded"}}),
    ("Anthropic's", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ("Cloudflare", 524, "<html><title>524: A timeout occurred</title></html>"),
    ("TGI", 424, {"error": "Request failed during generation", "error_type": "generation"}),
]


def named(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("status", "body"), [row[1:] for row in rows], ids=[row[0] for row in rows])


def reply(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    if isinstance(body, str):
        return web.Response(text=body, content_type="text/html", status=status, headers=headers)
    return web.json_response(body, status=status, headers=headers)


def as_event(body: Any) -> web.Response:
    """The same inside a stream, after the first half of an answer."""
    half = {"choices": [{"delta": {"reasoning_content": "1 + 1"}, "finish_reason": None}]}
    text = f"data: {json.dumps(half)}\n\ndata: {json.dumps(body)}\n\ndata: [DONE]\n\n"
    return web.Response(text=text, content_type="text/event-stream")


def said_by(status: int, body: Any) -> ServerMessage:
    said = (
        error_in(body)
        if status == 200
        else message_of(body.encode() if isinstance(body, str) else json.dumps(body).encode())
    )
    assert said
    return said


@named(STOP)
def test_an_error_that_no_question_can_pass_ends_the_run_in_the_servers_words(
    runner: DistillRunner, serve: Serve, status: int, body: Any
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return reply(status, body)

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(30)))
    line = runner.refused()
    assert line.startswith(f"{server.base_url}: the server answers {status} for model 'chain-sum-solver': ")
    words = said_by(status, body).text.replace(KEY, "(the key)").rstrip(".。")
    assert words and words in line
    assert KEY not in line
    assert len(server.asked) <= 4, "one call of each worker"


@named(REFUSE)
def test_an_error_of_one_question_is_one_row_with_the_servers_words(
    runner: DistillRunner, serve: Serve, status: int, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return reply(status, body) if "99" in content else completion()

    server = serve(route)
    runner.use(server)
    runner.set(max_failed_share=0.5)
    runner.ask(question(0), question(1, "99 + 1"), question(2))
    runner.run()
    (row,) = runner.failures()
    words = said_by(status, body).text
    assert (row["id"], row["reason"], row["status"], row["attempts"]) == ("q-1", "refused", status, 1)
    assert row["error"] == words
    assert len(server.asked) == 3
    assert [text for text in caplog.messages if words in text] == [f"distill: refused: {words}"]


@named(PASS)
def test_an_error_that_passes_is_asked_again_and_never_a_row(
    runner: DistillRunner, serve: Serve, status: int, body: Any
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return reply(status, body) if "99" in content and attempt <= 2 else completion()

    server = serve(route)
    runner.use(server)
    runner.ask(question(0), question(1, "99 + 1"), question(2))
    runner.run()
    assert [row["response"] for row in runner.distilled()] == ["The answer is 2."] * 3
    assert len(server.asked) == 5
    assert runner.stored() == 3


@pytest.mark.parametrize(
    "stream", [False, pytest.param(True, marks=pytest.mark.heavy)], ids=["body of a 200", "event of a stream"]
)
@pytest.mark.parametrize(
    "row", [row for row in STOP if not isinstance(row[2], str) and row[1] != 200], ids=lambda row: str(row[0])
)
def test_the_same_error_means_the_same_inside_a_200(
    runner: DistillRunner, serve: Serve, row: Row, stream: bool
) -> None:
    """What is told by its status alone is told by the status in the body there."""
    _, status, body = row
    outside = classify_error(status, said_by(status, body))
    inside = error_in(body)
    assert inside
    if classify_error(200, inside) != outside:
        assert not inside.codes, "a sentence of its own and nothing else"
        return

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return as_event(body) if stream else reply(200, body)

    server = serve(route)
    runner.use(server)
    runner.set(stream=stream)
    runner.ask(*(question(number) for number in range(30)))
    assert "the server answers 200 for model" in runner.refused()
    assert len(server.asked) <= 4


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("parameter.enable_thinking must be set to false for non-streaming calls", "Set run.stream to true"),
        ("This model only support stream mode, please enable the stream parameter", "Set run.stream to true"),
        ("Unsupported value: 'stream' does not support true with this model.", "Set run.stream to false"),
        ("Unrecognized request argument supplied: chat_template_kwargs", "Change distill.teacher.extra_body"),
        ("invalid temperature: only 1 is allowed for this model", "Change distill.teacher.temperature"),
        ("max_tokens is too large: 65536. This model supports at most 32768", "Change distill.teacher.max_tokens"),
        ("This model's maximum context length is 8192 tokens.", "Change distill.teacher.max_tokens"),
        ("Something else is wrong.", "Check distill.teacher in params.yaml"),
    ],
)
def test_a_sentence_that_refuses_every_question_comes_with_what_to_change(message: str, hint: str) -> None:
    assert hint_for(ServerMessage(message), "distill.teacher").startswith(hint)


@pytest.mark.parametrize(
    "body",
    [
        {"error": None},
        {"error": {}},
        {"error": ""},
        {"error": {"message": "", "type": "", "param": "", "code": None}},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"code": 0, "message": "Success"},
        {"code": 200, "msg": "ok"},
        {"errors": []},
    ],
)
def test_an_error_that_is_none_costs_no_answer(runner: DistillRunner, serve: Serve, body: dict[str, Any]) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        choice = {"message": {"reasoning_content": "1", "content": "2"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]} | body)

    runner.use(serve(route))
    runner.ask(question(0))
    runner.run()
    assert runner.distilled()[0]["response"] == "2"


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "30"}, "", 30),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after": "soon"}, "", 0),
        ({}, "Rate limit reached. Please try again in 9m38.016s. Need more tokens?", 578.016),
        ({}, "Please try again in 579ms.", 0.579),
        ({}, "Your account reached max request: 3, please try again after 1 seconds", 1),
        ({}, "Please retry after 7 seconds. Please go here to increase the limit", 7),
        ({}, "You have exhausted your capacity. Your quota will reset after 4h22m.", 15720),
        ({}, "try again later", 0),
        ({"retry-after": "5"}, "try again in 20s", 20),
        # by the server's clock, whatever this host's says
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, "", 30),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "x-ratelimit-reset": "1767225640"}, "", 40),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT", "retry-after": "Wed, 31 Dec 2025 23:59:00 GMT"}, "", 0),
    ],
)
def test_the_wait_is_read_wherever_a_server_states_it(headers: dict[str, str], message: str, seconds: float) -> None:
    assert asked_wait_s(headers, ServerMessage(message)) == pytest.approx(seconds)


@pytest.mark.parametrize("headers", [{"Retry-After": "86400"}, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, {}])
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_too_long_ends_the_run(
    runner: DistillRunner, serve: Serve, status: int, headers: dict[str, str]
) -> None:
    message = "slow down" if headers else "slow down, try again in 25h"

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return reply(status, {"error": {"message": message}}, headers)

    server = serve(route)
    runner.use(server)
    runner.set(longest_wait_s=60.0)
    runner.ask(*(question(number) for number in range(30)))
    line = runner.refused()
    assert f"the server answers {status} for model 'chain-sum-solver' and asks to wait " in line
    assert "longer than run.longest_wait_s = 60 allows: slow down" in line
    assert len(server.asked) <= 4


def test_each_kind_of_error_is_said_once(runner: DistillRunner, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if attempt == 1:
            return reply(503, {"error": {"message": f"busy, request id {len(server.asked)}"}})
        return completion()

    server = serve(route)
    runner.use(server)
    runner.ask(*(question(number) for number in range(12)))
    runner.run()
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in said] == ["distill: http_503: busy, request id 1"]


def test_every_fault_has_rows() -> None:
    for scope, rows in ((Scope.RUN, STOP), (Scope.QUESTION, REFUSE)):
        for name, status, body in rows:
            assert classify_error(status, said_by(status, body)).scope is scope, name
