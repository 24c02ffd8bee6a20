"""Bodies in the layouts that servers were seen to send: each is an answer, whole or streamed, and is paid for once."""

import json
from typing import Any

import pytest
from aiohttp import web

from stages.lib.replies.finish import ending
from stages.lib.replies.reading import read_body
from tests.distill_runner import DistillRunner, Serve, completion, question

USAGE = {"prompt_tokens": 3, "completion_tokens": 9}
ADD = "Add them."
TWO = "It is 2."


def whole(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"} | choice], "usage": USAGE}


def chunk(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None} | choice]}


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> str:
    return "".join(event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n" for event in events) + end


MESSAGES: dict[str, dict[str, Any]] = {
    "parts of Mistral": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": ADD}], "closed": True},
            {"type": "text", "text": TWO},
        ]
    },
    "parts with a plain thought": {"content": [{"type": "thinking", "thinking": ADD}, {"type": "text", "text": TWO}]},
    "parts of Anthropic's kind": {
        "content": [
            {"type": "thinking", "thinking": ADD, "signature": "x"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": TWO},
        ]
    },
    "output_text": {
        "content": [{"type": "reasoning", "summary": [{"text": ADD}]}, {"type": "output_text", "text": TWO}]
    },
    "strings": {"reasoning_content": ADD, "content": ["It is ", "2."]},
    "parts beside a field": {"reasoning_content": ADD, "content": [{"type": "text", "text": TWO}]},
    "parts with <think>": {"content": [{"type": "text", "text": f"<think>{ADD}</think>{TWO}"}]},
    "a value": {"reasoning": ADD, "content": [{"type": "text", "text": {"value": TWO, "annotations": []}}]},
    "reasoning_details": {
        "content": TWO,
        "reasoning_details": [
            {"type": "reasoning.text", "text": "Add ", "format": "unknown", "index": 0},
            {"type": "reasoning.text", "text": "them.", "format": "unknown", "index": 0},
            {"type": "reasoning.encrypted", "data": "x"},
        ],
    },
    "a summary": {"content": TWO, "reasoning_details": [{"type": "reasoning.summary", "summary": ADD}]},
    "both of OpenRouter's": {
        "content": TWO,
        "reasoning": ADD,
        "reasoning_details": [{"type": "reasoning.text", "text": ADD}],
    },
    "thinking_blocks": {"content": TWO, "thinking_blocks": [{"type": "thinking", "thinking": ADD}]},
    "thinking": {"content": TWO, "thinking": ADD},
    "a field and the same block": {"reasoning_content": ADD, "content": f"<think>\n{ADD}\n</think>\n\n{TWO}"},
    "a field and an empty block": {"reasoning_content": ADD, "content": f"<think>\n\n</think>\n\n{TWO}"},
    "the halves of a thought": {"reasoning_content": "Add", "content": f"<think>them.</think>{TWO}"},
    "a stray tag": {"reasoning_content": ADD, "content": f"</think>\n\n{TWO}"},
    "a stray tag at the end": {"reasoning_content": ADD, "content": f"{TWO}\n</think>"},
    "a stray tag after the thought's tail": {"reasoning_content": "Add", "content": f"them.\n</think>\n\n{TWO}"},
    "two blocks": {"content": f"<think>Add</think>\n<think>them.</think>\n{TWO}"},
    "a block behind the answer": {"content": "<think>Add</think>It is <think>them.</think>2."},
    "a block in a block": {"content": f"<think>Add <think>x</think> them.</think>{TWO}"},
    "an empty block first": {"content": f"<think></think>\n<think>{ADD}</think>{TWO}"},
    "tags around the field": {"reasoning_content": f"<think>\n{ADD}\n</think>", "content": TWO},
    "all in the field": {"reasoning_content": f"{ADD}\n</think>\n\n{TWO}", "content": None},
    "another tag": {"content": f"<thinking>{ADD}</thinking>{TWO}"},
    "capitals": {"content": f"<THINK>{ADD}</THINK>{TWO}"},
    "Magistral's older tag": {"content": f"[THINK]{ADD}[/THINK]{TWO}"},
    "Kimi's tag": {"content": f"◁think▷{ADD}◁/think▷{TWO}"},
}
DIFFERENT = {
    "the halves of a thought": "Add\n\nthem.",
    "a stray tag after the thought's tail": "Add\n\nthem.",
    "two blocks": "Add\n\nthem.",
    "a block behind the answer": "Add\n\nthem.",
    "a block in a block": "Add <think>x</think> them.",
}
MESSAGE = {"reasoning_content": ADD, "content": TWO}
WHOLE = json.dumps(whole(MESSAGE))
PIECES = [chunk({"reasoning_content": ADD}), chunk({"content": "It is "}), chunk({"content": "2."})]
STOP = chunk({}, finish_reason="stop")
LAYOUTS = {
    "comments before": f": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n{WHOLE}",
    "empty lines and comments": f"\n\n\r\n: keep-alive\r\n\n  {WHOLE}",
    "a byte order mark": f"\ufeff{WHOLE}",
    "a byte order mark after lines": f"\n\ufeff\n{WHOLE}",
    "a comment behind": f"{WHOLE}\n\n: bye\n",
    "the end of a stream behind": f"{WHOLE}\n\ndata: [DONE]\n\n",
    "indented": json.dumps(whole(MESSAGE), indent=2),
    "usage in the choice": json.dumps({"choices": [whole(MESSAGE)["choices"][0] | {"usage": USAGE}]}),
    "no finish_reason": json.dumps(whole(MESSAGE, finish_reason=None)),
    "a stream though none was asked for": stream(*PIECES, STOP),
    "finish_reason null throughout": stream(*PIECES),
    "finish_reason empty throughout": stream(
        *(chunk(piece["choices"][0]["delta"], finish_reason="") for piece in PIECES)
    ),
    "a byte order mark before a stream": "\ufeff" + stream(*PIECES, STOP),
    "usage in the last choice": stream(*PIECES, chunk({}, finish_reason="stop", usage=USAGE)),
    "usage of Groq": stream(*PIECES, STOP | {"x_groq": {"usage": USAGE}}),
    "no space and other line ends": stream(*PIECES, STOP).replace("data: ", "data:").replace("\n", "\r\n"),
    "a comment as data": stream("data: : OPENROUTER PROCESSING\n\n", *PIECES, STOP),
    "named events": stream("event: message\nid: 1\n", *PIECES, 'event: ping\ndata: {"type": "ping"}\n\n', STOP),
    "an event on several lines": stream(
        *("".join(f"data: {line}\n" for line in json.dumps(each, indent=1).splitlines()) + "\n" for each in PIECES),
        STOP,
    ),
    "no empty lines between": stream(*PIECES, STOP).replace("\n\n", "\n"),
    "one whole message as an event": stream(whole(MESSAGE)),
    "a whole message behind the pieces": stream(*PIECES, whole(MESSAGE)),
    "an event without choices first": stream({"choices": [], "prompt_filter_results": []}, *PIECES, STOP),
    "a list of chunks": json.dumps([*PIECES, STOP]),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_thought_and_answer_are_found_in_every_layout_of_a_message(
    runner: DistillRunner, serve: Serve, name: str, streamed: bool
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        body = stream(chunk(MESSAGES[name]), STOP) if streamed else json.dumps(whole(MESSAGES[name]))
        return web.Response(text=body, content_type="text/event-stream" if streamed else "application/json")

    server = serve(route)
    runner.use(server)
    runner.set(stream=streamed)
    runner.ask(question(0))
    runner.run()
    (row,) = runner.distilled()
    assert (row["reasoning"], row["response"]) == (DIFFERENT.get(name, ADD), TWO)
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", LAYOUTS.values(), ids=LAYOUTS)
def test_an_answer_is_read_in_every_layout_of_a_body(runner: DistillRunner, serve: Serve, body: str) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return web.Response(body=body.encode(), content_type="application/json")

    server = serve(route)
    runner.use(server)
    runner.ask(question(0))
    runner.run()
    (row,) = runner.distilled()
    assert (row["reasoning"], row["response"]) == (ADD, TWO)
    assert row["usage"] in ({}, USAGE)
    assert (row["usage"] == USAGE) == ("completion_tokens" in body)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "reasoning", "response"),
    [
        ("<think>1</think>the tag </think> ends it", "1", "the tag </think> ends it"),
        ("<think>I use the <think> tag</think>2", "I use the <think> tag", "2"),
        ("write <think> and </think> in one line", "write <think> and", "in one line"),
        ("plain", "", "plain"),
    ],
)
def test_tags_in_a_sentence_are_the_texts_own(content: str, reasoning: str, response: str) -> None:
    answer = read_body(json.dumps(whole({"content": content})).encode())
    assert (answer.reasoning, answer.response) == (reasoning, response)


FINISHED = (
    "stop STOP eos eos_token EOS end_turn endTurn stop_sequence stop_str COMPLETE complete FINISH_REASON_STOP done"
)
CUT_OFF = (
    "length max_tokens MAX_TOKENS max_length model_length model_context_window_exceeded context_length_exceeded "
    "max_output_tokens token_limit FinishReason.MAX_TOKENS"
)
REFUSED = (
    "content_filter sensitive SAFETY refusal RECITATION PROHIBITED_CONTENT BLOCKLIST SPII content_filtered guardrail"
)
INTERRUPTED = (
    "network_error error abort aborted cancelled canceled timeout insufficient_system_resource engine_error failed "
    "internal_error overloaded server_error"
)
NOT_FINISHED = "tool_calls function_call tool_use pause_turn OTHER LANGUAGE MALFORMED_FUNCTION_CALL"


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (FINISHED, "finished"),
        (CUT_OFF, "cut_off"),
        (REFUSED, "refused"),
        (INTERRUPTED, "interrupted"),
        (NOT_FINISHED, "not_finished"),
    ],
)
def test_the_words_of_every_provider_say_how_an_answer_ended(words: str, how: str) -> None:
    assert {word: ending(word) for word in words.split()} == dict.fromkeys(words.split(), how)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [("model_context_window_exceeded", "cut_off"), ("sensitive", "refused"), ("end_turn", None), ("STOP", None)],
)
def test_a_word_of_another_provider_makes_the_row_it_should(
    runner: DistillRunner, serve: Serve, word: str, reason: str | None, streamed: bool
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if streamed:
            return web.Response(text=stream(*PIECES, chunk({}, finish_reason=word)), content_type="text/event-stream")
        return completion(word)

    server = serve(route)
    runner.use(server)
    runner.set(stream=streamed, max_failed_share=1.0)
    runner.ask(question(0))
    runner.run()
    assert [row["reason"] for row in runner.failures()] == ([reason] if reason else [])
    assert len(server.asked) == runner.stored() == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("word", ["network_error", "error", "cancelled", "engine_overloaded"])
def test_an_answer_that_a_server_gave_up_is_asked_again(
    runner: DistillRunner, serve: Serve, word: str, streamed: bool
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        last = word if attempt == 1 else "stop"
        if streamed:
            return web.Response(text=stream(*PIECES, chunk({}, finish_reason=last)), content_type="text/event-stream")
        return completion(last)

    server = serve(route)
    runner.use(server)
    runner.set(stream=streamed)
    runner.ask(question(0))
    runner.run()
    assert (len(server.asked), runner.stored(), len(runner.distilled())) == (2, 1, 1)


def test_a_refusal_in_a_field_of_its_own_is_a_refusal() -> None:
    answer = read_body(json.dumps(whole({"content": None, "refusal": "I'm sorry, I can't."})).encode())
    assert answer.failure == "refused"


def test_a_body_with_nothing_in_it_and_no_tokens_is_asked_again(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        usage = {"prompt_tokens": 3, "completion_tokens": 0}
        nothing = completion(usage=usage, reasoning_content=None, content=None)
        return nothing if attempt == 1 else completion()

    server = serve(route)
    runner.use(server)
    runner.ask(question(0))
    runner.run()
    assert (len(server.asked), runner.stored()) == (2, 1)


def test_a_stream_that_is_lost_after_its_end_is_an_answer(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Content-Length": "5000"})
        await response.prepare(request)
        await response.write(stream(*PIECES, STOP | {"usage": USAGE}, end="data: [DO").encode())
        assert request.transport
        request.transport.close()
        return response

    server = serve(route)
    runner.use(server)
    runner.set(stream=True)
    runner.ask(question(0))
    runner.run()
    assert [row["response"] for row in runner.distilled()] == [TWO]
    assert len(server.asked) == 1
