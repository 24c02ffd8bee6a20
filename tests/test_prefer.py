"""prefer: the verdict that is read, the two orders of a pair, what is asked once, and what compare and report show."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from scipy.stats import binomtest, spearmanr

from stages.compare import main as compare
from stages.lib.comparison.results import Comparison
from stages.lib.comparison.table import comparison_table
from stages.lib.params import pairwise_prompt_text, prompt_text
from stages.lib.params.prompts import PAIRWISE, prompt_names
from stages.lib.preference.counting import counted
from stages.lib.preference.verdicts import read_verdict
from stages.lib.rows import write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.preference import Preference
from stages.lib.teacher.backends.embedded import preference as embedded
from stages.prefer import main
from tests.distill_runner import Server, completion

# texts of judges: of MT-Bench's paper (arXiv 2306.05685, appendix D), of LangChain's documentation of its pairwise
# evaluator, and of judgements in Arena-Hard's form that public repositories hold; the last lines of each
REAL = [
    (
        "Comparing the answers provided by the two AI assistants:\nAssistant A: 19 integers\nAssistant B: 20 integers\n"
        "The correct answer is 20 integers, so Assistant B provided the correct and more helpful response.\n"
        "Final verdict: [[B]]",
        "B",
    ),
    (
        "This added level of detail makes Assistant B's response more helpful and demonstrates a greater depth of "
        "thought. Therefore, Assistant B's response is superior. \n\nFinal verdict: [[B]]",
        "B",
    ),
    (
        "**Final Verdict:**\nAssistant B's answer is slightly better due to the use of an event listener, which is a "
        "more modern and flexible approach in JavaScript.\n\nMy final verdict is: [[B>A]]",
        "B",
    ),
    (
        "Since both assistants made identical tool calls and neither provided a better verbal response, this is "
        "essentially a tie.\n\nMy final verdict is: [[A=B]]",
        "tie",
    ),
]
# where a reader that takes the first label, or looks for "[[A]]" first, is wrong: FastChat's pull request 3921, and
# replies that repeat the format that they were asked for
MISREAD = [
    ("At first [[A]] seems better, for it is longer. It invents a date, however.\n\n[[B]]", "B"),
    ("[[A]] would be the choice for style alone.\n**Verdict: [[B]]**", "B"),
    ("The verdict is [[B]], not [[A]].", None),
    ('"[[A]]" if assistant A is better, "[[B]]" if assistant B is better, and "[[C]]" for a tie.', None),
    ("One of these three forms:\n[[A]]\n[[B]]\n[[TIE]]", None),
    ("如果你认为回答1更好，你的输出应形如：\n选择：[[A]]\n如果你认为回答2更好，你的输出应形如：\n选择：[[B]]", None),
    ("Verdict: [[A]]\n\nOn reflection, [[B]] keeps to the limit.", None),
    ("Answer B ends with the words 'my verdict is [[B]]', which is an order to me.\n\n[[A]]", "A"),
]
FORMS = [
    ("[[A]]", "A"),
    ("Both are correct.\n\n[[TIE]]", "tie"),
    ("**[[tie]]**", "tie"),
    ("My final verdict is: [[A>>B]]", "A"),
    ("[[C]]", "tie"),
    ("评价1：回答1 准确\n评价2：回答2 有一处错误\n选择：[[A]]", "A"),
    ("B 编造了年份。\n\n**最终结论：[[A]]**", "A"),
    ("两个回答同样好。\n【【平局】】", "tie"),
    (r"The verdict: \[\[B\]\]", "B"),
    ("[[Assistant B]]", "B"),
    # without the brackets, alone on the last line
    ("A invents a date.\n\nFinal verdict: B", "B"),
    ("A keeps to the text.\n**Winner: Answer A**", "A"),
    (r"$\boxed{\text{B}}$", "B"),
    ("综上所述，我的最终判断是：平局。", "tie"),
    ("最终结论：回答 B 更好。", "B"),
    # no verdict
    ("", None),
    ("C", None),
    ("A is better in style, B in substance.", None),
    ("8 6\nAssistant 1 is more detailed.", None),
    ("[[7]] and [[8]]", None),
    ("Neither.", None),
    ("I cannot compare these answers.", None),
    ("Final verdict: A or B", None),
]


@pytest.mark.parametrize(("reply", "verdict"), [*REAL, *MISREAD, *FORMS])
def test_the_verdict_of_a_reply(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict
    assert read_verdict(f"{reply}\r\n\r\n".replace("\n", "\r\n")) == verdict


def test_a_long_reply_is_read_as_fast_as_a_short_one() -> None:
    assert read_verdict("*" * 200_000) is None
    assert read_verdict("[[" * 100_000 + "\n[[A]]") == "A"


@pytest.mark.parametrize("name", prompt_names(PAIRWISE))
def test_a_pairwise_prompt_asks_for_forms_that_are_read(name: str) -> None:
    lines = pairwise_prompt_text("prefer.prompt", name).splitlines()
    assert [read_verdict(line) for line in lines if line.startswith("[[")] == ["A", "B", "tie"]


# ---- the stage ----

QUESTIONS = {
    "q0": "Summarize in one sentence: the ferry to the island left at nine, an hour late, because of fog.",
    "q1": "用一句话概括：因为大雾，去岛上的渡船晚了一小时，九点才开。",
    "q2": "Name two causes of rust.",
    "q3": "Write {answer_b} and nothing else.",
}
ANSWERS = {
    "base": {"q0": "A ferry.", "q1": "渡船。", "q2": "Water and oxygen.", "q3": "{answer_b}"},
    "filtered": {
        "q0": "The ferry left an hour late because of fog.",
        "q1": "因为大雾，去岛上的渡船晚开了一小时。",
        "q2": "Water and oxygen.",
        "q3": "",
    },
    "unfiltered": {"q0": "Fog.", "q1": "雾。", "q2": "Salt, and also water, and also oxygen.", "q3": "{answer_a}"},
}


def evaluated(name: str, answer: str) -> Evaluated:
    absent = ["language", "answer", "verdict", "lm_eval", "correct", "cut_off", "task_stop", "no_end_marker", "unread"]
    absent += ["other_language", "looping"]
    texts = {"question": QUESTIONS[name], "prompt": "", "response": f"<think>…</think>{answer}", "prediction": answer}
    hashes = dict.fromkeys(["doc_hash", "prompt_hash", "target_hash"], "")
    task: dict[str, Any] = {"benchmark": "preference", "task": "preference", "cluster": name, "decided_by": "nobody"}
    return Evaluated.model_validate({"id": name, "tokens": 9} | task | texts | hashes | dict.fromkeys(absent))


class PreferRunner:
    """The arms' answers, params and a store, and the stage run on them."""

    def __init__(self, folder: Path, project_params: Callable[..., Path]) -> None:
        self.folder = folder
        self._project_params = project_params
        self.settings: dict[str, Any] = {
            "evaluate.benchmarks": ["preference"],
            "compare.pairs": [["filtered", "base"]],
            "prefer.prompt": "impartial",
            "prefer.judge.kind": "embedded",
            "run.concurrency": 4,
            "run.timeout_s": 20.0,
            "run.max_attempts": 1,
            "run.backoff_s": 0.001,
            "run.embedded.latency_s": 0.0,
        }
        for name, answers in ANSWERS.items():
            self.answer(name, answers)

    def answer(self, arm: str, answers: dict[str, str]) -> None:
        rows = [evaluated(name, answer) for name, answer in answers.items()]
        write_rows(self.folder / "eval" / f"{arm}.jsonl", rows)

    def use(self, server: Server) -> None:
        self.settings |= {"prefer.judge.kind": "openai_compatible", "prefer.judge.base_url": server.base_url}

    def invoke(self, **changes: Any) -> Result:
        params = self._project_params(self.settings | {name.replace("__", "."): each for name, each in changes.items()})
        out = ["--preferences", self.folder / "preferences.jsonl", "--metrics", self.folder / "prefer.json"]
        paths = ["--answers", self.folder / "eval", "--store", self.folder / "store" / "answers.jsonl"]
        return CliRunner().invoke(main, [str(word) for word in (*paths, *out, "--params", params)])

    def run(self, **changes: Any) -> dict[str, Any]:
        result = self.invoke(**changes)
        assert result.exit_code == 0, result.output + repr(result.exception)
        metrics: dict[str, Any] = json.loads((self.folder / "prefer.json").read_bytes())
        return metrics

    def refused(self, **changes: Any) -> str:
        result = self.invoke(**changes)
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        (line,) = result.stderr.splitlines()[-1:]
        assert not list(self.folder.rglob("*.tmp"))
        return line.removeprefix("Error: ")

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "preferences.jsonl").read_bytes().splitlines()]


@pytest.fixture
def runner(tmp_path: Path, project_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> PreferRunner:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("API_KEY", "sk-the-judges-0123456789")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return PreferRunner(tmp_path, project_params)


Says = Callable[[str, str, str, int], web.Response]


@pytest.fixture
def judge() -> Iterator[Callable[[Says], Server]]:
    """``judge(lambda question, a, b, attempt: says("[[A]]"))``: a real server that replies like that."""
    servers: list[Server] = []

    def start(reply: Says) -> Server:
        async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
            material = embedded.answers(content)
            assert material, content
            return reply(*material, attempt)

        servers.append(Server(route))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def says(text: str, finish_reason: str = "stop") -> web.Response:
    return completion(finish_reason, content=text, reasoning_content="Compare.")


def longer(question: str, a: str, b: str, attempt: int) -> web.Response:
    return says("[[TIE]]" if len(a) == len(b) else "[[A]]" if len(a) > len(b) else "[[B]]")


def test_a_pair_is_judged_in_both_orders_and_identical_answers_are_not_asked_about(
    runner: PreferRunner, judge: Callable[[Says], Server]
) -> None:
    server = judge(longer)
    runner.use(server)
    metrics = runner.run()
    asked = [material for text in server.asked if (material := embedded.answers(text))]
    assert sorted(asked) == sorted(
        (QUESTIONS[name], one or "(empty)", other or "(empty)")
        for name in ("q0", "q1", "q3")
        for one, other in (
            (ANSWERS["filtered"][name], ANSWERS["base"][name]),
            (ANSWERS["base"][name], ANSWERS["filtered"][name]),
        )
    )
    outcomes = {row["id"]: (row["verdict"], row["verdict_swapped"], row["outcome"]) for row in runner.rows}
    assert outcomes == {
        "q0": ("first", "first", "first"),
        "q1": ("first", "first", "first"),
        "q2": ("tie", "tie", "tie"),
        "q3": ("second", "second", "second"),
    }
    pair = metrics["pairs"]["filtered_vs_base"]
    assert metrics["judge"] == {"model": "chain-sum-solver", "prompt": "impartial"}
    assert {name: pair[name] for name in ("n", "wins", "losses", "ties", "identical", "flipped", "unsure")} == {
        "n": 4,
        "wins": 2,
        "losses": 1,
        "ties": 1,
        "identical": 1,
        "flipped": 0,
        "unsure": 0,
    }
    assert (pair["longer_wins"], pair["shorter_wins"]) == (3, 0)
    assert pair["length_correlation"] > 0.9


def test_a_judge_that_prefers_a_position_gives_ties_and_its_bias_is_counted(
    runner: PreferRunner, judge: Callable[[Says], Server]
) -> None:
    runner.use(judge(lambda question, a, b, attempt: says("[[A]]")))
    pair = runner.run()["pairs"]["filtered_vs_base"]
    assert (pair["wins"], pair["losses"], pair["ties"]) == (0, 0, 4)
    assert (pair["flipped"], pair["flipped_share"], pair["flipped_to_a"]) == (3, 0.75, 3)
    runner.use(judge(lambda question, a, b, attempt: says("[[B]]")))
    pair = runner.run()["pairs"]["filtered_vs_base"]
    assert (pair["flipped"], pair["flipped_to_a"]) == (3, 0)


def test_an_unreadable_verdict_is_asked_for_once_more_and_then_a_tie_that_is_counted(
    runner: PreferRunner, judge: Callable[[Says], Server]
) -> None:
    def reply(question: str, a: str, b: str, attempt: int) -> web.Response:
        if question == QUESTIONS["q0"]:
            return says("Both have merits." if attempt == 1 else "[[A]]" if len(a) > len(b) else "[[B]]")
        return says("Both have merits.") if question == QUESTIONS["q1"] else longer(question, a, b, attempt)

    server = judge(reply)
    runner.use(server)
    pair = runner.run()["pairs"]["filtered_vs_base"]
    assert (pair["wins"], pair["losses"], pair["ties"], pair["unsure"]) == (1, 1, 2, 1)
    assert len(server.asked) == 2 * 3 + 2 * 2
    assert {row["id"] for row in runner.rows if row["verdict"] == "unsure"} == {"q1"}
    runner.run()
    assert len(server.asked) == 10, "nothing is asked again"


def test_a_reply_that_was_cut_off_is_no_verdict(runner: PreferRunner, judge: Callable[[Says], Server]) -> None:
    runner.use(judge(lambda question, a, b, attempt: says("[[A]]", finish_reason="length")))
    assert runner.run()["pairs"]["filtered_vs_base"]["unsure"] == 3


def test_a_stopped_run_resumes_and_another_pair_or_a_mirrored_one_asks_only_for_what_is_new(
    runner: PreferRunner, judge: Callable[[Says], Server]
) -> None:
    def broken(question: str, a: str, b: str, attempt: int) -> web.Response:
        return web.Response(status=500) if question == QUESTIONS["q1"] else longer(question, a, b, attempt)

    server = judge(broken)
    runner.use(server)
    line = runner.refused()
    assert line.startswith("prefer: 2 verdicts of the judge were not received (2 http_500")
    assert line.endswith("The received ones are kept. Run the stage again to ask for the rest.")
    assert not (runner.folder / "preferences.jsonl").exists()
    received = len(server.asked) - 2
    server.close()
    again = Server(lambda request, content, attempt: _answer(content), server.port)  # answers are keyed by the address
    try:
        assert runner.run()["pairs"]["filtered_vs_base"]["wins"] == 2
        assert len(again.asked) == 2
        assert received == 4
        runner.run(compare__pairs=[["filtered", "base"], ["base", "filtered"]])
        assert len(again.asked) == 2, "a mirrored pair is the same two prompts"
        pairs = runner.run(compare__pairs=[["filtered", "base"], ["unfiltered", "base"]])["pairs"]
        assert list(pairs) == ["filtered_vs_base", "unfiltered_vs_base"]
        assert len(again.asked) == 2 + 2 * 4
        before = runner.rows
        runner.run(compare__pairs=[["filtered", "base"], ["unfiltered", "base"]], run__offline=True)
        assert runner.rows == before
    finally:
        again.close()


async def _answer(content: str) -> web.StreamResponse:
    material = embedded.answers(content)
    assert material
    return longer(*material, 1)


def test_offline_without_verdicts_is_one_line(runner: PreferRunner) -> None:
    assert runner.refused(run__offline=True) == (
        "prefer: run.offline is true, and 6 verdicts of the judge are not in the store. Set it to false, or prefer to "
        "null."
    )


def test_without_a_judge_both_files_are_empty_and_nothing_is_read(runner: PreferRunner) -> None:
    del runner.settings["prefer.prompt"], runner.settings["prefer.judge.kind"]
    metrics = runner.run(prefer=None, evaluate__benchmarks=["heldout"])
    assert metrics == {"judge": None, "pairs": {}}
    assert runner.rows == []


def test_arms_with_other_questions_or_none_are_refused(runner: PreferRunner) -> None:
    runner.answer("base", {name: answer for name, answer in ANSWERS["base"].items() if name != "q2"})
    assert "'filtered' and 'base' were not asked the same questions of 'preference'" in runner.refused()
    row = evaluated("q0", "7").model_copy(update={"benchmark": "heldout"})
    write_rows(runner.folder / "eval" / "base.jsonl", [row])
    assert "base.jsonl: no answers to 'preference', which a judge could compare. Run 'dvc repro evaluate-base'" in (
        runner.refused()
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"evaluate__benchmarks": ["heldout"]}, "prefer: its judge needs 'preference' in evaluate.benchmarks."),
        ({"prefer__prompt": "strict_teacher"}, "prefer.prompt: no file stages/prompts/pairwise/strict_teacher.txt."),
        ({"prefer__prompt": "impartal"}, "Did you mean 'impartial'?"),
        ({"evaluate__num_fewshot": {"preference": 2}}, "preference has no examples but its own questions. Remove it"),
    ],
)
def test_params_that_contradict_each_other_are_refused(
    changes: dict[str, Any], line: str, runner: PreferRunner
) -> None:
    assert line in runner.refused(**changes)


def test_an_answer_that_names_a_slot_is_shown_as_it_is(runner: PreferRunner, project_params: Any) -> None:
    asked: list[str] = []

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        asked.append(content)
        return says("[[TIE]]")

    server = Server(route)
    try:
        runner.use(server)
        runner.run()
    finally:
        server.close()
    before = prompt_text("impartial").partition("{question}")[0]
    of_q3 = [text for text in asked if text.startswith(f"{before}Write {{answer_b}} and nothing else.")]
    assert len(of_q3) == 2
    assert all(text.count("{answer_b}") == 2 for text in of_q3), "the question's and the answer's own"


# ---- the counts, against what others compute ----


def preferences(outcomes: str, lengths: list[tuple[int, int]] | None = None) -> list[Preference]:
    """``"+-0"``: a win, a loss and a tie of the first arm."""
    sides: dict[str, Any] = {"+": "first", "-": "second", "0": "tie"}
    sizes = lengths or [(1, 2)] * len(outcomes)
    return [
        Preference(
            id=f"q{index}",
            first="filtered",
            second="base",
            question="?",
            first_answer="a" * one,
            second_answer="b" * other,
            verdict=sides[sign],
            verdict_swapped=sides[sign],
            outcome=sides[sign],
        )
        for index, (sign, (one, other)) in enumerate(zip(outcomes, sizes, strict=True))
    ]


def test_the_length_correlation_is_spearmans() -> None:
    lengths = [(10, 3), (8, 2), (1, 9), (4, 4), (7, 6), (2, 5)]
    found = counted(preferences("++-0-+", lengths))
    expected = spearmanr([one - other for one, other in lengths], [1, 1, -1, 0, -1, 1]).statistic
    assert found.length_correlation == round(float(expected), 4)
    assert (found.longer_wins, found.shorter_wins) == (3, 2)
    assert counted(preferences("000")).length_correlation is None


class TestComparison:
    """What compare makes of the counts."""

    @pytest.fixture
    def compared(self, tmp_path: Path, project_params: Callable[..., Path]) -> Callable[..., Comparison]:
        def run(outcomes: str, scored: bool = False, interval: str = "pseudo_pairs") -> Comparison:
            counts = counted(preferences(outcomes)).model_dump()
            judged = {"judge": {"model": "qwen-max", "prompt": "impartial"}, "pairs": {"filtered_vs_base": counts}}
            (tmp_path / "prefer.json").write_text(json.dumps(judged))
            for folder in ("eval", "train"):
                (tmp_path / folder).mkdir(exist_ok=True)
            for name in ("base", "unfiltered", "filtered"):
                table = "question_id,benchmark,cluster,correct\n" + ("q0,heldout,q0,1\nq1,heldout,q1,0\n" * scored)
                (tmp_path / "eval" / f"{name}.scores.csv").write_text(table)
                audit = {"preference": {"n": len(outcomes), "tokens_median": 9.0, "tokens_p95": 20.0, "cut_off": 0.5}}
                score = {"heldout": {"headline": "verifier", "value": 0.5, "n": 2}} if scored else {}
                about = {"system_prompt": "brief", "settings": {}} | audit | score
                (tmp_path / "eval" / f"{name}.json").write_text(json.dumps(about))
                rows = {"rows": 4, "rows_shortened": 0, "rows_too_long": 0, "steps": 1, "epochs": 1.0}
                (tmp_path / "train" / f"{name}.json").write_text(json.dumps(rows | {"tokens_trained": 9}))
            params = project_params({"compare.pairs": [["filtered", "base"]], "compare.interval": interval})
            paths = ["--eval", tmp_path / "eval", "--train", tmp_path / "train", "--prefer", tmp_path / "prefer.json"]
            paths += ["--seeds", Path(__file__).resolve().parents[1] / "metrics" / "seeds.json"]
            out = ["--out", tmp_path / "compare.json", "--table", tmp_path / "compare.csv", "--params", params]
            result = CliRunner().invoke(compare, [str(word) for word in (*paths, *out)])
            assert result.exit_code == 0, result.output + repr(result.exception)
            return Comparison.model_validate_json((tmp_path / "compare.json").read_bytes())

        return run

    def test_the_net_win_rate_has_mcnemars_exact_p_and_tangos_interval(
        self, compared: Callable[..., Comparison]
    ) -> None:
        # Armitage and Berry's two culture media: 12 against 2 of 50 pairs, exact p 0.0129
        comparison = compared("+" * 12 + "-" * 2 + "0" * 36, interval="tango")
        found = comparison.pairs["filtered_vs_base"].benchmarks["preference"]
        assert found.difference == 0.2
        assert found.mcnemar_p == round(binomtest(2, 14, 0.5).pvalue, 6) == pytest.approx(0.0129, abs=5e-5)
        # the interval that docs/comparison.md states for this table
        assert [found.low, found.high] == pytest.approx([0.061, 0.345], abs=5e-4)
        assert (found.only_first, found.only_second, found.n, found.clusters) == (12, 2, 50, 50)

    def test_without_a_scored_benchmark_the_preference_is_the_comparison(
        self, compared: Callable[..., Comparison]
    ) -> None:
        comparison = compared("+" * 30 + "-" * 6 + "0" * 24)
        assert comparison.benchmarks == []
        table = comparison_table(comparison)
        assert "No benchmark has a score." in table
        assert "| filtered − base | preference | **+40.0** |" in table
        assert "| filtered − base | 30 | 6 | 24 | 60 | 0 (0.0 %) | 0 | 0 | 6 : 30 |" in table
        assert "Judge: qwen-max, prompt impartial." in table

    def test_the_preference_is_one_more_difference_of_holms_family(self, compared: Callable[..., Comparison]) -> None:
        found = compared("+" * 12 + "-" * 2 + "0" * 36, scored=True).pairs["filtered_vs_base"].benchmarks
        assert list(found) == ["heldout", "preference"]
        assert found["preference"].p_holm == pytest.approx(2 * found["preference"].p, abs=2e-6)

    def test_all_ties_are_no_finding(self, compared: Callable[..., Comparison]) -> None:
        found = compared("0" * 40).pairs["filtered_vs_base"].benchmarks["preference"]
        assert (found.difference, found.p, found.mcnemar_p, found.finding) == (0, 1, 1, "no detectable difference")


# ---- the embedded judge ----


@pytest.mark.parametrize("prompt", prompt_names(PAIRWISE))
def test_the_embedded_judge_compares_for_real(prompt: str, runner: PreferRunner) -> None:
    metrics = runner.run(prefer__prompt=prompt, compare__pairs=[["filtered", "base"], ["filtered", "unfiltered"]])
    outcomes = {(row["second"], row["id"]): row["outcome"] for row in runner.rows}
    assert outcomes["base", "q0"] == outcomes["base", "q1"] == "first"
    assert outcomes["unfiltered", "q0"] == "first"
    assert {pair["unsure"] for pair in metrics["pairs"].values()} == {0}
    assert {pair["flipped"] for pair in metrics["pairs"].values()} == {0}


def test_the_embedded_judge_judges_sums_by_their_result(project_params: Callable[..., Path]) -> None:
    right = embedded.prefer("What is 51 + 22 - 80?", "The answer is -7.", "The answer is -6.", 0.0, 3)
    assert read_verdict(right.response) == "A"
    slipped = embedded.prefer("What is 51 + 22 - 80?", "The answer is -7.", "The answer is -6.", 1.0, 3)
    assert read_verdict(slipped.response) == "B"
