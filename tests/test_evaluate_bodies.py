"""What a served model sends that is no answer: it is never scored and never kept, and the server's message is shown."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.evaluate import main as evaluate
from stages.lib.evaluation.bodies import Answer, NoAnswer, answers, error_message, likelihoods, status_error
from tests.benchmark_arms import ROOT, Arm, own_choice_task
from tests.completions_server import Completions, Instead, Sent, serving
from tests.workspace import write_changed_params

Runs = Callable[..., Result]
Json = dict[str, Any]
HTML = b"<html><head><title>502 Bad\n Gateway</title></head><body><h1>nginx</h1></body></html>"


def chat(content: Any = "18", finish_reason: Any = "stop", **more: Any) -> Json:
    """A body of one choice."""
    return {"choices": [{"index": 0, "message": {"content": content}, "finish_reason": finish_reason}], **more}


def of(message: Json | None, finish_reason: str = "stop") -> Json:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


NOT_ANSWERS: list[tuple[Json | bytes, str]] = [
    ({"error": {"message": "token expired"}}, "token expired"),
    ({"error": "model is loading"}, "model is loading"),
    ({"object": "error", "message": "CUDA out of memory", "code": 50002}, "CUDA out of memory"),
    ({"detail": "Internal failure"}, "Internal failure"),
    ({"error_code": 110, "error_msg": "Access token invalid"}, "Access token invalid"),
    ({"choices": None, "base_resp": {"status_code": 1004, "status_msg": "not authorized"}}, "not authorized"),
    (chat("The answer i", None, error={"code": 502, "message": "upstream"}), "upstream"),
    (chat(None, "length", error={"code": 429}), "429"),
    ({"choices": [{**chat("The")["choices"][0], "error": {"message": "provider gone"}}]}, "provider gone"),
    ({"choices": []}, "no choices"),
    ({"choices": [None]}, "not a choice"),
    ({"choices": [chat()["choices"][0], chat()["choices"][0]]}, "2 choices for 1 prompts"),
    (of(None), "a choice without a message"),
    (of({"role": "assistant"}), "an answer without text"),
    (chat(None), "an answer without text"),
    (chat("", usage={"completion_tokens": 0}), "an answer without text"),
    (chat({"a": 1}), "not a text"),
    (chat("The answer i", None), "finish_reason: null"),
    (chat("The answer i", "network_error"), "finish_reason: network_error"),
    (chat("The answer i", "error"), "finish_reason: error"),
    (chat("The answer i", "abort"), "finish_reason: abort"),
    (chat("", "content_filter"), "finish_reason: content_filter"),
    (HTML, "not JSON: 502 Bad Gateway"),
    (json.dumps(chat("a long answer")).encode()[:40], "not JSON: "),
    (b'data: {"choices": []}\n\ndata: [DONE]\n\n', "not JSON: data:"),
    (b"\n \n", "an empty body"),
    (b"[]", "not a JSON object"),
    (b"null", "not a JSON object"),
]


def body_of(found: Json | bytes) -> bytes:
    return found if isinstance(found, bytes) else json.dumps(found).encode()


@pytest.mark.parametrize(("body", "expected"), NOT_ANSWERS)
def test_a_body_that_is_no_answer_is_told_by_the_servers_words(body: Json | bytes, expected: str) -> None:
    with pytest.raises(NoAnswer) as error:
        answers(body_of(body), 1)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


ANSWERS: list[tuple[Json, Answer]] = [
    (chat(), Answer("18", "", False)),
    (chat("18", "STOP"), Answer("18", "", False)),
    (chat("18", "eos_token"), Answer("18", "", False)),
    (chat("18", error=None), Answer("18", "", False)),
    (chat("18 and", "length"), Answer("18 and", "", True)),
    (chat("18 and", "max_tokens"), Answer("18 and", "", True)),
    (chat("18 and", "model_context_window_exceeded"), Answer("18 and", "", True)),
    (chat(None, "length"), Answer("", "", True)),
    (of({"content": None, "reasoning_content": "1+1"}, "length"), Answer("", "1+1", True)),
    (of({"content": None, "reasoning": "1+1"}), Answer("", "1+1", False)),
    (of({"content": None, "tool_calls": [{"id": "a"}]}, "tool_calls"), Answer("", "", False)),
    (chat("", usage={"completion_tokens": 1}), Answer("", "", False)),
    (chat(None, usage={"completion_tokens": 1}), Answer("", "", False)),
    (chat([{"type": "thinking", "thinking": "1+1"}, {"type": "text", "text": "18"}]), Answer("18", "", False)),
    ({"choices": [{"message": {"content": "18"}}]}, Answer("18", "", None)),
    ({"choices": [{"index": 0, "text": "18", "finish_reason": "stop"}]}, Answer("18", "", False)),
    ({"choices": [{"index": 0, "text": "18 \ud83d", "finish_reason": "stop"}]}, Answer("18 \ufffd", "", False)),
]


@pytest.mark.parametrize(("body", "expected"), ANSWERS)
def test_an_answer_is_read_with_what_the_server_says_of_its_end(body: Json, expected: Answer) -> None:
    assert answers(b"\xef\xbb\xbf\n" + body_of(body), 1) == [expected]


def test_several_choices_are_put_in_the_prompts_order_or_refused() -> None:
    swapped = {"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]}
    assert [each.text for each in answers(body_of(swapped), 2)] == ["a", "b"]
    for broken in ([0], [0, 0], [0, 2], [None, None], [0, 1, 2]):
        body = {"choices": [{"index": index, "text": "a"} for index in broken]}
        with pytest.raises(NoAnswer):
            answers(body_of(body), 2)


@pytest.mark.parametrize(
    ("body", "retryable"),
    [
        ({"error": {"message": "busy"}}, True),
        ({"error": {"code": 429}}, True),
        ({"error": {"code": "503"}}, True),
        ({"error": {"code": 401, "message": "token expired"}}, False),
        ({"error": {"type": "insufficient_quota", "code": None}}, False),
        ({"code": 403, "message": "forbidden"}, False),
        ({"error": {"type": "invalid_request_error"}}, False),
    ],
)
def test_an_error_is_retryable_unless_its_status_or_code_is_final(body: Json, retryable: bool) -> None:
    with pytest.raises(NoAnswer) as error:
        answers(body_of(body), 1)
    assert error.value.retryable is retryable


def test_a_status_comes_with_the_bodys_words() -> None:
    assert str(status_error(502, HTML, 0.0)) == "HTTP 502: not JSON: 502 Bad Gateway"
    assert str(status_error(401, b'{"error": {"message": "no such key"}}', 0.0)) == "HTTP 401: no such key"
    assert str(status_error(400, b'{"message": "too long"}', 0.0)) == "HTTP 400: too long"
    assert [status_error(code, b"", 0.0).retryable for code in (400, 401, 404, 408, 429, 500, 529)] == [
        *(False, False, False),
        *(True, True, True, True),
    ]
    assert error_message({"error": {"type": "overloaded_error"}}) == "overloaded_error"


def echoed(tokens: int, **changes: Any) -> Json:
    own = {"token_logprobs": [None, *[-1.0] * tokens], "top_logprobs": [None, *[{"a": -1.0}] * tokens]}
    return {"choices": [{"index": 0, "text": "", "logprobs": own | changes}]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "token expired"}}, "token expired"),
        ({"choices": [{"index": 0, "text": "A", "logprobs": None}]}, "no log-probabilities of the prompt's tokens"),
        (echoed(1), "2 log-probabilities for a prompt of 3 tokens and one more"),
        (echoed(3, token_logprobs=[None, -1.0, float("nan"), -1.0]), "a log-probability that is not a number"),
        (echoed(3, token_logprobs=[None, -1.0, None, -1.0]), "a log-probability that is not a number"),
        (echoed(3, top_logprobs=[None, {}, {}, {}]), "no top token"),
    ],
)
def test_log_probabilities_that_lm_eval_would_misread_are_refused(body: Json, expected: str) -> None:
    with pytest.raises(NoAnswer, match=expected):
        likelihoods(body_of(body), [[1, 2, 3]], [1])
    assert likelihoods(body_of(echoed(3)), [[1, 2, 3]], [1])["choices"]


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-served")


@pytest.fixture
def server(tiny_student: Path) -> Iterator[Completions]:
    with serving(tiny_student, "filtered") as found:
        yield found


class Served:
    """One arm behind a server, to be evaluated again and again."""

    def __init__(self, folder: Path, student: Path, server: Completions, changes: Json) -> None:
        folder.mkdir(exist_ok=True)
        params = folder / "params.yaml"
        own = {"run.served.base_url": server.url, "run.threads": 1, "run.max_attempts": 2, "run.backoff_s": 0.01}
        own |= {
            "evaluate.max_gen_toks": 6,
            "evaluate.backend.batch_size": 2,
            "evaluate.backend.kind": "local-chat-completions",
        }
        write_changed_params(ROOT / "params.yaml", own | changes, params)
        self.arm = Arm(folder)
        self.words = self.arm.arguments(params, student, own_choice_task(folder))


def failed(served: Served) -> str:
    """The one line that the stage fails with, after lm-eval's bars."""
    result = CliRunner().invoke(evaluate, served.words)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def after(questions: int, sent: Sent | Json) -> Instead:
    """So many requests get their answers, all others this."""
    left = [questions]

    def instead(_: Json, __: Json) -> Sent | Json | None:
        left[0] -= 1
        return sent if left[0] < 0 else None

    return instead


@pytest.mark.heavy
@pytest.mark.parametrize("backend", ["local-chat-completions", "local-completions"])
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"error": {"message": "token sk-of-the-served expired"}}, "the served model failed (token (the key) expired)"),
        (Sent(HTML, headers={"Content-Type": "text/html"}), "the served model failed (not JSON: 502 Bad Gateway)"),
        (Sent(b'{"choices": [{"index": 0, "te', declared=900), "the served model failed (ClientPayloadError: "),
        ({"choices": []}, "the served model failed (no choices: "),
    ],
)
def test_an_error_to_half_the_questions_fails_the_stage_and_a_healthy_server_is_asked_for_them(
    backend: str,
    sent: Sent | Json,
    expected: str,
    tmp_path: Path,
    tiny_student: Path,
    server: Completions,
    runs: Runs,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = Served(tmp_path, tiny_student, server, {"evaluate.backend.kind": backend})
    server.instead = after(3, sent)
    line = failed(served)
    assert line.startswith(f"{server.url}: {expected}")
    assert "sk-of-the-served" not in line + caplog.text
    assert not (tmp_path / "filtered.json").exists()
    server.instead, asked = None, len(server.requests)
    runs(evaluate, *served.words)
    assert 3 <= len(server.requests) - asked <= 6, "those that had got no answer, and what was in flight at the error"
    texts = [row.response for row in served.arm.rows]
    assert len(texts) == 6
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "undisturbed"))
    again = Served(tmp_path / "undisturbed", tiny_student, server, {"evaluate.backend.kind": backend})
    runs(evaluate, *again.words)
    assert [row.response for row in again.arm.rows] == texts


def test_a_passing_error_is_retried_and_leaves_no_trace(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs
) -> None:
    served = Served(tmp_path, tiny_student, server, {"run.max_attempts": 5, "evaluate.backend.batch_size": 1})
    errors: list[Sent | Json] = [
        Sent(b"", 429, {"Retry-After": "0"}),
        {"error": {"code": 503, "message": "busy"}},
        Sent(HTML, 502, {"Content-Type": "text/html"}),
        chat("The answer i", "network_error"),
    ]
    server.instead = lambda _, __: errors.pop() if errors else None
    runs(evaluate, *served.words)
    assert not errors
    assert len(server.requests) == 6 + 4
    assert served.arm.metrics["heldout"]["n"] == 6


def test_an_error_that_does_not_pass_is_not_retried(tmp_path: Path, tiny_student: Path, server: Completions) -> None:
    served = Served(tmp_path, tiny_student, server, {"run.max_attempts": 5, "evaluate.backend.batch_size": 1})
    server.instead = after(0, {"error": {"code": 401, "message": "who are you"}})
    assert "(who are you)" in failed(served)
    assert len(server.requests) == 1
    server.instead = after(0, Sent(b"tomorrow", 429, {"Retry-After": "86400"}))
    assert "(HTTP 429: not JSON: tomorrow)" in failed(served)
    assert len(server.requests) == 2, "nor is a day waited for"


@pytest.mark.heavy
def test_an_answer_that_is_all_thought_is_cut_off_and_wrong(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs
) -> None:
    served = Served(tmp_path, tiny_student, server, {})

    def thinking(request: Json, _: Json) -> Json:
        question = request["messages"][-1]["content"]
        if question.startswith(("What is 0", "What is 1")):
            return of({"content": None, "reasoning_content": "I think and think"}, "length")
        return chat(f"The answer is {int(question.split()[2]) + 5}.")

    server.instead = thinking
    runs(evaluate, *served.words)
    asked = len(server.requests)
    runs(evaluate, *served.words)
    assert len(server.requests) == asked, "it was an answer, and is kept"
    rows = served.arm.rows
    assert [(row.correct, row.cut_off, row.response == "") for row in rows] == [(False, True, True)] * 2 + [
        (True, False, False)
    ] * 4
    assert rows[0].tokens, "of the thought"
    assert (rows[0].verdict, rows[0].unread) == ("wrong", False), "there is nothing to read in it"
    assert served.arm.metrics["heldout"]["cut_off"] == 0.3333


@pytest.mark.heavy
def test_log_probabilities_are_asked_again_after_an_error(
    tmp_path: Path, tiny_student: Path, server: Completions, runs: Runs
) -> None:
    changes = {"evaluate.backend.kind": "local-completions", "evaluate.benchmarks": ["lm-eval:mmlu_anatomy"]}
    served = Served(tmp_path, tiny_student, server, changes)
    for sent, expected in (
        ({"error": {"message": "token expired"}}, "(token expired)"),
        ({"choices": [{"index": 0, "text": "A", "logprobs": None}]}, "(no log-probabilities of the prompt's tokens"),
    ):
        server.instead = after(0, sent)
        assert expected in failed(served)
    server.instead, asked = None, len(server.requests)
    runs(evaluate, *served.words)
    assert len(server.requests) - asked == 4 * 4, "every choice of every question"


def test_a_server_without_its_list_of_models_shows_its_words(
    tmp_path: Path, tiny_student: Path, server: Completions
) -> None:
    served = Served(tmp_path, tiny_student, server, {})
    server.listed = {"error": {"message": "key sk-of-the-served is unknown"}}
    assert "/models: key (the key) is unknown. Start the server" in failed(served)
    server.listed = {"models": []}
    assert "/models: not a list of models" in failed(served)
    assert not server.requests
