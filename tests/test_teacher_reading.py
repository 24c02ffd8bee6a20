"""Reading a raw body: where the reasoning stands, what is of no use though received, and what is no answer at all."""

import json
from typing import Any

import pytest

from stages.lib.replies.reading import BodyError, read_body


def body(message: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A completion as servers send it, with what a test changes."""
    choice = {"index": 0, "finish_reason": more.pop("finish_reason", "stop"), "message": message}
    completion = {"id": "1", "object": "chat.completion", "model": "deepseek-r1", "choices": [choice], "usage": {}}
    return json.dumps(completion | more, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("message", "reasoning", "response"),
    [
        # DeepSeek, DashScope
        ({"reasoning_content": "1 + 1 = 2", "content": "2"}, "1 + 1 = 2", "2"),
        # newer vLLM, OpenRouter
        ({"reasoning": "1 + 1 = 2", "content": "2"}, "1 + 1 = 2", "2"),
        # no parser on the server: the thought stands in the content
        ({"content": "<think>\n1 + 1 = 2\n</think>\n\n2"}, "1 + 1 = 2", "2"),
        ({"content": "  <think>1</think>2"}, "1", "2"),
        # the opening tag is part of the server's prompt
        ({"content": "1 + 1 = 2\n</think>\n\n2"}, "1 + 1 = 2", "2"),
        ({"reasoning_content": "", "content": "<think>1</think>2"}, "1", "2"),
        ({"reasoning_content": None, "reasoning": None, "content": "<think>1</think>2"}, "1", "2"),
        # both fields: the older one
        ({"reasoning_content": "old", "reasoning": "new", "content": "2"}, "old", "2"),
        ({"reasoning_content": "", "reasoning": "new", "content": "2"}, "new", "2"),
        ({"reasoning_content": "\n", "reasoning": "new", "content": "2"}, "new", "2"),
        ({"reasoning_content": "\n", "content": "<think>1</think>2"}, "1", "2"),
        # a thought was split off by the server: tags left in the content are the answer's own
        ({"reasoning_content": "1", "content": "write </think> here"}, "1", "write </think> here"),
        # only the first closing tag ends the thought
        ({"content": "<think>1</think>the tag </think> ends it"}, "1", "the tag </think> ends it"),
        ({"reasoning_content": " \n1 \n2\n ", "content": "\n2\n"}, "1 \n2", "2"),
        ({"reasoning_content": "想\u2028🙂 {x} %s", "content": "答案 {2}"}, "想\u2028🙂 {x} %s", "答案 {2}"),
        ({"reasoning_content": "1", "content": "2", "tool_calls": None, "refusal": None, "audio": {}}, "1", "2"),
    ],
)
def test_the_reasoning_is_found_wherever_servers_put_it(message: dict[str, Any], reasoning: str, response: str) -> None:
    answer = read_body(body(message))
    assert (answer.reasoning, answer.response, answer.failure) == (reasoning, response, None)


@pytest.mark.parametrize(
    ("message", "finish_reason", "failure"),
    [
        ({"reasoning_content": "1", "content": "2"}, "length", "cut_off"),
        ({"reasoning_content": "1", "content": ""}, "length", "cut_off"),
        ({"reasoning_content": "1", "content": None}, "length", "cut_off"),
        ({"reasoning_content": "", "content": ""}, "content_filter", "refused"),
        ({"reasoning_content": "1", "content": "2"}, "content_filter", "refused"),
        ({"reasoning_content": "1", "content": ""}, "stop", "empty_response"),
        ({"reasoning_content": "1", "content": None}, "stop", "empty_response"),
        ({"reasoning_content": "1", "content": " \n\t"}, "stop", "empty_response"),
        ({"reasoning_content": "1"}, "stop", "empty_response"),
        ({"content": "<think>1</think>"}, "stop", "empty_response"),
        ({"content": "2"}, "stop", "empty_reasoning"),
        ({"reasoning_content": "", "content": "2"}, "stop", "empty_reasoning"),
        ({"reasoning_content": " \n", "content": "2"}, "stop", "empty_reasoning"),
        ({"content": "<think>\n</think>\n2"}, "stop", "empty_reasoning"),
        # never closed: nobody can say where the thought ends
        ({"content": "<think>1 and so 2"}, "stop", "empty_reasoning"),
        ({"reasoning_content": "1", "content": "2"}, None, None),
    ],
)
def test_what_is_of_no_use_is_named(message: dict[str, Any], finish_reason: str | None, failure: str | None) -> None:
    assert read_body(body(message, finish_reason=finish_reason)).failure == failure


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty_body"),
        (b"\n\n \r\n", "empty_body"),
        (b"<html><body>502 Bad Gateway</body></html>", "not_json"),
        (b'{"choices": [{"message": {"content": "2', "not_json"),
        (b"\xff\xfe{}", "not_json"),
        (b'{"choices": [{"message": {"content": "\xd0"}}]}', "not_json"),
        (b"data: {}\n\ndata: [DONE]\n\n", "broken_off"),
        (b'data: {"choices": [{"delta": {"content": "2"}}]}\n\n', "broken_off"),
        (b'data: {"choices": [{"delta": {"con', "not_json"),
        (b'data: {"choices": ["2"]}\n\n', "no_choices"),
        (b'data: {"choices": [{"delta": {"content": 2}, "finish_reason": "stop"}]}\n\n', "no_choices"),
        (b'data: {"error": {"message": "overloaded"}}\n\n', "server_error"),
        (b'{"error": {"message": "overloaded", "code": 503}}', "server_error"),
        (b"{}", "no_choices"),
        (b"null", "no_choices"),
        (b"[]", "no_choices"),
        (b'"2"', "no_choices"),
        (b'{"choices": null}', "no_choices"),
        (b'{"choices": []}', "no_choices"),
        (b'{"choices": [{}]}', "no_choices"),
        (b'{"choices": [{"message": null}]}', "no_choices"),
        (b'{"choices": [{"message": {"content": 2}}]}', "no_choices"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_a_body_that_holds_no_completion_says_what_it_is(raw: bytes, reason: str) -> None:
    with pytest.raises(BodyError) as caught:
        read_body(raw)
    assert str(caught.value) == reason


def test_keep_alive_lines_before_the_body_do_no_harm() -> None:
    assert read_body(b"\n\n\n" + body({"reasoning_content": "1", "content": "2"})).response == "2"


@pytest.mark.parametrize("missing", ["model", "usage", "id", "object"])
def test_an_answer_without_a_field_that_is_not_needed_is_an_answer(missing: str) -> None:
    whole = json.loads(body({"reasoning_content": "1", "content": "2"}))
    absent = {name: value for name, value in whole.items() if name != missing}
    for completion in (absent, whole | {missing: None}):
        answer = read_body(json.dumps(completion).encode())
        assert (answer.reasoning, answer.response, answer.failure) == ("1", "2", None)


def test_the_first_of_several_choices_is_read() -> None:
    completion = json.loads(body({"reasoning_content": "1", "content": "2"}))
    completion["choices"].append({"message": {"reasoning_content": "3", "content": "4"}, "finish_reason": "length"})
    assert read_body(json.dumps(completion).encode()).response == "2"


def test_model_usage_and_finish_reason_are_kept_as_they_came() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 4}}
    answer = read_body(body({"reasoning_content": "1", "content": "2"}, usage=usage, finish_reason="eos"))
    assert (answer.model, answer.usage, answer.finish_reason) == ("deepseek-r1", usage, "eos")


def test_a_stream_is_joined_in_order_with_what_its_last_events_bring() -> None:
    events = [
        ": keep-alive",
        'data: {"model": "deepseek-r1", "choices": [{"delta": {"role": "assistant", "content": null}}]}',
        'data: {"choices": [{"delta": {"reasoning_content": "1 + 1"}, "finish_reason": null}]}',
        'data:{"choices": [{"delta": {"reasoning_content": " = 2"}}]}',
        'data: {"choices": [{"delta": {"content": "答案是 "}}]}',
        'data: {"choices": [{"delta": {"content": "2"}, "finish_reason": "stop"}]}',
        'data: {"choices": [], "usage": {"completion_tokens": 9}}',
        "data: [DONE]",
    ]
    answer = read_body("\r\n\r\n".join(events).encode())
    assert (answer.reasoning, answer.response) == ("1 + 1 = 2", "答案是 2")
    assert (answer.finish_reason, answer.model, answer.usage) == ("stop", "deepseek-r1", {"completion_tokens": 9})
    assert answer.failure is None


@pytest.mark.parametrize("before", ["", "\n\n", ": keep-alive\n\n", "id: 1\n", "event: message\n", "retry: 3000\n\n"])
def test_a_stream_may_begin_with_any_field_of_an_event(before: str) -> None:
    event = {"choices": [{"delta": {"reasoning_content": "1", "content": "2"}, "finish_reason": "stop"}]}
    answer = read_body(f"{before}data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
    assert (answer.reasoning, answer.response) == ("1", "2")


def test_half_a_character_costs_no_answer() -> None:
    message = rb'{"reasoning_content": "\ud83d\ude00 \ud83d!", "content": "\ude00 2"}'
    raw = b'{"choices": [{"message": ' + message + b', "finish_reason": "stop"}]}'
    answer = read_body(raw)
    assert (answer.reasoning, answer.response) == ("😀 \ufffd!", "\ufffd 2")
