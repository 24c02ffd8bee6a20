"""compare: the figures against ones worked out by hand, the finding's words, and what makes arms unlike."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar

import pytest
from click.testing import Result

from stages.compare import main
from stages.lib.evaluation.statistics import paired_difference, proportion
from stages.lib.evaluation.table import CAVEAT, comparison_table

Answers = dict[str, str]


def from_cells(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """The answers of two arms from the four cells of their 2 × 2 table."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


class TestPairedDifference:
    """Two arms on the same questions."""

    def test_a_table_worked_out_by_hand(self) -> None:
        # 20 only the first, 5 only the second, of 100. With half a pair more in each cell: 20.5, 5.5, of 102.
        # mean = 15 / 102 = 0.14706; standard error = sqrt(26 - 15² / 102) / 102 = 0.04782; 1.96 of them = 0.09372
        result = paired_difference(*from_cells(50, 20, 5, 25), 0.95)
        assert (result.only_first, result.only_second, result.n) == (20, 5, 100)
        assert result.difference == pytest.approx(0.15)
        assert result.low == pytest.approx(0.0533, abs=0.001)
        assert result.high == pytest.approx(0.2408, abs=0.001)
        assert result.p == pytest.approx(0.0021, abs=0.0002)

    def test_only_the_discordant_pairs_count(self) -> None:
        assert paired_difference(*from_cells(75, 20, 5, 0), 0.95) == paired_difference(*from_cells(0, 20, 5, 75), 0.95)

    def test_swapping_the_arms_turns_the_sign(self) -> None:
        one = paired_difference(*from_cells(50, 20, 5, 25), 0.95)
        other = paired_difference(*from_cells(50, 5, 20, 25), 0.95)
        assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))
        assert other.p == pytest.approx(one.p)

    def test_three_against_none_of_a_hundred_is_no_detectable_difference(self) -> None:
        result = paired_difference(*from_cells(50, 3, 0, 47), 0.95)
        assert result.low < 0 < result.high
        assert result.p > 0.05

    def test_arms_that_never_differ_have_an_interval_around_zero(self) -> None:
        result = paired_difference(*from_cells(60, 0, 0, 40), 0.95)
        assert result.difference == 0
        assert result.low < 0 < result.high
        assert result.p == pytest.approx(1)

    @pytest.mark.parametrize("only_first", range(0, 31, 3))
    @pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
    def test_the_interval_leaves_zero_out_just_where_p_says_so(self, only_first: int, confidence: float) -> None:
        result = paired_difference(*from_cells(40, only_first, 8, 52 - only_first), confidence)
        assert (result.low > 0 or result.high < 0) == (result.p < 1 - confidence)

    def test_the_interval_and_p_come_from_the_same_estimate(self) -> None:
        result = paired_difference(*from_cells(50, 20, 5, 25), 0.95)
        middle, half = (result.low + result.high) / 2, (result.high - result.low) / 2
        z = middle / (half / NormalDist().inv_cdf(0.975))
        assert result.p == pytest.approx(2 * (1 - NormalDist().cdf(z)))

    def test_more_confidence_makes_a_wider_interval(self) -> None:
        narrow, wide = (paired_difference(*from_cells(50, 20, 5, 25), share) for share in (0.9, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_arms_of_different_length_cannot_be_paired(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            paired_difference([True, False], [True], 0.95)


class TestProportion:
    """One arm."""

    def test_a_wilson_interval_worked_out_by_hand(self) -> None:
        # 36 of 100: (0.36 + z²/200 ± z · sqrt(0.36 · 0.64 / 100 + z²/40000)) / (1 + z²/100), z = 1.96
        result = proportion([True] * 36 + [False] * 64, 0.95)
        assert (result.accuracy, result.correct, result.n) == (0.36, 36, 100)
        assert result.low == pytest.approx(0.2727, abs=0.0001)
        assert result.high == pytest.approx(0.4576, abs=0.0001)

    @pytest.mark.parametrize("correct", [0, 20])
    def test_an_interval_stays_between_nothing_and_everything_and_has_a_width(self, correct: int) -> None:
        result = proportion([True] * correct + [False] * (20 - correct), 0.95)
        assert 0 <= result.low < result.high <= 1


def scores(right: str) -> Answers:
    """``"110"``: three questions, the first two answered right."""
    return {f"q{index}": correct for index, correct in enumerate(right)}


class TestCompare:
    """The stage."""

    @pytest.fixture
    def arms(self, tmp_path: Path) -> Callable[..., list[object]]:
        """Write the metrics of the arms; return the stage's arguments without ``--params``."""

        def write(
            base: Answers, filtered: Answers, unfiltered: Answers, steps: tuple[int, int] = (32, 32)
        ) -> list[object]:
            for folder in ("eval", "train"):
                (tmp_path / folder).mkdir(exist_ok=True)
            for name, answers in (("base", base), ("filtered", filtered), ("unfiltered", unfiltered)):
                lines = [f"{key},heldout,{key},{correct}\n" for key, correct in answers.items()]
                text = "question_id,benchmark,cluster,correct\n" + "".join(lines)
                (tmp_path / "eval" / f"{name}.scores.csv").write_text(text)
            for name, count in zip(("filtered", "unfiltered"), steps, strict=True):
                facts = {"rows": count * 4, "steps": count, "epochs": 1.0, "tokens_trained": 900, "rows_too_long": 0}
                (tmp_path / "train" / f"{name}.json").write_text(json.dumps(facts))
            return [
                *("--eval", tmp_path / "eval", "--train", tmp_path / "train"),
                *("--out", tmp_path / "compare.json", "--table", tmp_path / "compare.csv"),
            ]

        return write

    def test_the_finding_is_in_words_that_the_interval_bears(
        self,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        tmp_path: Path,
    ) -> None:
        few, many = scores("1" * 10 + "0" * 90), scores("1" * 60 + "0" * 40)
        many_and_3 = scores("1" * 63 + "0" * 37)
        changes = {"compare.pairs": [["filtered", "base"], ["base", "filtered"], ["unfiltered", "filtered"]]}
        runs(main, *arms(few, many, many_and_3), "--params", project_params(changes))
        pairs = json.loads((tmp_path / "compare.json").read_bytes())["pairs"]
        assert {name: pair["finding"] for name, pair in pairs.items()} == {
            "filtered_vs_base": "better",
            "base_vs_filtered": "worse",
            "unfiltered_vs_filtered": "no detectable difference",
        }
        assert pairs["filtered_vs_base"]["low"] > 0
        assert pairs["base_vs_filtered"]["high"] < 0
        assert pairs["unfiltered_vs_filtered"]["low"] < 0 < pairs["unfiltered_vs_filtered"]["high"]

    def test_questions_are_paired_by_their_name_whatever_their_order(
        self,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        tmp_path: Path,
    ) -> None:
        answers = scores("1100")
        turned = dict(reversed(answers.items()))
        changes = {"compare.pairs": [["filtered", "unfiltered"]]}
        runs(main, *arms(answers, answers, turned), "--params", project_params(changes))
        (pair,) = json.loads((tmp_path / "compare.json").read_bytes())["pairs"].values()
        assert (pair["only_first"], pair["only_second"], pair["n"]) == (0, 0, 4)

    def test_each_arm_stands_with_its_accuracy_and_its_training(
        self,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        tmp_path: Path,
    ) -> None:
        runs(main, *arms(scores("1000"), scores("1110"), scores("1100")), "--params", project_params())
        comparison = json.loads((tmp_path / "compare.json").read_bytes())
        assert list(comparison["arms"]) == ["base", "unfiltered", "filtered"]
        filtered = comparison["arms"]["filtered"]
        assert (filtered["accuracy"], filtered["correct"], filtered["n"]) == (0.75, 3, 4)
        assert (filtered["rows"], filtered["steps"], filtered["tokens_trained"]) == (128, 32, 900)
        assert "steps" not in comparison["arms"]["base"]
        assert filtered["low"] < filtered["accuracy"] < filtered["high"]

    def test_the_table_for_plots_holds_what_the_comparison_says(
        self,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        tmp_path: Path,
    ) -> None:
        runs(main, *arms(scores("1000"), scores("1110"), scores("1100")), "--params", project_params())
        pairs = list(json.loads((tmp_path / "compare.json").read_bytes())["pairs"].values())
        with (tmp_path / "compare.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(pairs) == 3
        for line, pair in zip(lines, pairs, strict=True):
            assert line == {name: str(pair[name]) for name in line}

    def test_the_same_scores_give_the_same_bytes(
        self,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        tmp_path: Path,
    ) -> None:
        arguments = [*arms(scores("1000"), scores("1110"), scores("1100")), "--params", project_params()]
        runs(main, *arguments)
        first = (tmp_path / "compare.json").read_bytes(), (tmp_path / "compare.csv").read_bytes()
        runs(main, *arguments)
        assert first == ((tmp_path / "compare.json").read_bytes(), (tmp_path / "compare.csv").read_bytes())

    @pytest.mark.parametrize(("steps", "warned"), [((32, 21), True), ((100, 98), False), ((100, 97), True)])
    def test_arms_of_unlike_steps_are_marked(
        self,
        steps: tuple[int, int],
        warned: bool,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        runs: Callable[..., Result],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        params = project_params({"compare.pairs": [["filtered", "unfiltered"], ["filtered", "base"]]})
        runs(main, *arms(scores("10"), scores("11"), scores("11"), steps), "--params", params)
        warnings = json.loads((tmp_path / "compare.json").read_bytes())["warnings"]
        sentence = f"filtered was trained for {steps[0]} steps, unfiltered for {steps[1]}: "
        assert [warning.startswith(sentence) for warning in warnings] == [True] * warned
        assert [record.levelname for record in caplog.records if "steps" in record.message] == ["WARNING"] * warned

    @pytest.mark.parametrize("other", ["111", "1"], ids=["one more", "one less"])
    def test_arms_that_were_asked_different_questions_are_not_compared(
        self,
        other: str,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
        tmp_path: Path,
    ) -> None:
        line = refuses(main, *arms(scores("10"), scores("11"), scores(other)), "--params", project_params())
        assert line.startswith("compare.pairs: 'unfiltered' and 'base' were not asked the same questions. ")
        assert not (tmp_path / "compare.json").exists()
        assert not (tmp_path / "compare.csv").exists()

    @pytest.mark.parametrize(
        ("file", "content", "complaint"),
        [
            ("eval/base.scores.csv", None, ": no such file. Run 'dvc repro evaluate'"),
            ("eval/base.scores.csv", b"", ": not a table of scores with at least one row. "),
            ("eval/base.scores.csv", b"question_id,benchmark,cluster,correct\n", ": not a table of scores with"),
            ("eval/base.scores.csv", b"question_id,benchmark\nq0,heldout\n", ": not a table of scores with"),
            ("eval/base.scores.csv", "question_id,问\n".encode("gb18030"), ": not a table of scores ("),
            ("eval/base.scores.csv", b"question_id,benchmark,cluster,correct\nq0,heldout,q0,yes\n", ":2: 'heldout/q0'"),
            ("eval/base.scores.csv", b"question_id,benchmark,cluster,correct\nq0,heldout,q0\n", ":2: 'heldout/q0'"),
            (
                "eval/base.scores.csv",
                b"question_id,benchmark,cluster,correct\nq0,heldout,q0,1\nq0,heldout,q0,0\n",
                ":3: 'heldout/q0' is there already",
            ),
            ("train/filtered.json", None, ": no such file. Run 'dvc repro train'"),
            ("train/filtered.json", b'{"rows": 4', ": not JSON ("),
            (
                "train/filtered.json",
                b'{"rows": 4, "rows_too_long": 0, "epochs": 1.0, "tokens_trained": 9}',
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
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
        tmp_path: Path,
    ) -> None:
        arguments = arms(scores("10"), scores("11"), scores("11"))
        if content is None:
            (tmp_path / file).unlink()
        else:
            (tmp_path / file).write_bytes(content)
        line = refuses(main, *arguments, "--params", project_params())
        assert line.startswith(f"{tmp_path / file}{complaint}")
        assert not (tmp_path / "compare.json").exists()

    def test_an_output_without_space_is_named(
        self,
        arms: Callable[..., list[object]],
        project_params: Callable[..., Path],
        refuses: Callable[..., str],
        tmp_path: Path,
    ) -> None:
        if not Path("/dev/full").is_char_device():
            pytest.skip("this system has no /dev/full")
        arguments = arms(scores("10"), scores("11"), scores("11"))
        (tmp_path / "compare.csv").symlink_to("/dev/full")
        line = refuses(main, *arguments, "--params", project_params())
        assert line.startswith(f"{tmp_path / 'compare.csv'}: No space left on device. ")
        assert Path("/dev/full").is_char_device()


class TestTable:
    """The comparison as Markdown."""

    COMPARISON: ClassVar[dict[str, Any]] = {
        "confidence": 0.95,
        "arms": {
            "base": {"accuracy": 0.045, "low": 0.0241, "high": 0.0835, "correct": 9, "n": 200},
            "filtered": {"accuracy": 0.36, "low": 0.2965, "high": 0.4287, "n": 200, "rows": 85, "steps": 22},
        },
        "pairs": {
            "filtered_vs_base": {
                "first": "filtered",
                "second": "base",
                "difference": 0.315,
                "low": 0.2439,
                "high": 0.3792,
                "p": 0.0,
                "finding": "better",
            },
            "base_vs_filtered": {
                "first": "base",
                "second": "filtered",
                "difference": -0.02,
                "low": -0.0503,
                "high": 0.0107,
                "p": 0.204,
                "finding": "no detectable difference",
            },
        },
    }

    def test_every_figure_stands_in_its_row(self) -> None:
        assert comparison_table(self.COMPARISON).splitlines() == [
            "| arm | rows | steps | accuracy | n | 95 % interval |",
            "|---|---|---|---|---|---|",
            "| base | – | – | **4.5 %** | 200 | 2.4 – 8.3 |",
            "| filtered | 85 | 22 | **36.0 %** | 200 | 29.6 – 42.9 |",
            "",
            "| paired difference | points | 95 % interval | p | finding |",
            "|---|---|---|---|---|",
            "| filtered − base | **+31.5** | +24.4 – +37.9 | < 0.001 | better |",
            "| base − filtered | **−2.0** | −5.0 – +1.1 | 0.204 | no detectable difference |",
            "",
            CAVEAT,
        ]

    def test_every_line_of_a_table_has_as_many_cells_as_its_head(self) -> None:
        for table in comparison_table(self.COMPARISON).split("\n\n"):
            assert len({len(re.findall(r"\|", line)) for line in table.splitlines()}) == 1
