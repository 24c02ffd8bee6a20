"""compare: what is written of each arm and pair, the finding's words, the default pairs, what makes arms unlike."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import Result

from stages.compare import main
from stages.lib.comparison.results import Comparison, Warned
from stages.lib.comparison.table import (
    CAVEAT,
    CHURN_NOTE,
    MCNEMAR,
    TRAININGS_NOTE,
    UNSURE,
    audit_table,
    caveat,
    comparison_table,
)
from stages.lib.comparison.warnings import sentence
from stages.lib.pairs import default_pairs
from stages.lib.statistics.trainings import scores_hash

ROOT = Path(__file__).resolve().parents[1]
Answers = dict[str, str]
LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
AUDIT = {
    "cut_off": 0.25,
    "task_stop": 0.0,
    "no_end_marker": None,
    "unread": 0.1,
    "other_language": 0.0,
    "looping": 0.05,
}
SETTINGS: dict[str, Any] = {"backend": "hf", "batch_size": 50, "limit": None, "versions": {"torch": "2.13.0"}}
TRAINING = {"rows": 128, "rows_shortened": 0, "rows_too_long": 0, "steps": 32, "epochs": 1.0, "tokens_trained": 900}


def scores(right: str) -> Answers:
    """``"110"``: three questions, the first two answered right."""
    return {f"q{index}": correct for index, correct in enumerate(right)}


def in_each_language(right: str) -> Answers:
    """``"10"``: two problems in eleven languages, the first answered right in all of them."""
    return {f"{language}/{problem}": correct for problem, correct in enumerate(right) for language in LANGUAGES}


def score(answers: Answers, **changes: Any) -> dict[str, Any]:
    """A benchmark of metrics/eval/ARM.json."""
    value = round(sum(correct == "1" for correct in answers.values()) / len(answers), 4)
    unsure = {"if_unsure_wrong": value, "if_unsure_right": round(value + 0.1, 4)}
    both = {"headline": "verifier", "value": value, "n": len(answers), "stderr": 0.1, "verifier_stderr": 0.1}
    return (
        both
        | {"lm_eval": 0.125, "verifier": value, "differ": 1, "tokens_median": 52.0, "tokens_p95": 110.5}
        | unsure
        | AUDIT
        | changes
    )


class Run:
    """The metrics of a run's arms, and the stage's arguments without ``--params``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("eval", "train"):
            (folder / name).mkdir()
        self.preferences({})
        shutil.copy(ROOT / "metrics" / "seeds.json", folder)

    def preferences(self, pairs: dict[str, dict[str, Any]]) -> None:
        judge = {"model": "judge", "prompt": "impartial"} if pairs else None
        (self.folder / "prefer.json").write_text(json.dumps({"judge": judge, "pairs": pairs}))

    def arm(
        self, name: str, benchmarks: dict[str, Answers], system_prompt: str | None = "brief", **settings: Any
    ) -> None:
        lines = [
            f"{question},{benchmark},{question.split('/')[-1]},{correct}\n"
            for benchmark, answers in benchmarks.items()
            for question, correct in answers.items()
        ]
        text = "question_id,benchmark,cluster,correct\n" + "".join(lines)
        (self.folder / "eval" / f"{name}.scores.csv").write_text(text)
        facts = {benchmark: score(answers) for benchmark, answers in benchmarks.items()}
        how = {"system_prompt": system_prompt, "settings": SETTINGS | settings}
        (self.folder / "eval" / f"{name}.json").write_text(json.dumps(how | facts))
        if name != "base":
            self.training(name)

    def training(self, name: str, **changes: Any) -> None:
        (self.folder / "train" / f"{name}.json").write_text(json.dumps(TRAINING | changes))

    @property
    def arguments(self) -> list[object]:
        return [
            *("--eval", self.folder / "eval", "--train", self.folder / "train"),
            *("--prefer", self.folder / "prefer.json", "--seeds", self.folder / "seeds.json"),
            *("--out", self.folder / "compare.json", "--table", self.folder / "compare.csv"),
        ]

    @property
    def comparison(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "compare.json").read_bytes())
        return found

    @property
    def table(self) -> list[dict[str, str]]:
        with (self.folder / "compare.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def arms(tmp_path: Path) -> Callable[..., Run]:
    """``arms(base, filtered, unfiltered)``: a run of these answers to the held-out questions."""

    def write(base: Answers, filtered: Answers, unfiltered: Answers) -> Run:
        run = Run(tmp_path)
        for name, answers in (("base", base), ("filtered", filtered), ("unfiltered", unfiltered)):
            run.arm(name, {"heldout": answers})
        return run

    return write


@pytest.fixture
def compared(project_params: Callable[..., Path], runs: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """``compared(run, [["filtered", "base"]])``: what the stage writes of a run."""

    def compare(run: Run, pairs: list[list[str]] | None = None, **changes: Any) -> dict[str, Any]:
        runs(main, *run.arguments, "--params", project_params({"compare.pairs": pairs} | changes))
        return run.comparison

    return compare


Compared = Callable[..., dict[str, Any]]


def sentences(comparison: dict[str, Any], language: str = "en") -> list[str]:
    return [sentence(Warned.model_validate(warning), language) for warning in comparison["warnings"]]


class TestPairs:
    """Two arms on the same questions."""

    def test_the_finding_is_in_words_that_p_bears(
        self, arms: Callable[..., Run], compared: Compared, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        few, many = scores("1" * 10 + "0" * 90), scores("1" * 60 + "0" * 40)
        many_and_3 = scores("1" * 63 + "0" * 37)
        run = arms(few, many, many_and_3)
        pairs = compared(run, [["filtered", "base"], ["base", "filtered"], ["unfiltered", "filtered"]])["pairs"]
        found = {name: pair["benchmarks"]["heldout"] for name, pair in pairs.items()}
        assert {name: each["finding"] for name, each in found.items()} == {
            "filtered_vs_base": "better",
            "base_vs_filtered": "worse",
            "unfiltered_vs_filtered": "no detectable difference",
        }
        assert found["filtered_vs_base"]["low"] > 0
        assert found["base_vs_filtered"]["high"] < 0
        assert "heldout +3.0 points, no detectable difference (6.5 would have shown)" in caplog.text
        three_more = found["unfiltered_vs_filtered"]
        assert three_more["low"] < 0 < three_more["high"]
        assert three_more["detectable"] > three_more["difference"] == 0.03

    def test_a_difference_among_many_must_be_clearer(self, arms: Callable[..., Run], compared: Compared) -> None:
        # 12 against 2 of 50: p = 0.014 alone, 0.043 among three that are as large, 0.014 · 3
        one, other = scores("1" * 20 + "1" * 12 + "0" * 18), scores("1" * 20 + "0" * 12 + "1" * 2 + "0" * 16)
        run = arms(other, one, one)
        alone = compared(run, [["filtered", "base"]])["pairs"]["filtered_vs_base"]["benchmarks"]["heldout"]
        assert alone["p"] == alone["p_holm"] < 0.05
        pairs = [["filtered", "base"], ["base", "filtered"], ["unfiltered", "base"], ["base", "unfiltered"]]
        among = compared(run, pairs)["pairs"]["filtered_vs_base"]["benchmarks"]["heldout"]
        assert (among["p"], among["low"]) == (alone["p"], alone["low"])
        assert among["p_holm"] == pytest.approx(4 * alone["p"], rel=0.01)
        assert (alone["finding"], among["finding"]) == ("better", "no detectable difference")

    def test_each_benchmark_is_compared_by_itself_and_all_are_one_family(
        self, tmp_path: Path, compared: Compared
    ) -> None:
        run = Run(tmp_path)
        run.arm("base", {"heldout": scores("1" * 10 + "0" * 90), "gsm8k": scores("0011" * 10)})
        for name in ("filtered", "unfiltered"):
            run.arm(name, {"heldout": scores("1" * 40 + "0" * 60), "gsm8k": scores("0111" * 10)})
        pair = compared(run, [["filtered", "base"]])["pairs"]["filtered_vs_base"]["benchmarks"]
        assert (pair["heldout"]["difference"], pair["gsm8k"]["difference"]) == (0.3, 0.25)
        assert (pair["heldout"]["n"], pair["gsm8k"]["n"]) == (100, 40)
        assert pair["gsm8k"]["p_holm"] == pair["gsm8k"]["p"]  # the larger of two
        assert [row["benchmark"] for row in run.table] == ["heldout", "gsm8k"]

    def test_a_problem_in_eleven_languages_is_one_cluster(self, tmp_path: Path, compared: Compared) -> None:
        run = Run(tmp_path)
        for name, right in (("base", "1" * 5 + "0" * 35), ("filtered", "1" * 9 + "0" * 31), ("unfiltered", "0" * 40)):
            run.arm(name, {"mgsm_direct": in_each_language(right), "heldout": scores(right)})
        comparison = compared(run, [["filtered", "base"]])
        pair = comparison["pairs"]["filtered_vs_base"]["benchmarks"]
        assert (pair["mgsm_direct"]["n"], pair["mgsm_direct"]["clusters"]) == (440, 40)
        assert (pair["mgsm_direct"]["only_first"], pair["heldout"]["only_first"]) == (44, 4)
        for name in ("difference", "low", "high", "p", "detectable"):
            assert pair["mgsm_direct"][name] == pytest.approx(pair["heldout"][name], abs=1e-4)
        base = comparison["arms"]["base"]["benchmarks"]
        assert base["mgsm_direct"]["high"] == pytest.approx(base["heldout"]["high"], abs=0.005)

    def test_mcnemar_s_exact_p_stands_beside_p_where_no_two_questions_repeat_a_problem(
        self, tmp_path: Path, compared: Compared
    ) -> None:
        run = Run(tmp_path)
        one, other = "1" * 12 + "0" * 2 + "1" * 36, "0" * 12 + "1" * 2 + "1" * 36
        for name, right in (("base", other), ("filtered", one), ("unfiltered", other)):
            run.arm(name, {"mgsm_direct": in_each_language(right), "heldout": scores(right)})
        pair = compared(run, [["filtered", "base"]])["pairs"]["filtered_vs_base"]["benchmarks"]
        # Armitage and Berry (1994), p. 127: 12 against 2
        assert (pair["heldout"]["mcnemar_p"], pair["mgsm_direct"]["mcnemar_p"]) == (0.012939, None)
        assert [row["mcnemar_p"] for row in run.table] == ["", "0.012939"]

    @pytest.mark.parametrize(
        ("interval", "finding"), [("pseudo_pairs", "no detectable difference"), ("tango", "better")]
    )
    def test_the_finding_follows_the_interval_that_was_chosen(
        self, interval: str, finding: str, arms: Callable[..., Run], compared: Compared
    ) -> None:
        # 5 against 0 of 100: p = 0.077 with pseudo-pairs, 0.025 of the score test
        run = arms(scores("0" * 100), scores("1" * 5 + "0" * 95), scores("0" * 100))
        comparison = compared(run, [["filtered", "base"]], **{"compare.interval": interval})
        found = comparison["pairs"]["filtered_vs_base"]["benchmarks"]["heldout"]
        assert (found["interval"], found["finding"], found["mcnemar_p"]) == (interval, finding, 0.0625)
        assert (found["low"] > 0) == (finding == "better")
        assert "compare.interval" not in "".join(sentences(comparison))

    def test_tango_s_interval_is_not_given_where_questions_repeat_a_problem_and_that_is_said(
        self, tmp_path: Path, compared: Compared, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = Run(tmp_path)
        for name, right in (("base", "1" * 5 + "0" * 35), ("filtered", "1" * 9 + "0" * 31), ("unfiltered", "0" * 40)):
            run.arm(name, {"mgsm_direct": in_each_language(right), "heldout": scores(right)})
        pairs = [["filtered", "base"], ["unfiltered", "base"]]
        usual = compared(run, pairs)["pairs"]["filtered_vs_base"]["benchmarks"]
        comparison = compared(run, pairs, **{"compare.interval": "tango"})
        found = comparison["pairs"]["filtered_vs_base"]["benchmarks"]
        assert (found["mgsm_direct"]["interval"], found["heldout"]["interval"]) == ("pseudo_pairs", "tango")
        same = ("low", "high", "p", "detectable")
        assert [found["mgsm_direct"][name] for name in same] == [usual["mgsm_direct"][name] for name in same]
        assert found["heldout"]["p"] < usual["heldout"]["p"]
        assert sentences(comparison) == [
            "compare.interval: Tango's interval needs independent pairs, and the 440 questions of mgsm_direct repeat "
            "40 problems: pseudo_pairs stands there instead"
        ]
        assert sentences(comparison)[0] in caplog.text

    def test_questions_are_paired_by_their_name_whatever_their_order(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        answers = scores("1100")
        run = arms(answers, answers, dict(reversed(answers.items())))
        (pair,) = compared(run, [["filtered", "unfiltered"]])["pairs"].values()
        found = pair["benchmarks"]["heldout"]
        assert (found["only_first"], found["only_second"], found["n"]) == (0, 0, 4)

    @pytest.mark.parametrize(
        ("there", "pairs"),
        [
            (["base"], []),
            (["base", "s1k"], ["s1k base"]),
            (["base", "filtered"], ["filtered base"]),
            (
                ["base", "unfiltered", "filtered", "control"],
                ["unfiltered base", "filtered base", "control base", "filtered unfiltered", "filtered control"],
            ),
            (["base", "filtered", "polished"], ["filtered base", "polished base", "polished filtered"]),
        ],
    )
    def test_where_params_name_no_pairs_the_usual_ones_are_compared(self, there: list[str], pairs: list[str]) -> None:
        assert default_pairs(there, {"polished": "filtered"}) == [pair.split() for pair in pairs]

    def test_no_pairs_named_is_another_thing_than_none_wanted(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        assert list(compared(run)["pairs"]) == ["unfiltered_vs_base", "filtered_vs_base", "filtered_vs_unfiltered"]
        assert compared(run, [])["pairs"] == {}
        assert run.table == []


class TestArms:
    """What stands of each arm."""

    def test_each_arm_stands_with_its_scores_its_audit_its_prompt_and_its_training(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        comparison = compared(arms(scores("1000"), scores("1110"), scores("1100")))
        assert list(comparison["arms"]) == ["base", "unfiltered", "filtered"]
        filtered = comparison["arms"]["filtered"]
        found = filtered["benchmarks"]["heldout"]
        assert (found["value"], found["correct"], found["n"]) == (0.75, 3, 4)
        assert (found["headline"], found["verifier"], found["lm_eval"], found["differ"]) == ("verifier", 0.75, 0.125, 1)
        assert (found["if_unsure_wrong"], found["if_unsure_right"]) == (0.75, 0.85)
        assert {name: found[name] for name in AUDIT} == AUDIT
        assert found["low"] < found["value"] < found["high"]
        assert (filtered["system_prompt"], filtered["training"]) == ("brief", TRAINING)
        assert comparison["arms"]["base"]["training"] is None

    def test_a_score_that_is_no_share_of_right_answers_is_marked(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        facts = {"system_prompt": "brief", "settings": SETTINGS, "heldout": score(scores("10"), value=0.4321)}
        (run.folder / "eval" / "base.json").write_text(json.dumps(facts))
        (warning,) = sentences(compared(run, []))
        assert warning.startswith("base's score on heldout is 0.4321, its share of right answers 0.5000: ")

    def test_the_same_scores_give_the_same_bytes(self, arms: Callable[..., Run], compared: Compared) -> None:
        run = arms(scores("1000"), scores("1110"), scores("1100"))
        written = []
        for _ in range(2):
            compared(run)
            written.append([(run.folder / name).read_bytes() for name in ("compare.json", "compare.csv")])
        assert written[0] == written[1]


class TestNoise:
    """Beside a difference: what the same weights change by themselves, and by how much other trainings differ."""

    CHURN: ClassVar[dict[str, Any]] = {"batch_size": 7, "n": 50, "flipped": 2, "gained": 2, "lost": 0, "net": 0.04}

    def test_churn_of_both_arms_stands_beside_their_difference(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("10" * 50), scores("11" * 50), scores("10" * 50))
        for name, flipped in (("base", 0), ("filtered", 2)):
            path = run.folder / "eval" / f"{name}.json"
            facts = json.loads(path.read_text())
            facts["heldout"]["churn"] = self.CHURN | {"differ": 9, "flipped": flipped, "net": flipped / 50}
            path.write_text(json.dumps(facts))
        pairs = compared(run, [["filtered", "base"], ["unfiltered", "base"]])["pairs"]
        found = pairs["filtered_vs_base"]["benchmarks"]["heldout"]["churn"]
        assert found["first"] == {"batch_size": 7, "n": 50, "flipped": 2, "net": 0.04, "differ": 9}
        assert found["second"]["flipped"] == 0
        assert found["alone"] == 0.0392  # 1.96 · √(0.04 / 100)
        assert found["alone_at_most"] == 0.0889  # with 0.1346 and 0.0713, the upper ends for 2 and for 0 of 50
        assert pairs["unfiltered_vs_base"]["benchmarks"]["heldout"]["churn"] is None
        assert run.comparison["arms"]["filtered"]["benchmarks"]["heldout"]["churn"]["differ"] == 9
        table = comparison_table(Comparison.model_validate(run.comparison))
        assert "| flips | churn alone | p |" in table
        assert "| 2 of 50 (+4.0), 0 of 50 (+0.0) | ±3.9 (≤ 8.9) |" in table
        assert "| unfiltered − base | heldout | **+0.0** | −3.4 – +3.4 | – | – |" in table
        assert CHURN_NOTE in table

    def test_an_interval_over_trainings_stands_beside_a_difference_of_the_same_run(
        self, arms: Callable[..., Run], compared: Compared, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        run = arms(scores("1000"), scores("1110"), scores("1100"))
        own = {name: scores_hash(run.folder / "eval", name) for name in ("base", "filtered")}
        seeds = {"seeds": ["3", "4", "5"], "varied": ["train.seed"], "own": own, "questions": {"heldout": "the same"}}
        differences = {"filtered_vs_base": {"heldout": [0.09, 0.166, -0.005]}}
        (run.folder / "seeds.json").write_text(json.dumps(seeds | {"scores": {}, "differences": differences}))
        pairs = compared(run, [["filtered", "base"], ["unfiltered", "base"]])["pairs"]
        found = pairs["filtered_vs_base"]["benchmarks"]["heldout"]
        # scipy.stats.t.interval(0.95, 2, 0.083667, 0.085676 / 3**0.5)
        assert {name: found["trainings"][name] for name in ("mean", "low", "high")} == {
            "mean": 0.0837,
            "low": -0.1292,
            "high": 0.2965,
        }
        assert (found["trainings"]["seeds"], found["trainings"]["questions"]) == (["3", "4", "5"], "the same")
        assert pairs["unfiltered_vs_base"]["benchmarks"]["heldout"]["trainings"] is None
        table = comparison_table(Comparison.model_validate(run.comparison))
        assert "| over trainings | p |" in table
        assert "| +8.4, −12.9 – +29.6 (3 seeds) |" in table
        assert TRAININGS_NOTE in table
        assert "of another run" not in caplog.text
        equal = {"filtered_vs_base": {"heldout": [0.25, 0.25, 0.25]}}
        for questions, said in (("the same", "no spread seen"), ("drawn again", "≥ −100.0 – +100.0")):
            drawn = {"questions": {"heldout": questions}, "scores": {}, "differences": equal}
            (run.folder / "seeds.json").write_text(json.dumps(seeds | drawn))
            compared(run, [["filtered", "base"]])
            assert f"| +25.0, {said} (3 seeds) |" in comparison_table(Comparison.model_validate(run.comparison))
        run.arm("filtered", {"heldout": scores("1101")})
        other = compared(run, [["filtered", "base"]])
        assert other["pairs"]["filtered_vs_base"]["benchmarks"]["heldout"]["trainings"] is None
        assert f"compare: filtered − base: {run.folder / 'seeds.json'} is of another run ('make seeds')" in caplog.text

    def test_a_broken_file_of_seeds_is_named(
        self, arms: Callable[..., Run], project_params: Callable[..., Path], refuses: Callable[..., str]
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        (run.folder / "seeds.json").write_text('{"seeds": "3"}')
        line = refuses(main, *run.arguments, "--params", project_params())
        assert line.startswith(f"{run.folder / 'seeds.json'}: seeds: ")
        assert "Run 'make seeds' to rebuild it" in line


class TestUnlikeArms:
    """Warnings where arms differ in more than what is compared."""

    PAIRS: ClassVar[list[list[str]]] = [["filtered", "unfiltered"], ["filtered", "base"]]

    @pytest.mark.parametrize(
        ("filtered", "unfiltered", "warning"),
        [
            ({}, {}, None),
            ({"steps": 100}, {"steps": 98}, None),
            (
                {"steps": 100},
                {"steps": 97},
                "filtered was trained for 100 steps on 900 tokens, unfiltered for 97 on 900: ",
            ),
            ({"tokens_trained": 1000}, {"tokens_trained": 950}, None),
            (
                {"tokens_trained": 1000},
                {"tokens_trained": 949},
                "filtered was trained for 32 steps on 1,000 tokens, unfiltered for 32 on 949: ",
            ),
            ({"rows_too_long": 2}, {}, "over cutoff_len: 2 rows of filtered were left out, 0 of unfiltered"),
            ({}, {"rows_shortened": 3}, "over cutoff_len: 0 rows of filtered were shortened, 3 of unfiltered"),
        ],
    )
    def test_trainings_that_differ_in_more_than_the_data_are_marked(
        self,
        filtered: dict[str, int],
        unfiltered: dict[str, int],
        warning: str | None,
        arms: Callable[..., Run],
        compared: Compared,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        run.training("filtered", **filtered)
        run.training("unfiltered", **unfiltered)
        warnings = sentences(compared(run, self.PAIRS))
        assert [each[: len(warning or "")] for each in warnings] == ([warning] if warning else [])
        assert [record.levelname for record in caplog.records if record.levelname == "WARNING"] == ["WARNING"] * len(
            warnings
        )

    def test_an_on_policy_arms_own_tokens_its_teachers_and_those_of_its_start_are_counted(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        seen = {"prompts": 64, "tokens_prompted": 3000, "tokens_rolled_out": 2500, "tokens_of_teacher": 15500}
        run.training(
            "filtered",
            steps=16,
            tokens_trained=2500,
            start_from="unfiltered",
            on_policy=seen | {"share_cut_off": 0.1, "tokens_scored": 2500},
        )
        assert sentences(compared(run, [["filtered", "unfiltered"]])) == [
            "unlike compute: the difference of filtered and unfiltered is not the method's alone",
            "compute: filtered, which was unfiltered before, was trained for 16 steps on 2,500 tokens that it rolled "
            "out itself; 5,500 went through it to write them and again to train, and 15,500 through its teacher",
            "compute: unfiltered was trained for 32 steps on 900 tokens",
        ]

    def test_arms_that_were_asked_with_unlike_prompts_are_marked(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        run.arm("base", {"heldout": scores("10")}, system_prompt=None)
        (warning,) = sentences(compared(run, self.PAIRS))
        assert warning.startswith("filtered was asked with the system text 'brief', base with no system text: ")
        (chinese,) = sentences(compared(run, self.PAIRS), "zh")
        assert chinese == "filtered 评测时用了系统提示“brief”，base 没有系统提示：差异不全来自训练"

    @pytest.mark.parametrize(
        ("settings", "warning"),
        [
            ({}, None),
            ({"backend": "vllm"}, "unlike backend in the evaluation: hf (base, unfiltered), vllm (filtered). "),
            ({"batch_size": 8}, "unlike batch_size in the evaluation: 50 (base, unfiltered), 8 (filtered). "),
            ({"limit": 100}, "unlike limit in the evaluation: null (base, unfiltered), 100 (filtered). "),
            ({"dtype": "bfloat16"}, "unlike dtype in the evaluation: – (base, unfiltered), bfloat16 (filt"),
            ({"versions": {"torch": "2.14.0"}}, "unlike versions.torch in the evaluation: 2.13.0 (base, unfilter"),
        ],
    )
    def test_arms_that_were_asked_in_unlike_ways_are_marked_though_they_are_no_pair(
        self, settings: dict[str, Any], warning: str | None, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        run.arm("filtered", {"heldout": scores("11")}, **settings)
        for pairs in ([], self.PAIRS):
            warnings = sentences(compared(run, pairs))
            assert [each[: len(warning or "")] for each in warnings] == ([warning] if warning else [])

    def test_a_difference_that_unsure_answers_could_undo_is_marked(self, tmp_path: Path, compared: Compared) -> None:
        run = Run(tmp_path)
        for name, right, unsure in (("base", 40, 0.3), ("filtered", 60, 0.0), ("unfiltered", 60, 0.1)):
            answers = scores("1" * right + "0" * (100 - right))
            run.arm(name, {"heldout": answers})
            facts = score(answers, if_unsure_right=round(right / 100 + unsure, 4))
            how = {"system_prompt": "brief", "settings": SETTINGS}
            (run.folder / "eval" / f"{name}.json").write_text(json.dumps(how | {"heldout": facts}))
        comparison = compared(run, [["filtered", "base"], ["filtered", "unfiltered"]])
        found = {name: pair["benchmarks"]["heldout"] for name, pair in comparison["pairs"].items()}
        assert (found["filtered_vs_base"]["if_unsure_low"], found["filtered_vs_base"]["if_unsure_high"]) == (-0.1, 0.2)
        assert (found["filtered_vs_unfiltered"]["if_unsure_low"], found["filtered_vs_unfiltered"]["finding"]) == (
            -0.1,
            "no detectable difference",
        )
        assert [row["if_unsure_low"] for row in run.table] == ["-0.1", "-0.1"]
        assert sentences(comparison) == [
            "filtered − base on heldout is better, but the verifier's unsure answers leave anything from −10.0 to "
            "+20.0 points: read the examples of the kind 'unread'"
        ]

    def test_where_lm_eval_s_score_is_compared_unsure_answers_undo_nothing(
        self, tmp_path: Path, compared: Compared
    ) -> None:
        run = Run(tmp_path)
        for name, right in (("base", 40), ("filtered", 60), ("unfiltered", 60)):
            answers = scores("1" * right + "0" * (100 - right))
            run.arm(name, {"heldout": answers})
            facts = score(answers, headline="lm_eval", lm_eval=right / 100, if_unsure_right=1.0)
            how = {"system_prompt": "brief", "settings": SETTINGS}
            (run.folder / "eval" / f"{name}.json").write_text(json.dumps(how | {"heldout": facts}))
        comparison = compared(run, [["filtered", "base"]])
        assert comparison["pairs"]["filtered_vs_base"]["benchmarks"]["heldout"]["if_unsure_low"] is None
        assert comparison["warnings"] == []


class TestPlots:
    """metrics/compare.csv, for ``dvc plots``."""

    def test_each_pair_and_benchmark_is_a_row_of_what_the_comparison_says(
        self, arms: Callable[..., Run], compared: Compared
    ) -> None:
        run = arms(scores("1000"), scores("1110"), scores("1100"))
        pairs = list(compared(run)["pairs"].values())
        assert len(run.table) == len(pairs) == 3
        for row, pair in zip(run.table, pairs, strict=True):
            assert (row.pop("pair"), row.pop("benchmark")) == (f"{pair['first']} − {pair['second']}", "heldout")
            assert row == {name: str(pair["benchmarks"]["heldout"][name]) for name in row}

    @pytest.mark.heavy
    def test_dvc_draws_each_row_with_its_interval(
        self, arms: Callable[..., Run], compared: Compared, tmp_path: Path
    ) -> None:
        run = arms(scores("1000"), scores("1110"), scores("1100"))
        compared(run)
        plots = re.search(r"^ +- (metrics/compare\.csv: .*)$", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)
        assert plots
        project = tmp_path / "project"
        (project / "metrics").mkdir(parents=True)
        shutil.copy(run.folder / "compare.csv", project / "metrics")
        (project / "dvc.yaml").write_text(f"stages:\n  compare:\n    cmd: 'true'\n    plots:\n      - {plots[1]}\n")
        dvc = [sys.executable, "-m", "dvc"]
        subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=project, check=True)
        shutil.copytree(ROOT / ".dvc" / "plots", project / ".dvc" / "plots")
        shown = subprocess.run(
            [*dvc, "plots", "show", "metrics/compare.csv", "--show-vega"],
            cwd=project,
            check=True,
            capture_output=True,
            text=True,
        )
        plot = json.loads(shown.stdout)
        assert [row["pair"] for row in plot["data"]["values"]] == [row["pair"] for row in run.table]
        fields = set(re.findall(r'"field": "(\w+)"', json.dumps(plot["spec"]) + json.dumps(plot["facet"])))
        assert {"pair", "benchmark", "difference", "low", "high"} <= fields
        assert fields <= {*run.table[0], "rev"}
        assert "DVC_METRIC" not in shown.stdout


class TestRefused:
    """Files that cannot be compared."""

    @pytest.mark.parametrize("other", ["111", "1"], ids=["one more", "one less"])
    def test_arms_that_were_asked_different_questions_are_not_compared(
        self,
        other: str,
        arms: Callable[..., Run],
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
    ) -> None:
        run = arms(scores("10"), scores("11"), scores(other))
        line = refuses(main, *run.arguments, "--params", project_params())
        assert line.startswith("compare.pairs: 'unfiltered' and 'base' were not asked the same questions. ")
        assert not (run.folder / "compare.json").exists()
        assert not (run.folder / "compare.csv").exists()

    @pytest.mark.parametrize(
        ("file", "content", "complaint"),
        [
            ("eval/base.scores.csv", None, ": no such file. Run 'dvc repro evaluate-base evaluate'"),
            ("eval/base.scores.csv", b"", ": not a table of scores. "),
            ("eval/base.scores.csv", b"question_id,benchmark\nq0,heldout\n", ": not a table of scores. "),
            ("eval/base.scores.csv", "question_id,问\n".encode("gb18030"), ": not a table of scores ("),
            ("eval/base.scores.csv", b"question_id,benchmark,cluster,correct\nq0,heldout,q0,yes\n", ":2: 'heldout/q0'"),
            ("eval/base.scores.csv", b"question_id,benchmark,cluster,correct\nq0,heldout,q0\n", ":2: 'heldout/q0'"),
            (
                "eval/base.scores.csv",
                b"question_id,benchmark,cluster,correct\nq0,heldout,q0,1\nq0,heldout,q0,0\n",
                ":3: 'heldout/q0' is there already",
            ),
            ("eval/base.json", None, ": no such file. Run 'dvc repro evaluate-base evaluate'"),
            ("eval/base.json", b'{"heldout": {}}', ": system_prompt: Field required. "),
            ("eval/base.json", b'{"system_prompt": null}', ": settings: Field required. "),
            (
                "eval/base.json",
                b'{"system_prompt": null, "settings": {}}',
                ": it does not score the benchmarks of base.scores.csv. ",
            ),
            (
                "eval/base.json",
                b'{"system_prompt": null, "settings": {}, "heldout": {"headline": "verifier", "n": 2}}',
                ": heldout.value: Field required. ",
            ),
            (
                "eval/base.json",
                b'{"system_prompt": null, "settings": {}, "heldout": {"headline": "verifier", "value": 0.5, "n": 3}}',
                ": heldout: n is 3; base.scores.csv has 2. ",
            ),
            ("train/filtered.json", None, ": no such file. Run 'dvc repro train'"),
            ("train/filtered.json", b'{"rows": 4', ": not JSON ("),
            (
                "train/filtered.json",
                b'{"rows": 4, "rows_shortened": 0, "rows_too_long": 0, "epochs": 1.0, "tokens_trained": 9}',
                ": steps: Field required. ",
            ),
            ("train/filtered.json", b"[]", ": "),
        ],
    )
    def test_a_bad_file_of_scores_or_of_a_training_is_named(
        self,
        file: str,
        content: bytes | None,
        complaint: str,
        arms: Callable[..., Run],
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
    ) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        if content is None:
            (run.folder / file).unlink()
        else:
            (run.folder / file).write_bytes(content)
        line = refuses(main, *run.arguments, "--params", project_params())
        assert line.startswith(f"{run.folder / file}{complaint}")
        assert not (run.folder / "compare.json").exists()

    def test_an_output_without_space_is_named(
        self, arms: Callable[..., Run], project_params: Callable[..., Path], refuses: Callable[..., str]
    ) -> None:
        if not Path("/dev/full").is_char_device():
            pytest.skip("this system has no /dev/full")
        run = arms(scores("10"), scores("11"), scores("11"))
        (run.folder / "compare.csv").symlink_to("/dev/full")
        line = refuses(main, *run.arguments, "--params", project_params())
        assert line.startswith(f"{run.folder / 'compare.csv'}: No space left on device. ")
        assert Path("/dev/full").is_char_device()


class TestTable:
    """The comparison as Markdown."""

    SCORE: ClassVar[dict[str, Any]] = {"headline": "verifier", "n": 200, "correct": 9, "differ": 3, "lm_eval": 0.04} | {
        "tokens_median": 52.0,
        "tokens_p95": 110.5,
        "cut_off": 0.03,
    }
    DIFFERENCE: ClassVar[dict[str, Any]] = {"only_first": 65, "only_second": 2, "n": 200, "clusters": 200}
    COMPARISON = Comparison.model_validate(
        {
            "confidence": 0.95,
            "arms": {
                "base": {
                    "training": None,
                    "system_prompt": None,
                    "benchmarks": {
                        "heldout": SCORE
                        | {"value": 0.045, "low": 0.0241, "high": 0.0835, "verifier": 0.045}
                        | {"if_unsure_wrong": 0.045, "if_unsure_right": 0.07},
                        "mmlu": {"headline": "lm_eval", "n": 50, "correct": 20, "lm_eval": 0.4}
                        | {"value": 0.4, "low": 0.27, "high": 0.54},
                    },
                },
                "filtered": {
                    "training": TRAINING | {"rows": 85, "steps": 22},
                    "system_prompt": "brief",
                    "benchmarks": {"heldout": SCORE | {"value": 0.36, "low": 0.2965, "high": 0.4287, "verifier": 0.36}},
                },
            },
            "pairs": {
                "filtered_vs_base": {
                    "first": "filtered",
                    "second": "base",
                    "benchmarks": {
                        "heldout": DIFFERENCE
                        | {"difference": 0.315, "low": 0.2439, "high": 0.3792, "p": 0.0, "p_holm": 0.0}
                        | {"detectable": 0.0912, "finding": "better", "interval": "tango", "mcnemar_p": 0.0123},
                        "gsm8k": DIFFERENCE
                        | {"difference": -0.02, "low": -0.0503, "high": 0.0107, "p": 0.204, "p_holm": 0.408}
                        | {"detectable": None, "finding": "no detectable difference"},
                    },
                },
            },
            "warnings": [],
        }
    )

    def test_every_figure_stands_in_its_row(self) -> None:
        assert comparison_table(self.COMPARISON).splitlines() == [
            "| benchmark | arm | rows | steps | score | 95 % interval | n | lm-eval | verifier "
            "| if unsure wrong – right |",
            "|---|---|---|---|---|---|---|---|---|---|",
            "| heldout | base | – | – | **4.5 %** | 2.4 – 8.3 | 200 | 4.0 | 4.5 | 4.5 – 7.0 |",
            "| heldout | filtered | 85 | 22 | **36.0 %** | 29.6 – 42.9 | 200 | 4.0 | 36.0 | – |",
            "| mmlu | base | – | – | **40.0 %** | 27.0 – 54.0 | 50 | 40.0 | – | – |",
            "",
            "System text: none (base), brief (filtered). The score is the verifier's (heldout), lm-eval's (mmlu). "
            + UNSURE,
            "",
            "| paired difference | benchmark | points | 95 % interval | p | exact p (McNemar) | p (Holm) | detectable "
            "| finding |",
            "|---|---|---|---|---|---|---|---|---|",
            "| filtered − base | heldout | **+31.5** | +24.4 – +37.9 | < 0.001 | 0.012 | < 0.001 | 9.1 | better |",
            "| filtered − base | gsm8k | **−2.0** | −5.0 – +1.1 | 0.204 | – | 0.408 | – | no detectable difference |",
            "",
            "Interval and p of a difference: Tango's score interval and the score test that it inverts (heldout), "
            f"Student's t after pseudo-pairs were added (gsm8k). {MCNEMAR} {CAVEAT}",
        ]

    def test_without_pairs_no_method_is_named(self) -> None:
        assert caveat(self.COMPARISON.model_copy(update={"pairs": {}})) == CAVEAT

    def test_the_audit_has_a_row_where_an_answer_was_generated(self) -> None:
        assert audit_table(self.COMPARISON).splitlines()[2:] == [
            "| heldout | base | 3 | 3.0 % | – | – | – | – | – | 52 | 110.5 |",
            "| heldout | filtered | 3 | 3.0 % | – | – | – | – | – | 52 | 110.5 |",
        ]

    def test_every_line_of_a_table_has_as_many_cells_as_its_head(self) -> None:
        for table in [*comparison_table(self.COMPARISON).split("\n\n"), audit_table(self.COMPARISON)]:
            assert len({len(re.findall(r"\|", line)) for line in table.splitlines()}) == 1

    def test_what_is_printed_holds_the_warnings_too(self, arms: Callable[..., Run], compared: Compared) -> None:
        run = arms(scores("10"), scores("11"), scores("11"))
        run.arm("base", {"heldout": scores("10")}, system_prompt=None)
        warnings = sentences(compared(run))
        printed = subprocess.run(
            [sys.executable, "-m", "stages.lib.comparison.table", run.folder / "compare.json"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert len(warnings) == 2
        assert all(f"* {warning}\n" in printed for warning in warnings)
        assert "| filtered − base | heldout | **+50.0** |" in printed
        assert "| heldout | filtered | 1 | 25.0 % |" in printed
