"""Money: what a run costs and saves, the budget that is never passed, and what a run would cost."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from stages.distill import main
from tests.distill_runner import DistillRunner, Serve, completion, good, prompted, question

PRICE = {"input": 4.0, "cached_input": 1.0, "output": 16.0}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500}  # 0.012 CNY


async def dear(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
    await asyncio.sleep(0.005)
    return completion(usage=USAGE)


@pytest.fixture
def priced(runner: DistillRunner) -> DistillRunner:
    runner.set(models={"chain-sum-solver": PRICE})
    return runner


def facts(runner: DistillRunner) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((runner.folder / "metrics" / "runs" / "distill.json").read_bytes())
    return written


def paid_at(server_asked: list[str]) -> float:
    return 0.012 * len(server_asked)


def dry_run(runner: DistillRunner) -> Result:
    result = CliRunner().invoke(main, [*runner.arguments(), "--dry-run"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


# ---- what was paid ----


def test_what_was_paid_and_what_the_store_saved_is_in_the_facts_of_the_run(priced: DistillRunner, serve: Serve) -> None:
    priced.use(serve(dear))
    priced.ask(*(question(number) for number in range(10)))
    priced.run()
    assert facts(priced) | {"seconds": 0} == {
        "bought": 10,
        "from_store": 0,
        "paid_now": pytest.approx(0.12),
        "saved_by_store": 0.0,
        "currency": "CNY",
        "seconds": 0,
    }
    priced.ask(*(question(number) for number in range(15)))
    priced.run()
    assert (facts(priced)["bought"], facts(priced)["from_store"]) == (5, 10)
    assert (facts(priced)["paid_now"], facts(priced)["saved_by_store"]) == pytest.approx((0.06, 0.12))


def test_an_answer_of_no_use_is_paid_for_too(priced: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion("length", usage=USAGE)

    priced.use(serve(route))
    priced.set(max_failed_share=1.0)
    priced.ask(question(0))
    priced.run()
    assert facts(priced)["paid_now"] == pytest.approx(0.012)


def test_the_last_line_says_what_was_paid(
    priced: DistillRunner, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    priced.use(serve(dear))
    priced.ask(*(question(number) for number in range(100)))
    priced.run()
    assert "distill: 100 of 100 answered (0 from the store, 100 bought for 1.20 CNY), 0 failed" in caplog.messages


def test_a_line_on_the_way_says_what_it_cost_so_far_and_will_cost(
    priced: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return completion(usage=USAGE)

    monkeypatch.setattr("stages.lib.teacher.progress.LINE_EVERY_S", 0.1)
    priced.use(serve(route))
    priced.ask(*(question(number) for number in range(20)))
    priced.run()
    figures = r"distill: (\d+) of 20, 0 failed, \d in flight, \dk tokens, ([\d.]+) CNY of about 0.2400 CNY, "
    lines = [match for match in (re.match(figures, text) for text in caplog.messages) if match]
    assert lines
    assert all(float(line[2]) == pytest.approx(0.012 * int(line[1]), abs=1e-4) for line in lines)


# ---- the budget ----


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("budget", [0.09, 0.121, 0.3])
def test_the_budget_is_never_passed_where_max_tokens_is_set(
    priced: DistillRunner, serve: Serve, concurrency: int, budget: float
) -> None:
    """Each answer is as long as it may be, each prompt has as many tokens as its text has bytes."""
    paid = 0.0

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        nonlocal paid
        usage = {"prompt_tokens": len(content.encode()), "completion_tokens": 500}
        paid += (usage["prompt_tokens"] * 4 + usage["completion_tokens"] * 16) / 1e6
        await asyncio.sleep(0.005)
        return completion(usage=usage)

    priced.use(serve(route))
    priced.set(concurrency=concurrency, max_tokens=500, budget=budget)
    priced.ask(*(question(number, f"{number} + 1" + " " * 700) for number in range(60)))
    line = priced.refused()
    each = 4 * len(prompted(f"10 + 1{' ' * 700}").encode()) / 1e6 + 0.008
    assert budget - 2 * each < paid <= budget
    assert f"run.budget = {budget:g} CNY" in line
    assert priced.stored() == round(paid / each)


def test_without_max_tokens_the_first_answer_says_what_the_others_may_cost(priced: DistillRunner, serve: Serve) -> None:
    server = serve(dear)
    priced.use(server)
    priced.set(concurrency=16, budget=0.1)
    priced.ask(*(question(number) for number in range(40)))
    priced.refused()
    assert server.loads[0:2] == [1, 1], "nothing is known of the price before one answer has come"
    assert max(server.loads) > 1
    assert paid_at(server.asked) <= 0.1
    assert len(server.asked) == priced.stored() == 8


def test_the_budget_counts_what_is_in_the_store(priced: DistillRunner, serve: Serve) -> None:
    server = serve(dear)
    priced.use(server)
    priced.ask(*(question(number) for number in range(6)))
    priced.run()
    priced.ask(*(question(number) for number in range(20)))
    priced.set(budget=0.1)
    for _ in range(3):
        line = priced.refused(leaves=("distilled.jsonl", "distill_failures.jsonl", "metrics.json"))  # of the first run
        assert "was spent on 8 of 20 answers, the stored ones included" in line
        assert len(server.asked) == 8, "running again spends no second budget"


def test_the_message_says_what_raising_the_budget_would_buy_and_that_is_enough(
    priced: DistillRunner, serve: Serve
) -> None:
    server = serve(dear)
    priced.use(server)
    priced.set(concurrency=16, budget=0.1)
    priced.ask(*(question(number) for number in range(40)))
    line = priced.refused()
    assert "The 32 missing ones would cost about 0.3840 CNY" in line
    assert "0.0960 CNY was spent on 8 of 40" in line
    (enough,) = re.findall(r"Set run.budget to ([\d.]+) and", line)
    priced.set(budget=float(enough))
    priced.run()
    assert len(server.asked) == 40
    assert facts(priced)["from_store"] == 8


def test_what_is_in_flight_when_the_budget_is_reached_is_received(priced: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return completion(usage={"prompt_tokens": 10, "completion_tokens": 500})

    server = serve(route)
    priced.use(server)
    priced.set(concurrency=4, max_tokens=500, budget=0.03)
    priced.ask(*(question(number) for number in range(20)))
    priced.refused()
    assert max(server.loads) > 1
    assert len(server.asked) == priced.stored() == 3


def test_a_budget_without_a_price_is_one_line_before_any_call(runner: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    runner.use(server)
    runner.set(budget=5.0)
    runner.ask(question(0))
    line = runner.refused()
    assert line.startswith("params.yaml: run.budget is set and run.prices.models has no price for 'chain-sum-solver'")
    assert server.asked == []


@pytest.mark.parametrize("max_tokens", [None, 500])
def test_a_budget_that_cannot_be_kept_stops_the_run_at_the_first_answers(
    priced: DistillRunner, serve: Serve, max_tokens: int | None
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(usage=None)

    server = serve(route)
    priced.use(server)
    priced.set(concurrency=4, max_tokens=max_tokens, budget=1.0)
    priced.ask(*(question(number) for number in range(40)))
    assert priced.refused().startswith("distill: the server's answers state no tokens ('usage')")
    assert 1 <= len(server.asked) == priced.stored() <= 8
    priced.set(budget=None)
    priced.run()
    assert len(server.asked) == 40


def test_a_free_model_keeps_within_any_budget_and_is_not_slowed_down(runner: DistillRunner, serve: Serve) -> None:
    server = serve(dear)
    runner.use(server)
    runner.set(models={"chain-sum-solver": {"input": 0.0, "cached_input": 0.0, "output": 0.0}}, budget=0.01)
    runner.ask(*(question(number) for number in range(20)))
    runner.run()
    assert max(server.loads) == 4


# ---- what it would cost ----


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "params.yaml"}


def test_a_dry_run_asks_and_writes_nothing_and_needs_no_key(
    priced: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY")
    server = serve(good)
    priced.use(server)
    priced.ask(*(question(number) for number in range(5)))
    before = everything(priced.folder)
    said = dry_run(priced).stdout
    assert said.startswith("distill: would ask 5 of 5 (0 are in the store) of chain-sum-solver; ")
    assert "no distill.teacher.max_tokens to estimate the cost from" in said
    assert everything(priced.folder) == before
    assert server.asked == []


def test_a_dry_run_reckons_from_what_answers_in_the_store_cost(priced: DistillRunner, serve: Serve) -> None:
    server = serve(dear)
    priced.use(server)
    priced.ask(*(question(number) for number in range(10)))
    priced.run()
    priced.ask(*(question(number) for number in range(110)))
    before = everything(priced.folder)
    assert dry_run(priced).stdout == (
        "distill: would ask 100 of 110 (10 are in the store) of chain-sum-solver; about 1.20 CNY, "
        "at the 0.0120 CNY of an answer in the store\n"
    )
    assert everything(priced.folder) == before
    assert len(server.asked) == 10


def test_a_dry_run_on_an_empty_store_says_the_most_that_max_tokens_allow(priced: DistillRunner) -> None:
    priced.set(max_tokens=1000)
    priced.ask(*(question(number) for number in range(50)))
    said = dry_run(priced).stdout
    match = re.search(r"at most ([\d.]+) CNY, with distill.teacher.max_tokens = 1000", said)
    assert match, said
    assert 0.8 < float(match[1]) < 1.0


def test_a_dry_run_without_a_price_says_that_no_cost_is_known(runner: DistillRunner) -> None:
    runner.ask(question(0))
    assert "no price for it in run.prices" in dry_run(runner).stdout
