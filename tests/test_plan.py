"""The plan: its units have sources, it agrees with the committed run, and it scales."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.params import load_params
from stages.lib.plan.__main__ import main as plan_command
from stages.lib.plan.__main__ import number, shown
from stages.lib.plan.estimate import Plan, card_hours, plan
from stages.lib.plan.measured import measured
from stages.lib.plan.units import Range, Unit, Units, load_units

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED, METRICS = ROOT / "profiles" / "embedded.yaml", ROOT / "metrics"
Params = Callable[..., Path]


def metrics(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((METRICS / f"{name}.json").read_bytes())
    return found


def planned(path: Path, questions: float, yields: dict[str, Unit] | None = None, cards: int = 0) -> Plan:
    return plan(load_params(path), questions, Units(yields or {}), cards)


@pytest.fixture(scope="module")
def blind() -> Plan:
    """The embedded profile's plan, from the units alone."""
    return planned(EMBEDDED, 192)


def test_every_unit_has_a_source_and_is_used_by_a_plan() -> None:
    names = set(load_units())
    used: set[str] = set()
    for profile in sorted((ROOT / "profiles").glob("*.yaml")):
        for cards in (0, 8):
            units = Units({})
            plan(load_params(profile), 1e6, units, cards)
            used |= set(units.used)
    rest = {"answer_tokens", "yield.right", "yield.hard", "hf_step_s", "card_tokens_per_s.32b"}  # no profile needs them
    assert names - used <= rest


def run_values() -> dict[tuple[str, str], float]:
    """What the committed run needed, by stage."""
    distill, kept = metrics("distill"), metrics("filter")
    arms = [metrics(f"train/{arm}") for arm in ("unfiltered", "filtered")]
    return {
        ("collect", "rows"): metrics("collect")["questions"],
        ("distill", "requests"): distill["in"],
        ("distill", "prompt tokens"): distill["prompt_tokens"],
        ("distill", "answer tokens"): distill["completion_tokens"],
        ("distill", "rows"): distill["distilled"],
        ("filter", "rows"): kept["kept"],
        ("convert", "rows"): sum(metrics(f"convert/{name}")["rows"] for name in ("unfiltered", "filtered", "control")),
        ("train", "steps"): sum(arm["steps"] for arm in arms),
        ("train", "tokens"): sum(arm["tokens_seen"] for arm in arms),
        ("evaluate", "answers"): sum(
            metrics(f"eval/{arm}")["heldout"]["n"] for arm in ("base", "unfiltered", "filtered")
        ),
    }


@pytest.mark.parametrize(("stage", "what"), run_values())
def test_the_units_of_another_run_plan_the_committed_one_within_a_fifth(stage: str, what: str, blind: Plan) -> None:
    value, run = blind.of(stage, what), run_values()[stage, what]
    assert value.mid == pytest.approx(run, rel=0.2)
    assert value.low <= run <= value.high


def test_the_hours_agree_with_those_of_readme_within_a_fifth(blind: Plan) -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    training = re.search(r"Training took (\d+) s and (\d+) s", text)
    evaluation = re.search(r"Evaluation took (\d+) s \(base\), (\d+) s and (\d+) s", text)
    assert training
    assert evaluation
    for stage, found in (("train", training), ("evaluate", evaluation)):
        assert blind.of(stage, "hours").mid * 3600 == pytest.approx(sum(map(int, found.groups())), rel=0.2)


def test_the_page_shows_this_plan(blind: Plan) -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    tokens = blind.of("distill", "prompt tokens").mid + blind.of("distill", "answer tokens").mid
    hours = {stage: blind.of(stage, "hours").mid * 3600 for stage in ("train", "evaluate")}
    assert f"| requests | {blind.of('distill', 'requests').mid:.0f} | {metrics('distill')['in']} |" in text
    assert f"| {tokens:,.0f} | " in text
    assert (
        f"| rows that the filter keeps | {blind.of('filter', 'rows').mid:.0f} | {metrics('filter')['kept']} |" in text
    )
    assert f"| {hours['train']:.0f} s | " in text
    assert f"| {hours['evaluate']:.0f} s | " in text


def test_the_table_of_the_page_is_printed_by_the_command(runs: Callable[..., Result]) -> None:
    table = (
        (ROOT / "docs" / "scale.md")
        .read_text(encoding="utf-8")
        .split("<!-- plan")[1]
        .split("-->\n")[1]
        .split("<!--")[0]
    )
    shown_ = runs(plan_command, "--params", ROOT / "profiles" / "ascend.yaml").stdout
    lines = [re.sub(r" +", " ", re.sub(r"-+", "---", line)) for line in shown_.split("\n\n")[0].splitlines()]
    assert table.strip().splitlines() == lines


def test_with_the_metrics_of_the_run_itself_requests_tokens_and_rows_are_exact() -> None:
    yields = measured(METRICS, load_params(EMBEDDED), EMBEDDED)
    found = planned(EMBEDDED, 192, yields)
    for (stage, what), value in run_values().items():
        if (stage, what) != ("train", "tokens"):  # the kept rows are a little shorter than all
            assert found.of(stage, what).mid == pytest.approx(value, rel=1e-9), (stage, what)
    assert found.of("train", "tokens").mid == pytest.approx(run_values()["train", "tokens"], rel=0.02)


def test_metrics_of_other_settings_are_not_used(project_params: Params) -> None:
    current = load_params(EMBEDDED)
    assert measured(METRICS, load_params(ROOT / "profiles" / "ascend.yaml"), EMBEDDED) == {}
    assert measured(METRICS, load_params(project_params({"distill.prompt": "father"})), EMBEDDED) == {}
    assert measured(METRICS / "nowhere", current, EMBEDDED) == {}
    assert measured(METRICS, load_params(project_params({"collect.train_size": 5000})), EMBEDDED)


def test_everything_but_the_fixed_grows_with_the_questions() -> None:
    profile = ROOT / "profiles" / "ascend.yaml"
    small, large = planned(profile, 1e3), planned(profile, 1e6)
    for stage, what in (("distill", "requests"), ("distill", "cost"), ("distill", "hours"), ("filter", "rows")):
        assert large.of(stage, what).mid == pytest.approx(1000 * small.of(stage, what).mid)
    assert large.of("train", "disk") == small.of("train", "disk")
    assert large.of("evaluate", "hours") == small.of("evaluate", "hours")
    for line in large.lines:
        assert 0 <= line.value.low <= line.value.mid <= line.value.high, line


def test_the_cost_is_that_of_the_prices() -> None:
    found = planned(ROOT / "profiles" / "article.yaml", 1000)  # 4 and 16 CNY a million tokens
    prompt, answer = (found.of("distill", f"{what} tokens").mid for what in ("prompt", "answer"))
    assert found.of("distill", "cost").mid == pytest.approx((4 * prompt + 16 * answer) / 1e6)
    assert found.of("filter", "requests") == found.of("distill", "rows")  # strategy judge: it marks every answer
    assert found.of("train", "steps").mid == sum(
        arm.max_steps or 0
        for arm in load_params(ROOT / "profiles" / "article.yaml").arms.values()
        if arm.dataset != "s1k"
    )


def test_a_teacher_of_ones_own_costs_cards_instead_of_money() -> None:
    few, many = (planned(ROOT / "profiles" / "article.yaml", 1e5, cards=cards) for cards in (8, 16))
    assert few.total("cost").high == 0
    assert few.of("distill", "hours").mid == pytest.approx(2 * many.of("distill", "hours").mid)
    assert many.total("cards").mid == 16
    assert card_hours(many).mid > many.of("distill", "hours").mid * 16


def test_rate_limits_and_concurrency_bound_the_hours(project_params: Params) -> None:
    changes = {"distill.teacher.kind": "openai_compatible", "run.concurrency": 1000}
    fast = planned(project_params(changes), 1e4)
    slow = planned(project_params(changes | {"run.requests_per_minute": 60}), 1e4)
    requests = slow.of("distill", "requests").mid
    assert slow.of("distill", "hours").mid == pytest.approx(requests / 3600)
    assert fast.of("distill", "hours").mid < slow.of("distill", "hours").mid


def test_json_has_lines_units_and_their_sources(runs: Callable[..., Result]) -> None:
    found = json.loads(runs(plan_command, "--params", EMBEDDED, "--questions", "1e6", "--json").stdout)
    assert found["questions"] == 1e6
    (requests,) = (line for line in found["lines"] if (line["stage"], line["what"]) == ("total", "requests"))
    assert requests["low"] <= requests["mid"] <= requests["high"]
    assert all(unit["source"] and unit["kind"] for unit in found["units"].values())
    assert len(json.loads(runs(plan_command, "--params", EMBEDDED, "--json").stdout)) == 6


def test_what_is_no_number_of_questions_says_so(refuses: Callable[..., str]) -> None:
    for text in ("many", "0", "1e99"):
        assert f"QUESTIONS={text}: no number of questions" in refuses(
            plan_command, "--params", EMBEDDED, "--questions", text
        )
    assert number("1e6") == number("1_000_000") == 1e6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.0123"), (999, "999"), (1000, "1k"), (1.146e9, "1.15G"), (99_960, "100k"), (1e6, "1M")],
)
def test_numbers_are_shown_with_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_a_quotient_takes_the_opposite_ends() -> None:
    assert Range(1, 2, 4).over(Range(1, 2, 4)) == Range(0.25, 1, 4)
