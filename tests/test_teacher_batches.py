"""Batches: what was submitted is neither lost nor submitted twice, and the rows are those of single calls."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from click.testing import CliRunner

from stages.lib.params import load_params
from stages.lib.store.answer_file import open_answers
from stages.lib.store.answer_store import open_store
from stages.lib.store_tools import batches as batches_command
from stages.lib.teacher.batches import beside
from stages.lib.teacher.batches.journal import OpenBatches
from stages.lib.teacher.batches.worker import BatchWorker, Visit
from tests.batch_server import BATCH, BatchServer, Respond, answer_to, error, lost
from tests.distill_runner import KEY, ROOT, DistillRunner, question, wait_until


@pytest.fixture
def server() -> Iterator[BatchServer]:
    server = BatchServer()
    yield server
    server.close()


@pytest.fixture
def batching(runner: DistillRunner, server: BatchServer) -> DistillRunner:
    """Ten questions that are asked in batches."""
    runner.use(server)
    runner.set(max_attempts=3, outage_s=5.0)
    runner.settings["run.batch.teacher"] = dict(BATCH)
    runner.ask(*(question(number) for number in range(10)))
    return runner


def set_batch(runner: DistillRunner, **values: Any) -> None:
    runner.settings["run.batch.teacher"] |= values


def entries(runner: DistillRunner) -> list[Path]:
    """The files of open batches."""
    return sorted(runner.store.with_suffix(".batches").glob("*"))


def stored_keys(runner: DistillRunner) -> set[str]:
    return {json.loads(line)["key"] for line in runner.store.read_bytes().splitlines()}


def sizes(server: BatchServer) -> list[int]:
    return [len(lines) for lines in server.submitted]


# ---- the rows ----


def test_rows_and_keys_are_those_of_single_calls(batching: DistillRunner, server: BatchServer) -> None:
    batching.run("batch")
    in_batches = stored_keys(batching)
    batching.settings.pop("run.batch.teacher")
    batching.store = batching.folder / "single.jsonl"
    batching.run("single")
    assert batching.outputs("batch") == batching.outputs("single")
    assert in_batches == stored_keys(batching)
    (lines,) = server.submitted
    assert {line["custom_id"] for line in lines} == in_batches
    alone, together = (sorted(map(json.dumps, bodies)) for bodies in (server.bodies, [line["body"] for line in lines]))
    assert together == alone, "the same requests as those of single calls, which may arrive in any order"
    assert {line["method"] + " " + line["url"] for line in lines} == {"POST /v1/chat/completions"}
    assert entries(batching) == []
    assert server.keys == {f"Bearer {KEY}"}


def test_a_second_run_submits_nothing_and_more_questions_only_the_new_ones(
    batching: DistillRunner, server: BatchServer
) -> None:
    batching.run()
    batching.run()
    assert sizes(server) == [10]
    batching.ask(*(question(number) for number in range(13)), question(2) | {"id": "again"})
    batching.run()
    assert sizes(server) == [10, 3]
    assert len(batching.distilled()) == 14


def test_the_real_client_finds_the_protocol_in_the_stand_in(server: BatchServer, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=server.base_url, api_key="any")
    body = {"model": "m", "messages": [{"role": "user", "content": "What is 1 + 1?"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "requests.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    file = client.files.create(file=tmp_path / "requests.jsonl", purpose="batch")
    made = [
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )
        for _ in range(5)
    ]
    assert {batch.status for batch in made} == {"validating"}
    assert [batch.id for batch in client.batches.list(limit=2)] == [batch.id for batch in reversed(made)]
    client.batches.retrieve(made[0].id)
    done = client.batches.retrieve(made[0].id)
    assert done.status == "completed"
    assert done.metadata == {"a": "b"}
    assert done.output_file_id
    assert done.request_counts
    assert done.request_counts.completed == 1
    (answer,) = client.files.content(done.output_file_id).text.splitlines()
    assert json.loads(answer)["custom_id"] == "a"
    assert client.batches.cancel(made[1].id).status == "cancelling"
    assert client.batches.retrieve(made[1].id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_99")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_requests": 4}, [4, 4, 2]),
        ({"max_mb": 1}, [2] * 5),
        ({"enqueued_tokens": 1}, [1] * 10),
        ({"enqueued_tokens": 10**6}, [10]),
    ],
)
def test_batches_are_as_large_as_the_server_allows(
    batching: DistillRunner, server: BatchServer, settings: dict[str, int], expected: list[int]
) -> None:
    if "max_mb" in settings:
        batching.ask(*(question(number, f"{number} {'x' * 400_000}") for number in range(10)))
    set_batch(batching, **settings)
    batching.run()
    assert sizes(server) == expected
    assert len(batching.distilled()) == 10


# ---- killed at any moment ----


def killing(batching: DistillRunner, server: BatchServer, call: str, when: str) -> subprocess.Popen[str]:
    """Start the stage; it is killed when the server gets a call, before or after the call is carried out."""
    stage = batching.start("killed")

    async def kill(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        response = await respond() if when == "after" else None
        os.killpg(stage.pid, signal.SIGKILL)
        return response or web.Response(status=500)

    server.on[call] = kill
    return stage


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("upload", "before"),
        ("upload", "after"),
        ("create", "before"),
        ("create", "after"),
        ("look", "after"),
        ("content", "before"),
    ],
)
@pytest.mark.parametrize("then", ["batches", "single calls"])
def test_a_kill_at_any_call_neither_loses_nor_repeats_a_request(
    batching: DistillRunner, server: BatchServer, call: str, when: str, then: str
) -> None:
    server.looks = 1
    with killing(batching, server, call, when) as stage:
        stage.communicate(timeout=60)
    assert stage.returncode == -signal.SIGKILL
    submitted = (call, when) not in (("upload", "before"), ("upload", "after"), ("create", "before"))
    assert sizes(server) == [10] * submitted
    if then == "single calls":
        batching.settings.pop("run.batch.teacher")
    batching.run()
    assert sizes(server) == [10] * (submitted or then == "batches"), "one batch, whoever submitted it"
    assert len(server.executed) + len(server.bodies) == 10
    assert len(batching.distilled()) == 10
    assert entries(batching) == []


@pytest.mark.heavy
def test_a_kill_while_answers_are_stored_leaves_the_rest_to_the_next_run(
    batching: DistillRunner, server: BatchServer
) -> None:
    batching.ask(*(question(number) for number in range(3000)))

    async def halfway(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        body = server.files[request.match_info["id"]]
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response

    server.on["content"] = halfway
    with batching.start("killed") as stage:
        wait_until(lambda: batching.stored() >= 256)
        os.killpg(stage.pid, signal.SIGKILL)
        stage.communicate(timeout=60)
    assert 256 <= batching.stored() < 3000, "it was killed in between"
    batching.run()
    assert sizes(server) == [3000]
    assert batching.stored() == 3000
    assert len(batching.distilled()) == 3000


# ---- how batches end ----


def test_what_an_expired_batch_has_is_kept_and_the_rest_goes_into_the_next(
    batching: DistillRunner, server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.endings, server.answer_share = ["expired"], 0.4
    batching.run()
    assert sizes(server) == [10, 6]
    assert len(set(server.executed)) == len(server.executed) == 10
    assert len(batching.distilled()) == 10
    assert "batch_0 expired: 4 answers, 6 batch_expired" in caplog.text


@pytest.mark.parametrize("refused", [False, True], ids=["expired", "refused"])
def test_what_an_earlier_run_left_open_and_did_not_get_is_submitted_once_more_or_not_at_all(
    refused: bool, left_open: DistillRunner, server: BatchServer
) -> None:
    server.looks, server.endings, server.answer_share = 1, ["completed" if refused else "expired"], 0.4
    if refused:
        left_open.set(max_failed_share=1.0)
        server.reply = lambda content, attempt: (400, error("Inappropriate content.", "data_inspection_failed"))
    left_open.run()
    assert sizes(server) == ([10] if refused else [10, 6])
    assert len(left_open.failures()) == 10 * refused


def test_a_request_that_expires_in_every_batch_is_a_failed_row(batching: DistillRunner, server: BatchServer) -> None:
    server.ending, server.answer_share = "expired", 0.0
    batching.set(max_attempts=2, max_failed_share=1.0)
    batching.run()
    assert sizes(server) == [10, 10]
    assert {(row["reason"], row["attempts"]) for row in batching.failures()} == {("batch_expired", 2)}
    assert entries(batching) == []


def test_a_batch_that_a_person_cancelled_is_kept_and_not_submitted_again_at_once(
    batching: DistillRunner, server: BatchServer
) -> None:
    server.endings, server.answer_share = ["cancelled"], 0.3
    assert batching.refused() == (
        "distill: batch_0 was cancelled; 3 of its 10 answers were received and are kept. Run the stage again to submit "
        "the others."
    )
    assert batching.stored() == 3
    batching.run()
    assert sizes(server) == [10, 7]


def test_a_batch_that_the_server_refuses_ends_the_run_in_one_line(batching: DistillRunner, server: BatchServer) -> None:
    server.refuses = lambda lines: {"code": "invalid_value", "line": 3, "message": "The model `m` has no batches."}
    assert batching.refused() == (
        "distill: batch_0: the server refuses the batch of 10 requests: line 3: The model `m` has no batches. Run the "
        "stage again when that is fixed; received answers are kept."
    )
    assert entries(batching) == []


def test_a_full_queue_makes_smaller_batches(batching: DistillRunner, server: BatchServer) -> None:
    server.refuses = lambda lines: (
        {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."} if len(lines) > 4 else None
    )
    batching.run()
    assert sizes(server)[:2] == [10, 5]
    assert len(batching.distilled()) == 10


def test_a_queue_that_stays_full_says_which_key_to_set(batching: DistillRunner, server: BatchServer) -> None:
    server.refuses = lambda lines: {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}
    assert "Set enqueued_tokens in run.batch below the limit of the account" in batching.refused()


# ---- lines ----


def test_lines_with_an_error_inside_are_asked_again_or_fail_as_single_calls_do(
    batching: DistillRunner, server: BatchServer
) -> None:
    contents: list[str] = []

    def reply(content: str, attempt: int) -> tuple[int, Any]:
        contents.append(content)
        kinds = {0: (429, error("slow down")), 1: (500, error("oops")), 2: (200, {"choices": []})}
        number = list(dict.fromkeys(contents)).index(content)
        if number in kinds and attempt == 1:
            return kinds[number]
        refused = error("Input data may contain inappropriate content.", "data_inspection_failed")
        return (400, refused) if number == 3 else (200, answer_to(content))

    server.reply = reply
    batching.set(max_failed_share=0.2)
    batching.run()
    assert sizes(server) == [10, 3]
    (failed,) = batching.failures()
    assert (failed["reason"], failed["status"], failed["attempts"]) == ("refused", 400, 1)
    assert failed["error"] == "Input data may contain inappropriate content."
    assert len(batching.distilled()) == 9
    unread = (batching.store.parent / "answers.unread.jsonl").read_text(encoding="utf-8")
    assert json.loads(unread)["reason"] == "no_choices"


def test_odd_lines_are_left_aside_and_cost_no_answer(
    batching: DistillRunner, server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    def mangle(lines: list[bytes]) -> list[bytes]:
        server.mangle = list
        stranger = json.loads(lines[0]) | {"custom_id": "somebody-else"}
        half = lines[-1][: len(lines[-1]) // 2]
        return [lines[0], lines[0], b"\n", json.dumps(stranger).encode() + b"\n", b"[]\n", *lines[1:-1], half]

    server.mangle = mangle
    batching.run()
    assert sizes(server) == [10, 1], "what stands in half a line is asked again"
    assert "9 answers, 1 no_line; lines left aside: 1 already stored, 1 unknown_custom_id, 2 unreadable" in caplog.text
    assert batching.stored() == 10
    unread = [json.loads(line) for line in (batching.store.parent / "answers.unread.jsonl").open(encoding="utf-8")]
    assert [row["reason"] for row in unread] == ["unknown_custom_id", "not_json", "not_json"]


def test_a_result_that_is_not_whole_yet_is_downloaded_again(batching: DistillRunner, server: BatchServer) -> None:
    async def first_half(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        body = server.files[request.match_info["id"]]
        return web.Response(body=body[: len(body) // 2])

    server.on["content"] = first_half
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 10
    assert not (batching.store.parent / "answers.unread.jsonl").exists()


def test_a_result_whose_file_is_not_named_yet_is_looked_at_again(batching: DistillRunner, server: BatchServer) -> None:
    async def no_file(request: web.Request, respond: Respond) -> web.StreamResponse:
        shown = json.loads((await respond()).body)  # type: ignore[attr-defined]  # a whole response
        if shown["status"] == "completed":
            server.on.clear()
            shown["output_file_id"] = None
        return web.json_response(shown)

    server.on["look"] = no_file
    batching.run()
    assert sizes(server) == [10]


@pytest.mark.parametrize("beside_calls", [False, True], ids=["batches", "single calls"])
def test_a_completed_batch_that_stays_short_of_results_stays_open(
    beside_calls: bool, batching: DistillRunner, server: BatchServer
) -> None:
    server.mangle = lambda lines: lines[:4]
    said = batching.refused()
    assert said.startswith("batch_0: completed, but its files lack 6 of 10 results. Received answers are stored.")
    assert "'make batches FORGET=batch_0' has it bought again" in said
    assert (batching.stored(), len(server.bodies)) == (4, 0)
    assert [path.suffix for path in entries(batching)] == [".json", ".jsonl"]
    (file_id,) = {batch["output_file_id"] for batch in server.batches.values()}
    whole = {"response": {"status_code": 200, "body": answer_to("")}, "error": None}
    answers = [{"custom_id": line["custom_id"]} | whole for line in server.submitted[0]]
    server.files[file_id] = b"".join(json.dumps(line).encode() + b"\n" for line in answers)
    if beside_calls:
        batching.settings.pop("run.batch.teacher")
    batching.run()
    assert (sizes(server), server.bodies) == ([10], [])
    assert batching.stored() == len(batching.distilled()) == 10
    assert entries(batching) == []


def test_a_completed_batch_whose_file_is_never_named_stays_open(batching: DistillRunner, server: BatchServer) -> None:
    async def no_file(request: web.Request, respond: Respond) -> web.StreamResponse:
        shown = json.loads((await respond()).body)  # type: ignore[attr-defined]  # a whole response
        return web.json_response(shown | {"output_file_id": None})

    server.on["look"] = no_file
    assert batching.refused().startswith("batch_0: completed, but its files lack 10 of 10 results.")
    server.on.clear()
    batching.run()
    assert sizes(server) == [10]


def test_an_answer_counts_before_an_error_of_the_same_request(batching: DistillRunner, server: BatchServer) -> None:
    def mangle(lines: list[bytes]) -> list[bytes]:
        failed = {"response": {"status_code": 500, "body": error("oops")}, "error": None}
        return [*(json.dumps(json.loads(line) | failed).encode() + b"\n" for line in lines), *lines, *lines]

    server.mangle = mangle
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 10


def test_lines_in_the_form_of_other_servers_are_read(batching: DistillRunner, server: BatchServer) -> None:
    """A status as a text; an error in the errors' file with a code and no response, as DashScope documents it."""

    def mangle(lines: list[bytes]) -> list[bytes]:
        read = [json.loads(line) for line in lines]
        for line in read:
            line["response"]["status_code"] = str(line["response"]["status_code"])
        refused = {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}
        read[0] |= {"response": None, "error": refused}
        return [json.dumps(line).encode() + b"\n" for line in read]

    server.mangle = mangle
    batching.set(max_failed_share=0.2)
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 9
    (failed,) = batching.failures()
    assert (failed["reason"], failed["error"]) == ("refused", "Input data may contain inappropriate content.")


def test_missing_credit_in_a_line_ends_the_run_when_the_other_lines_are_stored(
    batching: DistillRunner, server: BatchServer
) -> None:
    server.reply = lambda content, attempt: (
        (429, error("You exceeded your current quota.", "insufficient_quota"))
        if len(server.executed) == 1
        else (200, answer_to(content))
    )
    assert "You exceeded your current quota. Top up the account" in batching.refused()
    assert batching.stored() == 9
    assert sizes(server) == [10]


# ---- calls that fail ----


def test_a_lost_reply_to_a_submission_does_not_submit_twice(
    batching: DistillRunner, server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def lost_once(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        return await lost(request, respond)

    server.on["create"] = lost_once
    batching.run()
    assert sizes(server) == [10]
    assert "the batch batch_0 was submitted already" in caplog.text


@pytest.mark.parametrize(
    ("status", "text"),
    [(408, ""), (409, ""), (500, ""), (200, '{"id": "bat'), (200, "<html>hello</html>"), (200, "{}")],
    ids=["408", "409", "500", "half a reply", "a page", "no id"],
)
def test_a_submission_whose_reply_does_not_tell_is_looked_for_before_it_is_repeated(
    status: int, text: str, batching: DistillRunner, server: BatchServer
) -> None:
    async def unclear(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        await respond()
        kind = "text/html" if text.startswith("<") else "application/json"
        return web.Response(text=text or json.dumps(error("try again")), content_type=kind, status=status)

    server.on["create"] = unclear
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 10


@pytest.mark.parametrize("call", ["upload", "look"])
def test_half_a_reply_is_asked_for_again(call: str, batching: DistillRunner, server: BatchServer) -> None:
    async def half(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        return web.Response(text='{"id": "bat', content_type="application/json")

    server.on[call] = half
    batching.run()
    assert sizes(server) == [10]


def test_a_list_of_batches_with_dates_as_texts_is_read(left_open: DistillRunner, server: BatchServer) -> None:
    async def dates(request: web.Request, respond: Respond) -> web.StreamResponse:
        data = [server.batches["batch_0"] | {"created_at": "2026-11-28T10:00:00Z"}]
        other = data[0] | {"id": "other", "input_file_id": "another file"}
        return web.json_response({"object": "list", "data": [other, *data], "has_more": False})

    server.on["list"] = dates
    change_entry(left_open, batch_id=None)
    left_open.run()
    assert sizes(server) == [10]


def test_an_unknown_address_is_one_line_and_leaves_no_entry(batching: DistillRunner) -> None:
    batching.set(base_url="http://127.0.0.1:1/v1", outage_s=600.0)
    assert "http://127.0.0.1:1/v1: no server has answered for 0 s" in batching.refused()
    assert entries(batching) == []


@pytest.mark.parametrize("call", ["upload", "create", "look", "content"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_call_that_fails_once_is_repeated(
    batching: DistillRunner, server: BatchServer, call: str, status: int
) -> None:
    async def fail_once(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        return web.json_response(error("busy"), status=status)

    server.on[call] = fail_once
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 10


def test_a_download_that_breaks_is_repeated(batching: DistillRunner, server: BatchServer) -> None:
    async def cut(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.on.clear()
        body = server.files[request.match_info["id"]]
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        assert request.transport
        request.transport.abort()
        return response

    server.on["content"] = cut
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 10


@pytest.mark.parametrize(
    ("call", "status", "body", "expected"),
    [
        (
            "upload",
            404,
            error("no route"),
            "could not upload the requests: the server answers 404. Does it have a batch",
        ),
        (
            "upload",
            401,
            error("wrong", "invalid_api_key"),
            "the server answers 401 for model 'chain-sum-solver': wrong.",
        ),
        (
            "create",
            400,
            error("window must be 24h"),
            "could not submit a batch: the server answers 400: window must be",
        ),
        ("look", 404, error("gone"), "'make batches FORGET=batch_0' has its answers bought again."),
    ],
)
def test_a_call_that_is_refused_is_one_line(
    batching: DistillRunner, server: BatchServer, call: str, status: int, body: Any, expected: str
) -> None:
    async def refuse(request: web.Request, respond: Respond) -> web.StreamResponse:
        return web.json_response(body, status=status)

    server.on[call] = refuse
    assert expected in batching.refused()
    assert bool(entries(batching)) == (call == "look"), "what was not submitted leaves no entry"
    server.on.clear()
    batching.run()
    assert sizes(server) == [10]


def test_a_server_without_batches_that_answers_a_page_is_one_line(batching: DistillRunner, server: BatchServer) -> None:
    async def page(request: web.Request, respond: Respond) -> web.StreamResponse:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    server.on["upload"] = page
    assert "no reply of a batch API. Check the address" in batching.refused()


# ---- stopping, and other runs ----


@pytest.mark.heavy
def test_ctrl_c_leaves_the_batch_at_the_server_and_the_next_run_receives_it(
    batching: DistillRunner, server: BatchServer
) -> None:
    server.held = True
    with batching.start() as stage:
        wait_until(lambda: server.calls.count("look") >= 3)
        os.killpg(stage.pid, signal.SIGINT)
        _, said = stage.communicate(timeout=20)
    assert stage.returncode == 130
    assert said.splitlines()[-1] == (
        "Error: distill: stopped; 10 requests go on at the server, in batch_0. Run the stage again to receive them; "
        "'make batches CANCEL=batch_0' cancels a batch."
    )
    server.held = False
    batching.run()
    assert sizes(server) == [10]
    assert len(batching.distilled()) == 10


@pytest.mark.heavy
def test_ctrl_c_ends_single_calls_that_wait_for_a_batch_and_leaves_it(
    left_open: DistillRunner, server: BatchServer
) -> None:
    settings = left_open.settings.pop("run.batch.teacher")
    server.held = True
    before = server.calls.count("look")
    with left_open.start() as stage:
        wait_until(lambda: server.calls.count("look") > before)
        os.killpg(stage.pid, signal.SIGINT)
        _, said = stage.communicate(timeout=20)
    assert stage.returncode == 130
    assert said.splitlines()[-1].startswith("Error: distill: stopped; 0 answers were received and are kept, 10 are")
    assert server.bodies == []
    server.held = False
    left_open.settings["run.batch.teacher"] = settings
    left_open.run()
    assert sizes(server) == [10]


@pytest.mark.heavy
def test_two_runs_on_one_store_submit_each_request_once(batching: DistillRunner, server: BatchServer) -> None:
    server.looks = 20
    with batching.start("one") as one, batching.start("two") as two:
        said = one.communicate(timeout=60)[1] + two.communicate(timeout=60)[1]
    assert (one.returncode, two.returncode) == (0, 0), said
    assert sum(sizes(server)) == 10
    assert batching.outputs("one") == batching.outputs("two")


@pytest.mark.heavy
def test_single_calls_and_batches_at_once_ask_each_question_once(batching: DistillRunner, server: BatchServer) -> None:
    async def slow(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.json_response(answer_to(content))

    server.route = slow
    settings = batching.settings.pop("run.batch.teacher")
    batching.set(concurrency=1)
    batching.ask(*(question(number) for number in range(40)))
    with batching.start("single") as single:
        wait_until(lambda: len(server.asked) >= 2)
        batching.settings["run.batch.teacher"] = settings
        with batching.start("batch") as batch:
            said = single.communicate(timeout=60)[1] + batch.communicate(timeout=60)[1]
    assert (single.returncode, batch.returncode) == (0, 0), said
    assert len(server.asked) == len(set(server.asked)) == 40
    assert server.executed, "some were in a batch"
    assert batching.outputs("single") == batching.outputs("batch")


@pytest.fixture
def left_open(batching: DistillRunner, server: BatchServer) -> DistillRunner:
    """A batch that a run has left at the server: it cannot be looked at for now."""

    async def down(request: web.Request, respond: Respond) -> web.StreamResponse:
        return web.json_response(error("down"), status=500)

    server.on["look"] = down
    batching.refused()
    server.on.clear()
    assert len(entries(batching)) == 2
    return batching


def test_single_calls_to_a_named_endpoint_do_not_buy_what_is_in_a_batch(
    left_open: DistillRunner, server: BatchServer
) -> None:
    left_open.settings.pop("run.batch.teacher")
    limits = {"concurrency": None, "requests_per_minute": None, "tokens_per_minute": None}
    servers = [{"base_url": server.base_url, "weight": 1.0, "key_variable": None} | limits]
    left_open.settings["run.endpoints.teacher"] = {"name": "my-teacher", "aliases": [], "servers": servers}
    server.looks = 1
    left_open.run()
    assert server.bodies == []
    assert len(left_open.distilled()) == 10
    assert entries(left_open) == []


def test_single_calls_ask_the_rest_and_receive_what_is_in_a_batch(
    left_open: DistillRunner, server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    left_open.settings.pop("run.batch.teacher")
    left_open.ask(*(question(number) for number in range(12)))
    server.looks, server.endings, server.answer_share = 1, ["expired"], 0.4
    left_open.run()
    assert "10 of the missing answers are in batch_0, at the server, and are received when it has ended" in caplog.text
    assert "batch_0 expired: 4 answers, 6 batch_expired" in caplog.text
    assert len(server.executed) == 4
    assert len(server.bodies) == 2 + 6, "what was in no batch, and what expired"
    assert len(set(server.asked)) == len(server.asked) == 12
    assert len(left_open.distilled()) == 12
    assert entries(left_open) == []


def change_entry(runner: DistillRunner, **values: Any) -> None:
    """The only open batch has these values, as if another stage or address had submitted it."""
    (entry,) = runner.store.with_suffix(".batches").glob("*.json")
    entry.write_text(json.dumps(json.loads(entry.read_bytes()) | values), encoding="utf-8")


@pytest.mark.heavy
def test_a_batch_that_cannot_be_looked_at_ends_a_run_of_single_calls_when_the_rest_is_asked(
    left_open: DistillRunner, server: BatchServer
) -> None:
    left_open.settings.pop("run.batch.teacher")
    left_open.ask(*(question(number) for number in range(12)))
    change_entry(left_open, endpoint="http://127.0.0.1:1/v1")
    with left_open.start() as stage:
        said = stage.communicate(timeout=60)[1]
    assert stage.returncode == 1
    assert said.splitlines()[-1].startswith("Error: http://127.0.0.1:1/v1: no server has answered for 0 s")
    assert len(server.bodies) == left_open.stored() == 2
    change_entry(left_open, endpoint=server.base_url)
    server.looks = 1
    left_open.run()
    assert len(server.bodies) == 2
    assert len(left_open.distilled()) == 12


def test_a_batch_that_was_never_submitted_is_asked_by_single_calls(
    left_open: DistillRunner, server: BatchServer
) -> None:
    left_open.settings.pop("run.batch.teacher")
    change_entry(left_open, batch_id=None)
    server.batches.clear()
    left_open.run()
    assert len(server.bodies) == 10
    assert entries(left_open) == []


def test_a_batch_is_taken_over_as_far_as_its_process_got_after_the_journal_was_listed(
    left_open: DistillRunner, server: BatchServer
) -> None:
    change_entry(left_open, file_id=None, batch_id=None)
    with open_store(left_open.store) as store:
        batches = OpenBatches(store)
        (listed,) = batches.batches()
        change_entry(left_open, file_id="file-0", batch_id="batch_0")

        async def visited() -> Visit:
            worker = BatchWorker(store, batches, load_params(Path(left_open.arguments()[-1])).run, 1.0)
            assert worker.take_over(listed)
            visit = await worker.visit(listed.token, lambda *_: None)
            await worker.close()
            return visit

        visit = asyncio.run(visited())
    assert visit.remote
    assert (visit.batch.name, visit.remote.status) == ("batch_0", "in_progress")
    assert len(entries(left_open)) == 2


def test_a_batch_that_was_submitted_and_not_written_down_is_received_by_single_calls(
    left_open: DistillRunner, server: BatchServer
) -> None:
    left_open.settings.pop("run.batch.teacher")
    change_entry(left_open, batch_id=None)
    server.looks = 1
    left_open.run()
    assert server.bodies == []
    assert len(left_open.distilled()) == 10


@pytest.mark.heavy
@pytest.mark.parametrize("batches_too", [False, True], ids=["single calls", "batches"])
def test_a_run_that_waits_for_the_batch_of_another_one_receives_it_when_that_one_is_killed(
    batches_too: bool, batching: DistillRunner, server: BatchServer
) -> None:
    gate = threading.Event()

    async def slow(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while not gate.is_set():
            await asyncio.sleep(0.02)
        return web.json_response(answer_to(content))

    server.route, server.held = slow, True
    settings = batching.settings["run.batch.teacher"]
    batching.set(concurrency=1)
    if not batches_too:
        batching.settings.pop("run.batch.teacher")
        waiting = batching.start("waits")
        wait_until(lambda: len(server.asked) >= 1)
    batching.settings["run.batch.teacher"] = settings
    with batching.start("killed") as killed:
        wait_until(lambda: server.calls.count("look") >= 2)
        if batches_too:
            waiting = batching.start("waits", stderr=subprocess.STDOUT)
            said_by = waiting.stdout
            assert said_by
            wait_until(lambda: "waiting for the answers of another run" in said_by.readline())
        gate.set()
        if not batches_too:
            wait_until(lambda: batching.stored() >= 1)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate(timeout=60)
    server.held = False
    said = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said
    (submitted,) = sizes(server)
    assert submitted + len(server.bodies) == 10
    assert len(set(server.asked)) == len(server.asked) == 10
    assert len(batching.distilled("waits")) == 10
    assert entries(batching) == []


@pytest.mark.parametrize("values", [{}, {"stage": "filter", "section": "filter.judge"}], ids=["other", "another stage"])
def test_a_cancelled_batch_that_a_run_does_not_need_does_not_end_it(
    values: dict[str, str], left_open: DistillRunner, server: BatchServer
) -> None:
    change_entry(left_open, **values)
    server.batches["batch_0"]["status"], server.answer_share = "cancelling", 0.5
    left_open.ask(question(50))
    left_open.run()
    assert sizes(server) == [10, 1]
    assert left_open.stored() == (1 if values else 1 + 5)
    assert bool(entries(left_open)) == bool(values), "that of another stage is left to it"


def test_a_batch_that_a_run_does_not_need_and_cannot_look_at_does_not_end_it(
    left_open: DistillRunner, server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    change_entry(left_open, endpoint="http://127.0.0.1:1/v1")
    left_open.ask(question(50))
    left_open.run()
    assert "batch_0, which this run does not need: http://127.0.0.1:1/v1: no server has answered" in caplog.text
    assert len(entries(left_open)) == 2


def test_what_a_process_left_that_was_killed_before_its_entry_was_whole_is_removed_when_it_is_old(
    left_open: DistillRunner, server: BatchServer
) -> None:
    folder = left_open.store.with_suffix(".batches")
    names = [f"2026-{number}.{ending}" for number in (0, 1) for ending in ("jsonl", "jsonl.tmp", "json.tmp")]
    for name in names:
        (folder / name).write_bytes(b"{")
        if name.startswith("2026-0"):
            os.utime(folder / name, (0, 0))
    for path in entries(left_open):
        if path.name not in names:
            os.utime(path, (0, 0))
    server.looks = 1
    left_open.ask(*(question(number) for number in range(12)))
    left_open.run()
    assert sizes(server) == [10, 2]
    assert [path.name for path in entries(left_open)] == sorted(names[3:])


def test_half_an_entry_in_the_journal_is_one_line(left_open: DistillRunner) -> None:
    (entry,) = left_open.store.with_suffix(".batches").glob("*.json")
    entry.write_bytes(entry.read_bytes()[:40])
    for settings in (left_open.settings.pop("run.batch.teacher"), None):
        assert left_open.refused() == (
            f"{entry}: not an entry of a batch. Move {entry.stem}.* from {entry.parent} to another folder; answers of "
            "that batch are then bought again."
        )
        left_open.settings |= {"run.batch.teacher": settings} if settings else {}


def test_where_other_hosts_share_the_store_the_journal_is_listed_anew_by_the_server(left_open: DistillRunner) -> None:
    folder = left_open.store.with_suffix(".batches")
    os.utime(folder, (0, 0))
    with open_answers(left_open.store) as answers:
        assert len(OpenBatches(answers).keys()) == 10
        assert folder.stat().st_mtime == 0, "a host alone asks nobody"
        answers.reads_afresh = True
        assert len(OpenBatches(answers).keys()) == 10
        assert folder.stat().st_mtime > 0


def test_requests_of_an_open_batch_that_are_missing_are_one_line_and_nothing_is_bought(
    left_open: DistillRunner, server: BatchServer
) -> None:
    (requests,) = left_open.store.with_suffix(".batches").glob("*.jsonl")
    kept = requests.rename(left_open.folder / "kept")
    for settings in (left_open.settings.pop("run.batch.teacher"), None):
        assert left_open.refused().startswith(f"{requests}: missing. Put it back. If it is lost: Move ")
        left_open.settings |= {"run.batch.teacher": settings} if settings else {}
    kept.rename(requests)
    left_open.run()
    assert sizes(server) == [10]
    assert server.bodies == []


def test_half_a_line_in_the_journal_is_one_line(left_open: DistillRunner) -> None:
    (requests,) = left_open.store.with_suffix(".batches").glob("*.jsonl")
    lines = requests.read_bytes().splitlines(keepends=True)
    requests.write_bytes(b"".join([*lines[:-1], lines[-1][:40]]))
    for settings in (left_open.settings.pop("run.batch.teacher"), None):
        assert left_open.refused() == (
            f"{requests}:10: not a request of a batch. Move {requests.stem}.* from {requests.parent} to another "
            "folder; answers of that batch are then bought again."
        )
        left_open.settings |= {"run.batch.teacher": settings} if settings else {}


def test_other_questions_do_not_wait_for_a_batch_that_they_do_not_need(
    left_open: DistillRunner, server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    name = server.batches["batch_0"]
    server.held = True
    left_open.ask(question(50))

    async def only_the_new_one(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.held = request.match_info["id"] == "batch_0"
        return await respond()

    server.on["look"] = only_the_new_one
    left_open.run()
    assert "batch_0, with 10 requests that this run does not need, goes on at the server" in caplog.text
    assert name["status"] == "in_progress"
    server.on.clear()
    server.held = False
    left_open.ask(*(question(number) for number in range(10)), question(50))
    left_open.run()
    assert sizes(server) == [10, 1]


def test_the_prompt_may_change_while_a_batch_is_open_and_its_answers_are_stored_all_the_same(
    left_open: DistillRunner, server: BatchServer
) -> None:
    server.looks = 0
    left_open.set(max_tokens=100)
    left_open.run()
    assert sizes(server) == [10, 10]
    assert left_open.stored() == 20
    assert entries(left_open) == []


Command = Callable[..., str]


@pytest.fixture
def make_batches(runner: DistillRunner) -> Command:
    """``make batches``, with these options."""

    def run(*options: str, code: int = 0) -> str:
        arguments = runner.arguments()
        params = arguments[arguments.index("--params") + 1]
        result = CliRunner().invoke(batches_command.main, ["--store", str(runner.store), "--params", params, *options])
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_make_batches_shows_and_receives(left_open: DistillRunner, server: BatchServer, make_batches: Command) -> None:
    where = f"batch_0: 10 requests of distill to chain-sum-solver at {server.base_url}"
    assert make_batches() == f"{where}: in_progress, 0 done, 0 failed\n"
    assert make_batches() == f"{where}: completed; received: 10 answers\n"
    assert make_batches() == f"{left_open.store}: no open batch\n"
    left_open.settings.pop("run.batch.teacher")
    left_open.run()
    assert server.bodies == [], "the store has them all"


def test_make_batches_shows_the_others_when_one_cannot_be_reached(
    left_open: DistillRunner, server: BatchServer, make_batches: Command
) -> None:
    folder = left_open.store.with_suffix(".batches")
    entry = json.loads(next(folder.glob("*.json")).read_bytes())
    gone = entry | {"token": "20200101T000000-00000000", "endpoint": "http://127.0.0.1:1/v1", "batch_id": "batch_9"}
    (folder / f"{gone['token']}.json").write_text(json.dumps(gone))
    (folder / f"{gone['token']}.jsonl").write_bytes(b"")
    server.looks = 1
    said = make_batches(code=1)
    assert "batch_9: 10 requests of distill to chain-sum-solver at http://127.0.0.1:1/v1: http://127.0.0.1:1" in said
    assert "batch_0: 10 requests of distill" in said
    assert "completed; received: 10 answers" in said
    assert "Error: 1 of 2 batches could not be looked at." in said
    assert left_open.stored() == 10
    assert "forgotten" in make_batches("--forget", "batch_9")


def test_make_batches_does_not_receive_what_a_stage_closes_meanwhile(
    left_open: DistillRunner, server: BatchServer, make_batches: Command
) -> None:
    folder = left_open.store.with_suffix(".batches")
    entry = json.loads(next(folder.glob("*.json")).read_bytes())
    second = entry | {"token": "20990101T000000-00000000", "batch_id": "batch_1"}
    (folder / f"{second['token']}.json").write_text(json.dumps(second))
    (folder / f"{second['token']}.jsonl").write_bytes(b"")
    server.batches["batch_1"] = server.batches["batch_0"] | {"id": "batch_1"}

    async def closed(request: web.Request, respond: Respond) -> web.StreamResponse:
        (folder / f"{second['token']}.json").unlink(missing_ok=True)
        return await respond()

    server.on["look"] = closed
    server.looks = 1
    assert "batch_1: 10 requests of distill to chain-sum-solver at" in (said := make_batches())
    assert said.endswith("closed just now; its answers are in the store\n")
    assert not (left_open.store.parent / "answers.unread.jsonl").exists()


def test_make_batches_leaves_what_a_stage_works_on(
    left_open: DistillRunner, server: BatchServer, make_batches: Command
) -> None:
    entry = json.loads(next(left_open.store.with_suffix(".batches").glob("*.json")).read_bytes())
    script = "import sys; from pathlib import Path; from stages.lib.store.answer_store import open_store\n"
    script += "with open_store(Path(sys.argv[1])) as store: print(store.claim(sys.argv[2]), flush=True); input()"
    key = hashlib.sha256(f"batch {entry['token']}".encode()).hexdigest()
    command, pipe = [sys.executable, "-c", script, str(left_open.store), key], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as stage:
        assert stage.stdout
        assert stage.stdout.readline() == "True\n"
        server.looks = 1
        assert "completed, 10 done, 0 failed; distill works on it" in make_batches()
        assert left_open.stored() == 0
        assert make_batches("--forget", "batch_0", code=1) == (
            "Error: batch_0: distill works on it. Stop that run first.\n"
        )
        stage.communicate("\n", timeout=20)
    assert "received: 10 answers" in make_batches()


def test_make_batches_finds_what_a_killed_run_was_submitting(
    left_open: DistillRunner, server: BatchServer, make_batches: Command
) -> None:
    change_entry(left_open, batch_id=None)
    assert "10 requests of distill to chain-sum-solver" in (said := make_batches())
    assert said.endswith(": in_progress, 0 done, 0 failed\n")
    change_entry(left_open, batch_id=None)
    server.batches.clear()
    assert make_batches().endswith("it was never submitted; distill asks for its requests when it runs again\n")
    assert entries(left_open) == []


def test_make_batches_cancels(left_open: DistillRunner, server: BatchServer, make_batches: Command) -> None:
    server.answer_share = 0.5
    assert "cancelling" in make_batches("--cancel", "batch_0")
    assert "cancelled; received: 5 answers, 5 batch_cancelled" in make_batches()
    left_open.run()
    assert sizes(server) == [10, 5]


def test_make_batches_forgets(left_open: DistillRunner, server: BatchServer, make_batches: Command) -> None:
    assert make_batches("--forget", "batch_7", code=1) == (
        "Error: batch_7: no open batch has that name. Open: batch_0.\n"
    )
    assert "forgotten" in make_batches("--forget", "batch_0")
    left_open.run()
    assert sizes(server) == [10, 10]


# ---- money ----

PRICE = {"input": 0.0, "cached_input": 0.0, "output": 1000.0}  # an answer of 9 tokens: 0.009 singly, 0.0045 in a batch


def priced(runner: DistillRunner, budget: float | None, max_tokens: int | None = 9) -> None:
    runner.set(models={"chain-sum-solver": PRICE}, budget=budget, max_tokens=max_tokens)


def facts(runner: DistillRunner, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("DVC_ROOT", str(runner.folder))
    runner.run()
    found: dict[str, Any] = json.loads((runner.folder / "metrics/runs/distill.json").read_bytes())
    return found


def test_answers_cost_the_batch_price(
    batching: DistillRunner, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    priced(batching, None)
    assert facts(batching, monkeypatch)["paid_now"] == 0.045


def test_a_budget_is_kept_before_anything_is_submitted(batching: DistillRunner, server: BatchServer) -> None:
    priced(batching, 0.02)  # room for four
    assert "run.budget = 0.02" in batching.refused()
    assert sizes(server) == [4]
    assert batching.stored() == 4
    priced(batching, 0.045)
    batching.run()
    assert sizes(server) == [4, 6]


def test_an_open_batch_of_an_ended_run_counts_for_the_budget(left_open: DistillRunner, server: BatchServer) -> None:
    priced(left_open, 0.05)  # an answer may cost 0.0045, and ten of them are in the batch
    server.held = True
    left_open.ask(question(50), question(51))

    async def end_when_another_was_submitted(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.held = request.match_info["id"] == "batch_0" and sizes(server) == [10]
        return await respond()

    server.on["look"] = end_when_another_was_submitted
    left_open.run()
    assert sizes(server) == [10, 1, 1]


@pytest.mark.heavy
def test_a_batch_that_cannot_be_looked_at_and_fills_the_budget_ends_the_run_in_one_line(
    left_open: DistillRunner, server: BatchServer
) -> None:
    priced(left_open, 0.05)
    change_entry(left_open, endpoint="http://127.0.0.1:1/v1")
    left_open.ask(question(50), question(51))
    with left_open.start() as stage:
        said = stage.communicate(timeout=60)[1]
    assert stage.returncode == 1
    assert "run.budget = 0.05 CNY has no room for another answer" in said.splitlines()[-1]
    assert said.endswith("Open batches may cost 0.0450 CNY of it: see 'make batches'.\n")
    assert sizes(server) == [10, 1]
    left_open.settings.pop("run.batch.teacher")
    priced(left_open, 0.1)  # singly, an answer may cost twice as much
    with left_open.start() as stage:
        said = stage.communicate(timeout=60)[1]
    assert stage.returncode == 1
    assert "Error: http://127.0.0.1:1/v1: no server has answered" in said.splitlines()[-1]
    assert server.bodies == []


def test_single_calls_keep_the_budget_with_an_open_batch_of_an_ended_run(
    left_open: DistillRunner, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "POLL_S", 0.01)
    monkeypatch.setattr(beside, "JOURNAL_POLL_S", 0.01)
    asked_before: list[int] = []
    left_open.settings.pop("run.batch.teacher")
    priced(left_open, 0.1)  # a call may cost 0.009
    left_open.ask(question(50), question(51))

    async def end_when_one_was_asked(request: web.Request, respond: Respond) -> web.StreamResponse:
        server.held = left_open.stored() == 0
        asked_before.append(len(server.bodies))
        return await respond()

    server.on["look"] = end_when_one_was_asked
    left_open.run()
    assert max(asked_before) == 1
    assert len(server.bodies) == 2
    assert left_open.stored() == 12


@pytest.mark.heavy
def test_two_runs_on_one_store_have_one_budget(batching: DistillRunner, server: BatchServer) -> None:
    priced(batching, 0.02)  # room for four
    set_batch(batching, max_requests=3)
    server.looks = 20
    with batching.start("one") as one, batching.start("two") as two:
        said = one.communicate(timeout=60)[1] + two.communicate(timeout=60)[1]
    assert said.count("run.budget = 0.02") == 2
    assert len(server.executed) == batching.stored() == 4


def test_room_that_cheap_answers_leave_is_used(batching: DistillRunner, server: BatchServer) -> None:
    priced(batching, 0.07, max_tokens=36)  # the most is 0.018 an answer, the real cost a quarter
    batching.run()
    assert sizes(server)[:2] == [3, 3]
    assert sum(sizes(server)) == 10


def test_a_budget_without_an_estimate_submits_nothing(batching: DistillRunner, server: BatchServer) -> None:
    priced(batching, 1.0, max_tokens=None)
    assert "Set distill.teacher.max_tokens, or receive some answers first" in batching.refused()
    assert sizes(server) == []


def test_answers_without_usage_end_a_run_with_a_budget(batching: DistillRunner, server: BatchServer) -> None:
    server.reply = lambda content, attempt: (200, answer_to(content) | {"usage": None})
    priced(batching, 1.0)
    assert "the server's answers state no tokens" in batching.refused()
    assert batching.stored() == 10


def test_the_forecast_has_the_batch_price_and_what_is_at_the_server(
    left_open: DistillRunner, server: BatchServer
) -> None:
    priced(left_open, None, max_tokens=None)
    arguments = [*left_open.arguments(), "--dry-run"]
    left_open.ask(*(question(number) for number in range(12)))
    from stages.distill import main

    text = CliRunner().invoke(main, arguments).output
    assert text == (
        "distill: would ask 12 of 12 (0 are in the store, 10 at the server in batch_0) of chain-sum-solver in batches, "
        "at 0.5 of its price; no answer in the store and no distill.teacher.max_tokens to estimate the cost from\n"
    )
    left_open.run()
    left_open.ask(*(question(number) for number in range(22)))
    text = CliRunner().invoke(main, arguments).output
    assert text.endswith(
        "in batches, at 0.5 of its price; about 0.0450 CNY, at the 0.0045 CNY of an answer in the store\n"
    )


# ---- params ----


def test_run_batch_is_refused_where_it_has_no_reader_or_two_meanings(runner: DistillRunner) -> None:
    runner.ask(question(0))
    runner.settings["run.batch.teacher"] = dict(BATCH)
    assert "run.batch.teacher: only distill.teacher with kind: openai_compatible reads it" in runner.refused()
    runner.set(kind="openai_compatible", base_url="http://127.0.0.1:1/v1")
    entry = {"base_url": "http://a/v1", "weight": 1.0, "key_variable": None, "concurrency": None}
    servers = [entry | {"requests_per_minute": None, "tokens_per_minute": None}]
    runner.settings["run.endpoints.teacher"] = {"name": None, "aliases": [], "servers": servers}
    assert "run.batch.teacher: a batch goes to one server" in runner.refused()
    runner.settings.pop("run.endpoints.teacher")
    runner.settings["run.batch.teacher"] = BATCH | {"completion_window": "soon"}
    assert "run.batch.teacher.completion_window" in runner.refused()


def test_offline_nothing_is_looked_at(left_open: DistillRunner, server: BatchServer) -> None:
    left_open.set(offline=True)
    before = len(server.calls)
    left_open.refused(leaves=("distill_failures.jsonl",))
    assert len(server.calls) == before


def test_the_store_of_batches_is_read_like_any_other(batching: DistillRunner, server: BatchServer) -> None:
    batching.run()
    with open_answers(batching.store) as answers:
        assert len(answers) == 10
