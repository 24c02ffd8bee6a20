"""The filter with a judge: who is asked what, once; what its marks decide; what becomes of marks that do not come."""

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from scipy.stats import binom

from stages import distill
from stages.filter import contradicted, main
from stages.lib.params import prompt_text, prompts
from tests.batch_server import BatchServer, answer_to
from tests.distill_runner import Server, completion

OUTPUTS = ("filtered", "rejected", "control", "disagreements", "metrics")
KEY = "sk-the-teachers-own-0123456789"
JUDGES_KEY = "sk-only-the-judges-0123456789"
BASE: dict[str, Any] = {
    "filter.strategy": "judge",
    "filter.on_unsure": "reject",
    "filter.select": "all_correct",
    "filter.audit_share": 0.0,
    "filter.audit_seed": 3,
    "filter.judge.prompt": "strict_teacher",
    "filter.judge.kind": "embedded",
    "filter.judge.base_url": None,
    "filter.judge.model": "chain-sum-solver",
    "filter.judge.temperature": None,
    "filter.judge.max_tokens": None,
    "filter.judge.slip_share": 0.0,
    "run.concurrency": 4,
    "run.timeout_s": 20.0,
    "run.max_attempts": 2,
    "run.backoff_s": 0.001,
    "run.longest_wait_s": 900.0,
    "run.budget": None,
    "run.prices.models": {},
    "run.embedded.latency_s": 0.0,
    "run.offline": False,
    "run.api_key_variables.judge": "JUDGE_API_KEY",
}
# what rule and embedded judge say of a row: the rule reads ``answer``, the judge the last number of ``solution``
BOTH_RIGHT: dict[str, Any] = {}
BOTH_WRONG = {"response": "The answer is 6."}
RULE_UNSURE_JUDGE_RIGHT = {"answer": "a handful"}
RULE_UNSURE_JUDGE_WRONG = {"response": "I would rather not say."}
RULE_RIGHT_JUDGE_WRONG = {"solution": "2 + 3 = 6"}
RULE_WRONG_JUDGE_RIGHT = {"solution": "2 + 3 = 6", "response": "The answer is 6."}
KINDS = (
    BOTH_RIGHT,
    BOTH_WRONG,
    RULE_UNSURE_JUDGE_RIGHT,
    RULE_UNSURE_JUDGE_WRONG,
    RULE_RIGHT_JUDGE_WRONG,
    RULE_WRONG_JUDGE_RIGHT,
)


class FilterRunner:
    """A folder with answers, params and a store, and the stage run on them."""

    def __init__(self, folder: Path, project_params: Callable[..., Path], distilled_file: Callable[..., Path]) -> None:
        self.folder = folder
        self.store = folder / "store" / "answers.jsonl"
        self.requests = folder / "requests.jsonl"
        self._project_params = project_params
        self._distilled_file = distilled_file
        self.settings: dict[str, Any] = dict(BASE)

    def hold(self, *changes: dict[str, Any]) -> None:
        """These are the answers from now on, each with a gold solution of its own."""
        solutions = [change.get("solution", "2 + 3 = 5") for change in changes]
        told = [solution and f"Row {index}: {solution}" for index, solution in enumerate(solutions)]
        self._distilled_file(*(change | {"solution": text} for change, text in zip(changes, told, strict=True)))

    def set(self, **values: Any) -> None:
        """``set(strategy="both")``: change a value by the last word of its key."""
        for name, value in values.items():
            (key,) = [key for key in self.settings if key.rsplit(".", 1)[1] == name]
            self.settings[key] = value

    def use(self, server: Server) -> None:
        """From now on the judge is this server."""
        self.set(kind="openai_compatible", base_url=server.base_url)

    def arguments(self, out: str) -> list[str]:
        named = {name: self.folder / out / name for name in OUTPUTS}
        named |= {"distilled": self.folder / "distilled.jsonl", "store": self.store}
        named["params"] = self._project_params(self.settings)
        return [text for name, path in named.items() for text in (f"--{name}", str(path))]

    def run(self, out: str = "out") -> Result:
        """The stage; it must end well."""
        result = CliRunner().invoke(main, self.arguments(out))
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result

    def refused(self, out: str = "out") -> str:
        """The one line of a stage that must end with exit code 1 and change no output."""
        before = self.outputs(out)
        result = CliRunner().invoke(main, self.arguments(out))
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        (line,) = result.stderr.splitlines()
        assert self.outputs(out) == before
        assert not list(self.folder.rglob("*.tmp"))
        return line.removeprefix("Error: ")

    def outputs(self, out: str = "out") -> list[bytes | None]:
        paths = [self.folder / out / name for name in OUTPUTS]
        return [path.read_bytes() if path.exists() else None for path in paths]

    def rows(self, name: str, out: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / out / name).read_bytes().splitlines()]

    def judged(self, out: str = "out") -> list[dict[str, Any]]:
        """Every row, kept or rejected, in the order of the answers."""
        rows = self.rows("filtered", out) + self.rows("rejected", out)
        return sorted(rows, key=lambda row: (int(row["id"].strip("q")), row["sample"]))

    def metrics(self, out: str = "out") -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.folder / out / "metrics").read_bytes())
        return metrics

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "metrics" / "runs" / "filter.json").read_bytes())
        return facts

    def requested(self) -> list[str]:
        """What the embedded server was asked so far, one text a request."""
        lines = self.requests.read_bytes().splitlines() if self.requests.exists() else []
        return [json.loads(line)["messages"][0]["content"] for line in lines]


@pytest.fixture
def runner(
    tmp_path: Path,
    project_params: Callable[..., Path],
    distilled_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> FilterRunner:
    runner = FilterRunner(tmp_path, project_params, distilled_file)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DISTILLERY_EMBEDDED_REQUESTS", str(runner.requests))
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv("JUDGE_API_KEY", JUDGES_KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return runner


Reply = Callable[[str, int], web.StreamResponse]


@pytest.fixture
def judge() -> Iterator[Callable[[Reply], Server]]:
    """``judge(lambda material, attempt: says("含义是否一致:是"))``: a real server that replies like that."""
    servers: list[Server] = []

    def start(reply: Reply) -> Server:
        async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
            await asyncio.sleep(random.uniform(0, 0.01))  # replies do not come in the order of the questions
            return reply(content, attempt)

        servers.append(Server(route))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def says(mark: str, finish_reason: str = "stop") -> web.Response:
    return completion(finish_reason, content=mark, reasoning_content="比较一下。")


def yes(material: str, attempt: int) -> web.StreamResponse:
    return says("含义是否一致:是")


def counts_add_up(runner: FilterRunner, out: str = "out") -> None:
    metrics = runner.metrics(out)
    kept, rejected = runner.rows("filtered", out), runner.rows("rejected", out)
    assert metrics["in"] == metrics["kept"] + metrics["rejected"] == len(kept) + len(rejected)
    assert metrics["rejected_by_reason"] == dict(sorted(Counter(row["reason"] for row in rejected).items()))
    assert metrics["judge_asked"] == sum(row["judge_verdict"] is not None for row in kept + rejected)
    if metrics["judge_calls_saved"] is not None:  # None without a judge
        assert metrics["judge_calls_saved"] == metrics["in"] - metrics["judge_asked"]
    table = Counter((row["rule_verdict"], row["judge_verdict"] or "not_asked") for row in kept + rejected)
    assert {(rule, mark): n for rule, each in metrics["rule_by_judge"].items() for mark, n in each.items()} == table
    assert len(runner.rows("control", out)) == metrics["control"] == len(kept)


def test_a_judge_is_asked_in_batches_too(runner: FilterRunner) -> None:
    """Both rounds: a mark that cannot be read is asked for once more, in a second batch."""
    server = BatchServer()

    def reply(content: str, attempt: int) -> tuple[int, Any]:
        unreadable = "Row 1:" in content and attempt == 1
        answer = answer_to(content)
        answer["choices"][0]["message"]["content"] = "?" if unreadable else "含义是否一致:是"
        return 200, answer

    server.reply = reply
    runner.use(server)
    runner.settings["run.batch.judge"] = {"completion_window": "24h", "price_factor": 0.5, "max_requests": 4}
    runner.settings["run.batch.judge"] |= {"max_mb": 1, "enqueued_tokens": None, "poll_s": 0.01}
    runner.hold(*KINDS)
    runner.run()
    assert [len(lines) for lines in server.submitted] == [4, 2, 1]
    assert {row["verdict"] for row in runner.judged()} == {"right"}
    assert server.bodies == []
    server.close()


# ---- the strategies ----

STRATEGIES = {
    "rule": ("right", "wrong", "unsure", "unsure", "right", "wrong"),
    "judge": ("right", "wrong", "right", "wrong", "wrong", "right"),
    "rule_then_judge": ("right", "wrong", "right", "wrong", "right", "wrong"),
    "both": ("right", "wrong", "right", "wrong", "unsure", "unsure"),
}


@pytest.mark.parametrize(("strategy", "asked"), [("rule", 0), ("judge", 6), ("rule_then_judge", 2), ("both", 6)])
def test_each_strategy_asks_whom_it_says_and_decides_by_them(strategy: str, asked: int, runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    runner.set(strategy=strategy)
    runner.run()
    assert tuple(row["verdict"] for row in runner.judged()) == STRATEGIES[strategy]
    assert len(runner.requested()) == runner.metrics()["judge_asked"] == asked
    counts_add_up(runner)


@pytest.mark.parametrize("strategy", ["judge", "rule_then_judge", "both"])
def test_second_run_makes_no_calls_and_writes_the_same_bytes(strategy: str, runner: FilterRunner) -> None:
    runner.hold(*KINDS * 5)
    runner.set(strategy=strategy)
    runner.run()
    bought = len(runner.requested())
    assert (runner.facts()["bought"], runner.facts()["from_store"]) == (bought, 0)
    runner.set(concurrency=1)
    runner.run("again")
    assert len(runner.requested()) == bought
    assert (runner.facts()["bought"], runner.facts()["from_store"]) == (0, bought)
    assert runner.outputs("again") == runner.outputs()


def test_the_order_in_which_marks_come_changes_nothing(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    runner.hold(*KINDS * 6)
    for out, concurrency in (("one", 1), ("many", 16)):
        runner.store = runner.folder / out / "answers.jsonl"
        runner.use(judge(lambda material, attempt: says(f"含义是否一致:{'是' if len(material) % 2 else '否'}")))
        runner.set(concurrency=concurrency)
        runner.run(out)
    assert runner.outputs("one") == runner.outputs("many")


@pytest.mark.heavy
def test_another_strategy_asks_only_for_the_marks_that_it_lacks(runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    for strategy, asked in (("rule_then_judge", 2), ("rule", 2), ("both", 6), ("judge", 6)):
        runner.set(strategy=strategy)
        runner.run(strategy)
        assert len(runner.requested()) == asked


def test_what_rule_and_judge_contradict_each_other_in_is_dropped_as_a_disagreement(runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    runner.set(strategy="both")
    runner.run()
    by_id = {row["id"]: row for row in runner.rows("rejected")}
    assert {id: row["reason"] for id, row in by_id.items()} == {
        "q1": "wrong_answer",
        "q3": "wrong_answer",
        "q4": "disagreement",
        "q5": "disagreement",
    }
    assert by_id["q4"]["decided_by"] == "disagreement"


def test_contradicted_rows_are_kept_where_the_unsure_are(runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    runner.set(strategy="both", on_unsure="keep")
    runner.run()
    assert [row["id"] for row in runner.rows("filtered")] == ["q0", "q2", "q4", "q5"]
    assert runner.metrics()["kept_unsure"] == 2
    counts_add_up(runner)


def test_disagreements_and_suspect_golds_are_in_a_file_for_people_to_read(runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    runner.set(strategy="both")
    runner.run()
    found = {row["id"]: row["kind"] for row in runner.rows("disagreements")}
    assert found == {"q1": "gold_suspect", "q4": "rule_against_judge", "q5": "rule_against_judge"}
    assert (runner.metrics()["gold_suspect"], runner.metrics()["rule_against_judge"]) == (1, 2)
    (row,) = [row for row in runner.rows("disagreements") if row["id"] == "q5"]
    assert (row["prediction"], row["answer"], row["rule_verdict"], row["judge_verdict"]) == ("6", "5", "wrong", "right")


@pytest.mark.heavy
def test_a_judge_that_slips_is_found_out_by_the_rule(runner: FilterRunner) -> None:
    runner.hold(*[BOTH_RIGHT, BOTH_WRONG] * 50)
    runner.set(strategy="both", slip_share=0.2)
    runner.run()
    slips = runner.metrics()["rule_against_judge"]
    assert 5 < slips < 40
    assert runner.metrics()["rejected_by_reason"]["disagreement"] == slips


# ---- the audit ----


@pytest.mark.heavy
def test_an_audit_marks_a_seeded_share_of_what_the_rule_decided(runner: FilterRunner) -> None:
    runner.hold(*[BOTH_RIGHT, RULE_RIGHT_JUDGE_WRONG] * 100)
    runner.set(strategy="rule_audited", audit_share=0.3)
    runner.run()
    asked = len(runner.requested())
    assert asked == runner.metrics()["judge_asked"]
    assert abs(asked - 60) < 4 * (200 * 0.3 * 0.7) ** 0.5
    table = runner.metrics()["rule_by_judge"]["right"]
    assert table["right"] + table["wrong"] == asked == 200 - table["not_asked"]
    assert {row["verdict"] for row in runner.judged()} == {"right"}  # the audit decides nothing
    assert all(row["decided_by"].startswith("rule:") for row in runner.judged())
    counts_add_up(runner)


@pytest.mark.heavy
def test_the_seed_draws_the_audit_and_a_larger_share_holds_a_smaller_one(runner: FilterRunner) -> None:
    runner.hold(*[BOTH_RIGHT] * 100)

    def audited(share: float, seed: int) -> set[str]:
        runner.set(strategy="rule_audited", audit_share=share, audit_seed=seed)
        runner.run()
        return {row["id"] for row in runner.judged() if row["judge_verdict"]}

    assert audited(0.2, 3) < audited(0.5, 3) < audited(1.0, 3)
    assert len(audited(1.0, 3)) == 100
    assert audited(0.2, 3) != audited(0.2, 4)


@pytest.mark.heavy
def test_an_audit_says_what_share_of_the_rules_verdicts_the_judge_contradicts(runner: FilterRunner) -> None:
    runner.hold(*[BOTH_RIGHT] * 150, *[RULE_RIGHT_JUDGE_WRONG] * 50, *[BOTH_WRONG] * 60, *[RULE_UNSURE_JUDGE_RIGHT] * 9)
    runner.set(strategy="rule_then_judge", audit_share=0.3)
    runner.run()
    metrics = runner.metrics()
    found, table = metrics["judge_contradicts"], metrics["rule_by_judge"]
    assert (found["confidence"], found["interval"]) == (0.95, "Clopper-Pearson")
    right, wrong = found["right"], found["wrong"]
    assert (right["verdicts"], wrong["verdicts"]) == (200, 60)
    assert (right["marked"], right["contradicted"]) == (200 - table["right"]["not_asked"], table["right"]["wrong"])
    assert right["share"] == round(right["contradicted"] / right["marked"], 4)
    assert right["low"] < 0.25 < right["high"], "a quarter of all right ones are contradicted"
    assert (wrong["contradicted"], wrong["share"], wrong["low"]) == (0, 0.0, 0.0)
    # none of n: Clopper and Pearson's upper end is 1 - (α/2)^(1/n)
    assert wrong["high"] == pytest.approx(1 - 0.025 ** (1 / wrong["marked"]), abs=1e-4)


def test_without_marks_on_the_rules_verdicts_nothing_is_said_of_them(runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    for strategy, expected in (("rule", None), ("rule_then_judge", 0)):
        runner.set(strategy=strategy)
        runner.run(strategy)
        found = runner.metrics(strategy)["judge_contradicts"]
        assert expected == (found and found["right"]["marked"])
    assert found["right"] == {"verdicts": 2, "marked": 0, "contradicted": 0, "share": None, "low": None, "high": None}


def test_a_reply_that_is_no_mark_contradicts_nothing(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    runner.hold(BOTH_RIGHT, RULE_RIGHT_JUDGE_WRONG)
    runner.use(judge(lambda material, attempt: says("两段大致相同")))
    runner.set(strategy="rule_audited", audit_share=1.0)
    runner.run()
    assert runner.metrics()["rule_by_judge"]["right"] == {"unsure": 2}
    assert runner.metrics()["judge_contradicts"]["right"]["marked"] == 0


@pytest.mark.parametrize(("count", "of"), [(0, 10), (1, 10), (7, 120), (113, 120), (10, 10)])
def test_the_interval_ends_where_so_many_or_so_few_would_be_a_rare_chance(count: int, of: int) -> None:
    found = contradicted({("right", "wrong"): count, ("right", "right"): of - count, ("right", "unsure"): 3})["right"]
    assert (found["verdicts"], found["marked"], found["share"]) == (of + 3, of, round(count / of, 4))
    so_many, so_few = binom.sf(count - 1, of, found["low"]), binom.cdf(count, of, found["high"])
    assert so_many == pytest.approx(0.025 if count else 1.0, abs=0.001)
    assert so_few == pytest.approx(0.025 if count < of else 1.0, abs=0.001)


def test_an_audit_comes_on_top_of_what_the_rule_could_not_judge(runner: FilterRunner) -> None:
    runner.hold(*KINDS)
    runner.set(strategy="rule_then_judge", audit_share=1.0)
    runner.run()
    assert len(runner.requested()) == 6
    assert tuple(row["verdict"] for row in runner.judged()) == STRATEGIES["rule_then_judge"]


# ---- what is sent ----


def test_the_judge_gets_the_articles_prompt_with_the_response_five_newlines_and_the_gold_solution(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    runner.hold({"response": "  第一步 {question}\n\n2 + 3 = 5 \n"})
    server = judge(yes)
    runner.use(server)
    runner.run()
    before, after = prompt_text("strict_teacher").split("{question}")
    text = f"{before}  第一步 {{question}}\n\n2 + 3 = 5 \n\n\n\n\n\nRow 0: 2 + 3 = 5{after}"
    assert server.bodies == [{"model": "chain-sum-solver", "messages": [{"role": "user", "content": text}]}]


def test_the_gold_answer_stands_in_for_a_solution_that_there_is_not(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    runner.hold({"solution": None, "response": "The answer is 5."})
    server = judge(yes)
    runner.use(server)
    runner.run()
    assert "The answer is 5.\n\n\n\n\n5" in server.asked[0]


def test_the_judges_own_sampling_values_are_sent_and_shape_the_key(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    runner.hold(BOTH_RIGHT)
    server = judge(yes)
    runner.use(server)
    runner.run()
    runner.set(temperature=0.0, max_tokens=64)
    runner.run()
    assert len(server.bodies) == 2
    assert (server.bodies[1]["temperature"], server.bodies[1]["max_tokens"]) == (0.0, 64)


def test_the_judges_key_is_its_own_and_reaches_no_file(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    runner.hold(BOTH_RIGHT)
    server = judge(yes)
    runner.use(server)
    runner.run()
    assert server.keys == {f"Bearer {JUDGES_KEY}"}
    files = [path for path in runner.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if JUDGES_KEY.encode() in path.read_bytes()]


def test_a_missing_judges_key_is_named(
    runner: FilterRunner, judge: Callable[[Reply], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_API_KEY")
    runner.hold(BOTH_RIGHT)
    runner.use(judge(yes))
    assert runner.refused().startswith("JUDGE_API_KEY: not set. ")


def test_a_prompt_without_a_place_for_the_material_is_refused(
    runner: FilterRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prompts"
    shutil.copytree(prompts.PROMPTS, folder)
    (folder / "judge" / "mild.txt").write_text("Is it so?\n")
    monkeypatch.setattr(prompts, "PROMPTS", folder)
    runner.hold(BOTH_RIGHT)
    runner.set(prompt="mild")
    path = "stages/prompts/judge/mild.txt"
    assert runner.refused().startswith(f"params.yaml: filter.judge.prompt: {path} has no placeholder for")
    assert runner.requested() == []


def test_two_answers_with_the_same_text_are_marked_once(runner: FilterRunner) -> None:
    runner.hold(BOTH_RIGHT)
    text = (runner.folder / "distilled.jsonl").read_text()
    (runner.folder / "distilled.jsonl").write_text(text + text.replace('"q0"', '"q1"'))
    runner.run()
    assert len(runner.requested()) == 1
    assert len(runner.rows("filtered")) == 2


# ---- replies that are none ----


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(says("两段大致相同"), id="no mark"),
        pytest.param(says("含义是否一致:是/否"), id="the format and nothing else"),
        pytest.param(says(""), id="empty"),
        pytest.param(says("含义是否一致:是", "length"), id="cut off"),
        pytest.param(says("含义是否一致:是", "content_filter"), id="refused by a filter"),
    ],
)
def test_an_unreadable_reply_is_asked_for_once_more(
    first: web.Response, runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    body = first.body

    def reply(material: str, attempt: int) -> web.StreamResponse:
        again = web.Response(body=body, content_type="application/json")
        return again if attempt == 1 and "Row 1" in material else says("含义是否一致:否")

    runner.hold(BOTH_RIGHT, BOTH_RIGHT)
    runner.set(on_unsure="keep", strategy="rule_audited", audit_share=1.0)
    server = judge(reply)
    runner.use(server)
    runner.run()
    assert [row["judge_verdict"] for row in runner.judged()] == ["wrong", "wrong"]
    assert sorted(Counter(server.asked).values()) == [1, 2]
    runner.run("again")
    assert len(server.asked) == 3
    assert runner.facts() | {"currency": ""} == {
        "bought": 0,
        "from_store": 3,
        "paid_now": 0.0,
        "saved_by_store": 0.0,
        "currency": "",
    }
    assert runner.outputs("again") == runner.outputs()


@pytest.mark.parametrize("on_unsure", ["reject", "keep"])
def test_a_reply_unreadable_twice_is_unsure_and_goes_where_params_say(
    on_unsure: str, runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    server = judge(lambda material, attempt: says("含义是否一致:是" if "Row 0" in material else "我不知道"))
    runner.hold(BOTH_RIGHT, BOTH_RIGHT)
    runner.set(on_unsure=on_unsure)
    runner.use(server)
    runner.run()
    runner.run()
    assert sorted(Counter(server.asked).values()) == [1, 2]
    assert [row["verdict"] for row in runner.judged()] == ["right", "unsure"]
    assert runner.metrics()["kept_unsure"] == (on_unsure == "keep")
    reasons = {"no_mark_read": 1} if on_unsure == "reject" else {}
    assert runner.metrics()["rejected_by_reason"] == reasons
    counts_add_up(runner)


def test_an_unreadable_mark_leaves_the_rules_verdict_on_both(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    runner.hold(*KINDS)
    runner.set(strategy="both")
    runner.use(judge(lambda material, attempt: says("我不知道")))
    runner.run()
    assert tuple(row["verdict"] for row in runner.judged()) == STRATEGIES["rule"]
    assert runner.rows("disagreements") == []


def test_a_question_that_the_judge_refuses_is_unsure(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    def reply(material: str, attempt: int) -> web.StreamResponse:
        return web.json_response({}, status=400) if "Row 1" in material else says("含义是否一致:是")

    server = judge(reply)
    runner.hold(BOTH_RIGHT, BOTH_RIGHT)
    runner.use(server)
    runner.run()
    assert [row["judge_verdict"] for row in runner.judged()] == ["right", "unsure"]
    assert len(server.asked) == 2


# ---- marks that do not come ----


@pytest.mark.parametrize("rows", [2, 20])
def test_a_judge_that_refuses_every_row_alike_gives_no_mark(
    rows: int, runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    error = {"error": {"message": "temperature must be 1", "code": "invalid_parameter_error"}}
    server = judge(lambda material, attempt: web.json_response(error, status=400))
    runner.hold(*[BOTH_RIGHT] * rows)
    runner.use(server)
    line = runner.refused()
    assert "temperature must be 1" in line
    assert len(server.asked) <= 9


@pytest.mark.parametrize("status", [400, 200])
def test_a_row_that_a_filter_holds_back_is_unsure(
    status: int, runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    error = {"error": {"message": "Content Exists Risk"}}
    runner.hold(BOTH_RIGHT)
    runner.set(on_unsure="keep")
    runner.use(judge(lambda material, attempt: web.json_response(error, status=status)))
    runner.run()
    assert [row["judge_verdict"] for row in runner.judged()] == ["unsure"]


def test_a_mark_beside_an_error_is_none(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    def reply(material: str, attempt: int) -> web.StreamResponse:
        choice = {"message": {"content": "含义是否一致:否"}, "finish_reason": None}
        half = web.json_response({"choices": [choice], "error": {"code": 502, "message": "lost"}})
        return half if attempt == 1 else says("含义是否一致:是")

    server = judge(reply)
    runner.hold(BOTH_RIGHT)
    runner.use(server)
    runner.run()
    assert [row["judge_verdict"] for row in runner.judged()] == ["right"]
    assert len(server.asked) == 2


def test_marks_that_were_not_received_fail_the_stage_and_are_asked_for_again(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    broken = True

    def reply(material: str, attempt: int) -> web.StreamResponse:
        down = broken and any(f"Row {number}:" in material for number in (1, 3))
        return web.Response(status=503) if down else says("含义是否一致:是")

    runner.hold(*[BOTH_RIGHT] * 5)
    runner.set(strategy="rule")
    runner.run()  # older outputs, which must stay as they are
    server = judge(reply)
    runner.use(server)
    runner.set(strategy="judge")
    line = runner.refused()
    assert line.startswith("filter: 2 marks of the judge were not received (2 http_503). ")
    assert len(server.asked) == 3 + 2 * 2  # two attempts each
    broken = False
    runner.run()
    assert len(server.asked) == 7 + 2
    assert runner.facts()["bought"] == 2
    assert runner.facts()["from_store"] == 3


def test_a_second_reply_that_does_not_come_fails_the_stage_too(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    server = judge(lambda material, attempt: says("我不知道") if attempt == 1 else web.Response(status=503))
    runner.hold(BOTH_RIGHT)
    runner.use(server)
    assert runner.refused().startswith("filter: 1 marks of the judge were not received (1 http_503). ")
    assert len(server.asked) == 1 + 2


def test_a_key_that_the_judge_does_not_know_ends_the_stage(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    runner.hold(*[BOTH_RIGHT] * 20)
    runner.use(judge(lambda material, attempt: web.json_response({"error": {"message": "bad key"}}, status=401)))
    line = runner.refused()
    assert "the server answers 401" in line
    assert "Check JUDGE_API_KEY, the account's credit and filter.judge in params.yaml" in line


# ---- money ----

PRICE = {"chain-sum-solver": {"input": 1e6, "cached_input": 1e6, "output": 0.0}}  # 3 input tokens: 3 a mark


def test_the_judges_price_says_what_was_paid_and_what_the_store_saved(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    runner.hold(*[BOTH_RIGHT] * 4)
    runner.set(models=PRICE)
    runner.use(judge(lambda material, attempt: says("我不知道" if attempt == 1 and "Row 2" in material else "否")))
    runner.set(strategy="rule_audited", audit_share=1.0)
    runner.run()
    assert (runner.facts()["paid_now"], runner.facts()["saved_by_store"]) == (15.0, 0.0)
    runner.run()
    assert (runner.facts()["paid_now"], runner.facts()["saved_by_store"]) == (0.0, 15.0)


def test_a_budget_holds_for_the_judge(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    runner.hold(*[BOTH_RIGHT] * 6)
    runner.set(models=PRICE, budget=10.0)
    server = judge(yes)
    runner.use(server)
    line = runner.refused()
    assert line.startswith(
        "filter: run.budget = 10 CNY has no room for another answer, which may cost 3.00 CNY. 9.00 CNY"
    )
    assert "was spent on 3 of 6" in line
    assert len(server.asked) == 3
    assert (runner.facts()["bought"], runner.facts()["paid_now"]) == (3, 9.0), (
        "what was paid is said of a stopped run, too"
    )
    runner.set(budget=20.0)
    runner.run()
    assert len(server.asked) == 6


def test_a_budget_without_the_judges_price_is_refused(runner: FilterRunner) -> None:
    runner.hold(BOTH_RIGHT)
    runner.set(budget=1.0)
    assert "no price for 'chain-sum-solver'" in runner.refused()
    assert runner.requested() == []


# ---- several samples, and the teacher beside the judge ----


@pytest.mark.heavy
def test_of_several_answers_the_first_that_the_judge_calls_right_is_kept(runner: FilterRunner) -> None:
    samples = [(0, BOTH_WRONG), (1, RULE_WRONG_JUDGE_RIGHT), (2, BOTH_RIGHT)]
    runner.hold(*({"id": "q7", "sample": sample} | kind for sample, kind in samples), {"id": "q8"})
    runner.set(select="first_correct")
    runner.run()
    assert [(row["id"], row["sample"]) for row in runner.rows("filtered")] == [("q7", 1), ("q8", 0)]
    assert {row["sample"]: row["reason"] for row in runner.rows("rejected")} == {0: "wrong_answer", 2: "not_selected"}
    assert runner.metrics()["questions_by_right_share"] == {"1/1": 1, "2/3": 1}


@pytest.mark.heavy
def test_teacher_and_judge_share_one_store_without_mixing(runner: FilterRunner) -> None:
    """The same model on the same server, asked for sums by one stage and for marks by the other."""
    questions = [
        {"id": f"q{number}", "question": f"What is {number} + 3?", "answer": str(number + 3), "solution": None}
        for number in range(5)
    ]
    (runner.folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    named = {"questions": "questions.jsonl", "distilled": "distilled.jsonl", "failures": "f.jsonl", "metrics": "d.json"}
    paths = [text for name, path in named.items() for text in (f"--{name}", str(runner.folder / path))]
    for stored in (10, 10):
        arguments = [*paths, "--store", str(runner.store), "--params", runner.arguments("out")[-1]]
        assert CliRunner().invoke(distill.main, arguments).exit_code == 0
        runner.run()
        assert runner.store.read_bytes().count(b"\n") == len(runner.requested()) == stored
    before, _ = prompt_text("strict_teacher").split("{question}")
    assert sum(text.startswith(before) for text in runner.requested()) == 5
    right = sum(row["verdict"] == "right" for row in runner.judged())
    assert right == sum(row["rule_verdict"] == "right" for row in runner.judged())


def test_nothing_to_judge_is_one_line(runner: FilterRunner) -> None:
    runner.hold()
    assert runner.refused().endswith("distilled.jsonl: there is nothing in it. Run 'dvc repro distill' to rebuild it.")


def test_offline_the_store_marks_or_the_stage_ends(runner: FilterRunner, judge: Callable[[Reply], Server]) -> None:
    server = judge(yes)
    runner.use(server)
    runner.hold(BOTH_RIGHT, BOTH_WRONG)
    runner.run("online")
    runner.set(offline=True)
    runner.run()
    assert runner.outputs() == runner.outputs("online")
    runner.hold(BOTH_RIGHT, BOTH_WRONG, RULE_UNSURE_JUDGE_RIGHT)
    assert runner.refused().startswith("filter: run.offline is true, and 1 marks of the judge are not in the store. ")
    assert len(server.asked) == 2


def test_offline_a_second_reply_that_is_missing_ends_the_stage_too(
    runner: FilterRunner, judge: Callable[[Reply], Server]
) -> None:
    def unreadable_then_silent(material: str, attempt: int) -> web.StreamResponse:
        return says("大概") if attempt == 1 else web.Response(status=503)

    runner.use(judge(unreadable_then_silent))
    runner.hold(BOTH_RIGHT)
    runner.refused()
    runner.set(offline=True)
    assert runner.refused().startswith("filter: run.offline is true, and 1 marks of the judge are not in the store. ")
