"""Answers that were paid for and are of no use: drawn again on demand, within the budget, the former ones kept.

And the other end of it: with ``run.offline`` the store alone makes the rows.
"""

import json
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from stages.distill import main
from stages.lib.store.answer_file import open_answers
from stages.lib.store.answer_store import request_key
from stages.lib.teacher.draws import answer_that_counts, last_draw, with_draw
from tests.distill_runner import DistillRunner, Route, Serve, completion, good, prompted, question

EMPTY: dict[str, Any] = {"content": "", "usage": {"prompt_tokens": 3, "completion_tokens": 9}}
CUT_OFF = {"finish_reason": "length", "content": "The ans"}
PRICE = {"chain-sum-solver": {"input": 0.0, "cached_input": 0.0, "output": 1000.0}}  # 0.009 of each answer


def in_turn(*answers: dict[str, Any]) -> Route:
    """The first question gets these answers, one a call, then good ones; the others get good ones."""

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        first = content == prompted(question(0)["question"])
        return completion(**(answers[attempt - 1] if first and attempt <= len(answers) else {}))

    return route


def records(runner: DistillRunner) -> list[dict[str, Any]]:
    return [json.loads(line) for line in runner.store.read_bytes().splitlines()]


@pytest.fixture
def one_empty(runner: DistillRunner, serve: Serve) -> DistillRunner:
    """Three questions, of which the first got an empty answer; the next draw will be a good one."""
    runner.use(serve(in_turn(EMPTY)))
    runner.ask(*(question(number) for number in range(3)))
    runner.set(max_failed_share=0.5)
    runner.run()
    assert [row["reason"] for row in runner.failures()] == ["empty_response"]
    return runner


@pytest.mark.parametrize(("useless", "kind"), [(EMPTY, "empty_response"), (CUT_OFF, "cut_off")])
def test_an_answer_of_no_use_is_drawn_again_and_the_former_stays(
    runner: DistillRunner, serve: Serve, useless: dict[str, Any], kind: str
) -> None:
    server = serve(in_turn(useless))
    runner.use(server)
    runner.ask(*(question(number) for number in range(3)))
    runner.set(max_failed_share=0.5)
    runner.run()
    before = runner.store.read_bytes()
    runner.run("other kind", kinds="refused")
    assert len(server.asked) == 3
    assert runner.store.read_bytes() == before
    runner.run("drawn again", kinds=f"{kind}, refused")
    assert len(server.asked) == 4
    assert runner.store.read_bytes().startswith(before)
    assert [row["id"] for row in runner.distilled("drawn again")] == ["q-0", "q-1", "q-2"]
    assert runner.metrics("drawn again")["failed"] == 0
    runner.run("plain")
    runner.run("once more", kinds=kind)
    assert runner.outputs("plain") == runner.outputs("drawn again") == runner.outputs("once more")
    assert len(server.asked) == 4


def test_only_the_number_of_the_draw_tells_its_request_and_it_is_not_sent(
    one_empty: DistillRunner, serve: Serve
) -> None:
    one_empty.run(kinds="empty_response")
    (first,) = [record for record in records(one_empty)[:3] if '"content": ""' in record["body"]]
    last = records(one_empty)[3]
    assert last["request"] == first["request"] | {"draw": 1}
    assert last["key"] == request_key(last["request"])
    assert "draw" not in first["request"]


def test_the_request_of_a_later_draw_is_the_same_to_the_server(runner: DistillRunner, serve: Serve) -> None:
    server = serve(in_turn(EMPTY))
    runner.use(server)
    runner.ask(question(0))
    runner.set(max_failed_share=1.0)
    runner.run()
    runner.run(kinds="empty_response")
    assert server.bodies[0] == server.bodies[1]


def test_each_retry_draws_once_and_the_rows_follow_from_the_store_alone(runner: DistillRunner, serve: Serve) -> None:
    server = serve(in_turn(EMPTY, CUT_OFF, EMPTY))
    runner.use(server)
    runner.ask(question(0), question(1))
    runner.set(max_failed_share=0.5)
    runner.run()
    for number, (reason, kinds) in enumerate(
        [("cut_off", "empty_response"), ("empty_response", "cut_off,empty_response")]
    ):
        runner.run(kinds=kinds)
        (row,) = runner.failures()
        assert (row["reason"], row["attempts"]) == (reason, number + 2), "the last draw's, where none is usable"
    runner.run("fourth", kinds="empty_response")
    assert len(runner.distilled("fourth")) == 2
    assert len(server.asked) == 5
    received = records(runner)
    runner.store.write_text("".join(json.dumps(record) + "\n" for record in reversed(received)))  # another host's order
    runner.run("elsewhere")
    assert runner.outputs("elsewhere") == runner.outputs("fourth")
    assert len(server.asked) == 5


def test_two_questions_with_the_same_text_share_the_draw(runner: DistillRunner, serve: Serve) -> None:
    server = serve(in_turn(EMPTY, EMPTY))
    runner.use(server)
    runner.ask(question(0), question(7, question(0)["question"]))
    runner.set(max_failed_share=1.0)
    runner.run()
    runner.run(kinds="empty_response")
    assert len(server.asked) == 2
    assert [row["attempts"] for row in runner.failures()] == [2, 2]


def test_of_two_usable_draws_the_later_one_counts(runner: DistillRunner, serve: Serve) -> None:
    """As where a better reader finds the first one usable after all: the rows that were made of the later one stay."""
    runner.use(serve(good))
    runner.ask(question(0))
    runner.run()
    (record,) = records(runner)
    body = json.loads(record["body"])
    body["choices"][0]["message"]["content"] = "The later answer."
    request = with_draw(record["request"], 1)
    later = {"key": request_key(request), "request": request, "body": json.dumps(body)}
    runner.store.write_text("".join(json.dumps(each) + "\n" for each in (record, later)))
    with open_answers(runner.store) as answers:
        assert last_draw(record["request"], answers) == 1
        assert answer_that_counts(record["request"], answers).response == "The later answer."
    runner.run()
    assert [row["response"] for row in runner.distilled()] == ["The later answer."]


def test_a_text_that_looks_like_a_draw_is_none(runner: DistillRunner, serve: Serve) -> None:
    runner.use(serve(good))
    runner.ask(question(0, 'What is "draw": 1, {"draw":1}?'))
    runner.run()
    with open_answers(runner.store) as answers:
        assert not answers.holds_draws


def test_a_draw_that_is_not_received_leaves_the_former_answer(
    runner: DistillRunner, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def once(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion("length") if attempt == 1 else web.Response(status=503)

    runner.use(serve(once))
    runner.ask(question(0))
    runner.set(max_failed_share=1.0, max_attempts=2)
    runner.run()
    runner.run("again", kinds="cut_off")
    assert runner.outputs("again") == runner.outputs()
    assert (
        caplog.messages[-1] == "distill: answers drawn again (cut_off): 0; 1 were not received, so the former ones stay"
    )


def test_the_budget_holds_for_every_draw(runner: DistillRunner, serve: Serve) -> None:
    async def empty(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(**EMPTY)

    server = serve(empty)
    runner.use(server)
    runner.ask(*(question(number) for number in range(10)))
    runner.set(models=PRICE, max_failed_share=1.0, concurrency=1)
    runner.run()
    runner.set(budget=0.13)
    forecast = CliRunner().invoke(main, [*runner.arguments(kinds="empty_response"), "--dry-run"])
    assert "would ask 10 of 10 (0 are in the store, 10 are drawn again)" in forecast.stdout
    assert "about 0.0900 CNY, at the 0.0090 CNY of an answer in the store" in forecast.stdout
    line = runner.refused("again", kinds="empty_response")
    assert "run.budget = 0.13 CNY has no room for another answer" in line
    assert line.endswith("'dvc repro' makes the rows without more draws.")
    assert len(server.asked) == 14, "0.09 were spent before, and 0.036 of 0.04 now"
    runner.run("after")
    assert sorted(row["attempts"] for row in runner.failures("after")) == [1] * 6 + [2] * 4
    runner.refused("again", kinds="empty_response")
    assert len(server.asked) == 14, "the former draws count, too"


def test_a_kind_that_is_none_is_refused_before_anything_is_asked(one_empty: DistillRunner) -> None:
    line = one_empty.refused("again", kinds="empty_respnse,cut_off")
    assert line == (
        "KINDS: no answer fails as 'empty_respnse'. Known: cut_off, empty_reasoning, empty_response, not_finished, "
        "refused."
    )


def test_a_body_that_can_no_longer_be_read_is_drawn_again_by_its_reason(one_empty: DistillRunner) -> None:
    changed = [record | ({"body": "{}"} if '"content": ""' in record["body"] else {}) for record in records(one_empty)]
    one_empty.store.write_text("".join(json.dumps(record) + "\n" for record in changed))
    one_empty.run()
    assert [row["reason"] for row in one_empty.failures()] == ["no_choices"]
    one_empty.run(kinds="no_choices")
    assert len(one_empty.distilled()) == 3


# ---- a 200 with nothing at all ----


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3, "completion_tokens": 0}])
@pytest.mark.parametrize("content", [None, "", " \n"])
def test_nothing_at_all_is_asked_for_again_at_once(
    runner: DistillRunner, serve: Serve, usage: Any, content: str | None
) -> None:
    server = serve(in_turn({"content": content, "reasoning_content": None, "usage": usage}))
    runner.use(server)
    runner.ask(question(0), question(1))
    runner.run()
    assert len(server.asked) == 3
    assert len(runner.distilled()) == runner.stored() == 2


def test_nothing_at_all_that_lasts_is_not_stored_and_retried_without_being_named(
    runner: DistillRunner, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = {"content": "", "reasoning_content": "", "usage": {"completion_tokens": 0}}
    server = serve(in_turn(nothing, nothing, nothing))
    runner.use(server)
    runner.ask(question(0), question(1))
    runner.set(max_failed_share=0.5)
    runner.run()
    assert [(row["reason"], row["attempts"]) for row in runner.failures()] == [("nothing_generated", 3)]
    assert runner.stored() == 1
    assert caplog.messages[-1] == "distill: 1 of them were not received; 'make retry' asks for them again"
    runner.run("again")
    assert len(runner.distilled("again")) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": "", "reasoning_content": ""} | {"usage": {"completion_tokens": 5}}, "empty_response"),
        ({"content": "", "reasoning_content": "thought", "usage": None}, "empty_response"),
        ({"content": "", "reasoning_content": "", "usage": None, "finish_reason": "length"}, "cut_off"),
        ({"content": "", "reasoning_content": "", "usage": None, "finish_reason": "content_filter"}, "refused"),
    ],
)
def test_what_was_counted_cut_off_or_refused_was_an_answer(
    runner: DistillRunner, serve: Serve, answer: dict[str, Any], reason: str
) -> None:
    server = serve(in_turn(answer))
    runner.use(server)
    runner.ask(question(0))
    runner.set(max_failed_share=1.0)
    runner.run()
    assert [row["reason"] for row in runner.failures()] == [reason]
    assert len(server.asked) == runner.stored() == 1


# ---- offline ----


def test_offline_makes_rows_of_what_the_store_has(
    one_empty: DistillRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With no key; the share of failed rows is of those that were asked for: 1 of 3, where 4 of 6 would be too many."""
    monkeypatch.delenv("API_KEY")
    one_empty.ask(*(question(number) for number in range(6)))
    one_empty.set(offline=True, max_failed_share=0.34)
    one_empty.run("offline")
    assert [row["id"] for row in one_empty.distilled("offline")] == ["q-1", "q-2"]
    rows = [(row["id"], row["reason"], row["status"], row["attempts"]) for row in one_empty.failures("offline")]
    assert rows == [("q-0", "empty_response", 200, 1)] + [(f"q-{n}", "not_asked", None, 0) for n in (3, 4, 5)]
    metrics = one_empty.metrics("offline")
    assert (metrics["in"], metrics["distilled"], metrics["failed"]) == (6, 2, 4)
    assert metrics["failed_by_reason"] == {"empty_response": 1, "not_asked": 3}
    assert caplog.messages[-1] == "distill: 3 of them were not asked for; set run.offline: false and run 'make retry'"
    one_empty.set(max_failed_share=0.3)
    line = one_empty.refused("too many", leaves=("distill_failures.jsonl",))
    assert line.startswith("distill: 1 of 3 answers failed (1 empty_response), more than distill.max_failed_share")


@pytest.mark.heavy
def test_offline_starts_no_embedded_teacher(runner: DistillRunner) -> None:
    runner.ask(question(0))
    runner.run()
    runner.ask(question(0), question(1))
    runner.set(offline=True)
    runner.run()
    assert len(runner.requested()) == 1
    runner.set(offline=False)
    runner.run("online")
    assert len(runner.distilled("online")) == 2


def test_offline_without_any_answer_says_what_to_do(runner: DistillRunner) -> None:
    runner.ask(question(0))
    runner.set(offline=True, max_failed_share=1.0)
    line = runner.refused(leaves=("distill_failures.jsonl",))
    assert line.startswith("distill: run.offline is true, and the store has no answer to these 1 calls. ")
    assert "make store-import" in line


def test_offline_draws_nothing_again(one_empty: DistillRunner) -> None:
    one_empty.set(offline=True)
    assert one_empty.refused("again", kinds="empty_response").startswith("KINDS: run.offline is true")
    forecast = CliRunner().invoke(main, [*one_empty.arguments(), "--dry-run"])
    assert forecast.stdout.endswith("; but run.offline is true, and nothing would be asked\n")
