"""Several servers of one teacher: calls are shared out, a failing server is set aside, the store keeps its keys."""

import asyncio
import json
import socket
from typing import Any

import pytest
from aiohttp import web

from stages.lib.store_tools.record import stored_records
from tests.distill_runner import KEY, DistillRunner, Serve, Server, completion, good, question

NAMED = "http://teacher.example/v1"  # what params and the store's keys name: nobody listens there


async def soon(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return completion()


async def broken(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    return web.json_response({"error": {"message": "the worker has died"}}, status=503)


async def refusing(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    return web.json_response({"error": {"message": "Incorrect API key provided."}}, status=401)


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def entry(server: Server | str, **values: Any) -> dict[str, Any]:
    limits = dict.fromkeys(("key_variable", "concurrency", "requests_per_minute", "tokens_per_minute"))
    return {"base_url": server if isinstance(server, str) else server.base_url, "weight": 1.0, **limits, **values}


def name_servers(runner: DistillRunner, *entries: dict[str, Any], **values: Any) -> None:
    runner.settings["run.endpoints.teacher"] = {"name": None, "aliases": [], "servers": list(entries)} | values


def use(runner: DistillRunner, *entries: dict[str, Any]) -> None:
    runner.set(kind="openai_compatible", base_url=NAMED)
    name_servers(runner, *entries)


def facts(runner: DistillRunner) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((runner.folder / "metrics/runs/distill.json").read_bytes())["servers"]
    return found


def test_the_calls_are_shared_out_by_weight(runner: DistillRunner, serve: Serve) -> None:
    light, heavy = serve(soon), serve(soon)
    use(runner, entry(light, weight=1.0), entry(heavy, weight=3.0))
    runner.set(concurrency=8)
    runner.ask(*(question(number) for number in range(64)))
    runner.run()
    assert max(light.loads) <= 3
    assert 2 <= len(heavy.asked) / len(light.asked) <= 4
    assert [server["answers"] for server in facts(runner)] == [len(light.asked), len(heavy.asked)]


def test_a_server_takes_no_more_calls_than_its_own_limit(runner: DistillRunner, serve: Serve) -> None:
    small, large = serve(soon), serve(soon)
    use(runner, entry(small, concurrency=2), entry(large))
    runner.set(concurrency=12)
    runner.ask(*(question(number) for number in range(48)))
    runner.run()
    assert max(small.loads) == 2
    assert max(large.loads) > 6


@pytest.mark.parametrize("route", [broken, refusing, None], ids=["503", "401", "nobody listens"])
def test_a_server_that_fails_is_set_aside_and_no_question_is_lost(
    route: Any, runner: DistillRunner, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    bad, well = serve(route) if route else nobody(), serve(soon)
    use(runner, entry(bad), entry(well))
    runner.set(concurrency=4)
    runner.ask(*(question(number) for number in range(30)))
    runner.run()
    assert len(runner.distilled()) == 30
    assert len(well.asked) == 30
    assert [server["set_aside"] for server in facts(runner)] == [1, 0]
    assert "is set aside for 5 s" in caplog.text
    if isinstance(bad, Server):
        assert len(bad.asked) <= 4 * 3, "what was with it, and its attempts"


def test_a_server_that_comes_back_is_asked_again(
    runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.lib.teacher.pool.FIRST_WAIT_S", 0.1)

    async def first_broken(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await (broken if len(flaky.asked) <= 10 else soon)(request, content, attempt)

    flaky, well = serve(first_broken), serve(soon)
    use(runner, entry(flaky), entry(well))
    runner.set(concurrency=4)
    runner.ask(*(question(number) for number in range(60)))
    runner.run()
    assert len(runner.distilled()) == 60
    assert facts(runner)[0]["answers"] > 10


def test_the_run_ends_in_one_line_where_no_server_is_left(runner: DistillRunner, serve: Serve) -> None:
    use(runner, entry(serve(refusing)), entry(serve(refusing)))
    runner.ask(*(question(number) for number in range(10)))
    assert "the server answers 401" in runner.refused()
    use(runner, entry(nobody()), entry(nobody()))
    assert "no server has answered" in runner.refused()


def test_a_question_that_all_servers_fail_is_a_failed_row(runner: DistillRunner, serve: Serve) -> None:
    async def one_is_hard(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await (broken if "hard" in content else good)(request, content, attempt)

    use(runner, entry(serve(one_is_hard)), entry(serve(one_is_hard)))
    runner.set(max_failed_share=0.5)
    runner.ask(question(0), question(1), question(2, "A hard one?"))
    runner.run()
    (failure,) = runner.failures()
    assert (failure["status"], failure["attempts"]) == (503, 6)


def test_a_question_that_one_server_fails_fails_where_the_others_are_set_aside(
    runner: DistillRunner, serve: Serve
) -> None:
    async def one_is_hard(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return await (broken if "hard" in content else good)(request, content, attempt)

    use(runner, entry(serve(one_is_hard)), entry(serve(refusing)))
    runner.set(max_failed_share=0.5)
    runner.ask(question(0, "A hard one?"), question(1), question(2))
    runner.run()
    (failure,) = runner.failures()
    assert failure["status"] == 503
    assert len(runner.distilled()) == 2


def test_answers_bought_at_the_named_address_are_not_bought_again(runner: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    runner.use(server)
    runner.ask(*(question(number) for number in range(5)))
    runner.run("before")
    replicas = [serve(good), serve(good)]
    name_servers(runner, *map(entry, replicas))
    runner.ask(*(question(number) for number in range(8)))
    runner.run("after")
    assert [len(each.asked) for each in (server, *replicas)].count(0) == 0
    assert sum(len(each.asked) for each in replicas) == 3
    rows = runner.distilled("after")
    assert rows[:5] == runner.distilled("before")
    assert {row["served_by"] for row in rows[5:]} <= {each.base_url for each in replicas}
    runner.run("again")
    assert runner.outputs("again") == runner.outputs("after")
    records = list(stored_records(runner.store))
    assert [record.served_by for record in records[:5]] == [None] * 5
    assert {record.served_by for record in records[5:]} <= {each.base_url for each in replicas}
    assert {record.request["endpoint"] for record in records} == {server.base_url}


def test_under_a_name_answers_of_the_former_addresses_count_and_the_address_in_params_may_change(
    runner: DistillRunner, serve: Serve
) -> None:
    first, second, third = serve(good), serve(good), serve(good)
    runner.ask(*(question(number) for number in range(9)))
    questions = (runner.folder / "questions.jsonl").read_text().splitlines(keepends=True)
    for number, server in enumerate((first, second)):  # two hosts bought at an address each
        runner.use(server)
        (runner.folder / "questions.jsonl").write_text("".join(questions[3 * number : 3 * number + 3]))
        runner.run()
    (runner.folder / "questions.jsonl").write_text("".join(questions))
    name_servers(runner, entry(third), name="r1", aliases=[first.base_url])
    runner.run("named")
    assert [len(each.asked) for each in (first, second, third)] == [3, 3, 3]
    assert [record.request["endpoint"] for record in stored_records(runner.store)][6:] == ["r1"] * 3
    # another host: its own address in params, and the addresses of the others are nobody's any more
    runner.set(base_url="http://elsewhere.example/v1")
    name_servers(runner, entry(nobody()), name="r1", aliases=[first.base_url, f"{second.base_url}/"])
    runner.run("elsewhere")
    assert runner.outputs("elsewhere") == runner.outputs("named")
    runner.settings["run.offline"] = True
    name_servers(runner, entry(nobody()), name="r1")
    runner.run("without the aliases")
    assert len(runner.distilled("without the aliases")) == 3


def test_a_server_has_a_key_of_its_own(runner: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = serve(soon), serve(soon)
    use(runner, entry(first), entry(second, key_variable="SECOND_KEY"))
    monkeypatch.setenv("SECOND_KEY", "sk-second")
    runner.ask(*(question(number) for number in range(6)))
    runner.run()
    assert (first.keys, second.keys) == ({f"Bearer {KEY}"}, {"Bearer sk-second"})


def test_one_budget_is_kept_over_all_servers(runner: DistillRunner, serve: Serve) -> None:
    servers = [serve(soon), serve(soon)]
    use(runner, *(entry(server) for server in servers))
    prices = {"chain-sum-solver": {"input": 0.0, "cached_input": 0.0, "output": 1_000_000.0}}
    runner.set(concurrency=4, models=prices, budget=90.0)  # 9 tokens an answer
    runner.ask(*(question(number) for number in range(40)))
    assert "run.budget = 90" in runner.refused(leaves=())
    assert sum(len(server.asked) for server in servers) == 10


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "run.endpoints.teacher.servers: List should have at least 1 item"),
        ([entry("http://a/v1"), entry("http://a/v1/")], "http://a/v1 is listed twice"),
        ([entry("http://me:secret@a/v1")], "must not have a user, password or query"),
    ],
)
def test_wrong_servers_are_told_in_one_line(
    entries: list[dict[str, Any]], expected: str, runner: DistillRunner
) -> None:
    use(runner, *entries)
    runner.ask(question(0))
    assert expected in runner.refused()


def test_servers_of_an_embedded_teacher_are_refused(runner: DistillRunner) -> None:
    name_servers(runner, entry("http://a/v1"))
    runner.ask(question(0))
    assert "run.endpoints.teacher: only distill.teacher with kind: openai_compatible reads it" in runner.refused()
