"""Pseudo-pairs, Tango's interval and McNemar's tests: published figures, edges, and what docs/comparison.md says."""

import re
from itertools import product
from pathlib import Path

import pytest
from statsmodels.stats.contingency_tables import mcnemar

from benchmarks import intervals
from benchmarks.intervals import TABLES, AllTables, Pairs, compared
from benchmarks.measuring import table
from stages.lib.comparison.results import Interval
from stages.lib.statistics.paired import paired_difference
from stages.lib.statistics.two_by_two import mcnemar_exact_p, mcnemar_score_p, score_terms, tango_interval

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "comparison.md").read_text()


class TestTango:
    """The interval by itself."""

    @pytest.mark.parametrize(
        ("only_first", "only_second", "n", "confidence", "published", "digits"),
        [
            # Tango (1998), the two examples, as the tests of the R package ratesci have them
            (9, 3, 32, 0.95, (-0.027, 0.390), 3),
            (0, 1, 44, 0.90, (-0.096, 0.037), 3),
            # Agresti and Min (2005), likewise
            (16, 8, 86, 0.95, (-0.020, 0.207), 3),
            # Fagerland, Lydersen and Laake (2014), airway hyper-responsiveness (Bentur et al. 2009), likewise
            (1, 7, 21, 0.95, (-0.517, -0.026), 3),
            # their R package contingencytables, complete response (Cavo et al. 2012)
            (6, 16, 161, 0.95, (-0.1240, -0.0054), 4),
        ],
    )
    def test_it_is_the_published_one(
        self,
        only_first: int,
        only_second: int,
        n: int,
        confidence: float,
        published: tuple[float, float],
        digits: int,
    ) -> None:
        low, high = tango_interval(only_first, only_second, n, confidence)
        assert (round(low, digits), round(high, digits)) == published

    @pytest.mark.parametrize("n", [1, 5, 100, 14042])
    @pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
    def test_tables_at_the_edge_have_the_intervals_that_algebra_gives(self, n: int, confidence: float) -> None:
        # no discordant pair: ± z² / (n + z²); all to one arm: (n - z²) / (n + z²) to 1
        square = {0.9: 1.6448536**2, 0.95: 1.9599640**2, 0.99: 2.5758293**2}[confidence]
        half = square / (n + square)
        assert tango_interval(0, 0, n, confidence) == pytest.approx((-half, half), abs=1e-6)
        assert tango_interval(n, 0, n, confidence) == pytest.approx(((n - square) / (n + square), 1), abs=1e-6)
        assert tango_interval(0, n, n, confidence) == pytest.approx((-1, (square - n) / (n + square)), abs=1e-6)

    def test_every_table_of_a_few_pairs_has_an_interval_around_its_difference_and_the_mirrored_one(self) -> None:
        for n, only_first, only_second in product((1, 2, 7, 20), range(21), range(21)):
            if only_first + only_second <= n:
                low, high = tango_interval(only_first, only_second, n, 0.95)
                assert -1 <= low <= (only_first - only_second) / n <= high <= 1
                assert low < high
                mirrored = tango_interval(only_second, only_first, n, 0.95)
                assert mirrored == pytest.approx((-high, -low), abs=1e-9)

    @pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
    def test_it_leaves_zero_out_just_where_p_says_so(self, confidence: float) -> None:
        for n, only_first, only_second in product((40, 100), range(21), range(20)):
            low, high = tango_interval(only_first, only_second, n, confidence)
            p = mcnemar_score_p(only_first, only_second)
            assert (low > 0 or high < 0) == (p < 1 - confidence), (only_first, only_second)

    def test_at_a_difference_of_zero_its_test_is_mcnemar_s(self) -> None:
        for only_first, only_second in ((1, 0), (9, 3), (150, 86)):
            distance, variance = score_terms(only_first, only_second, 1600, 0.0)
            published = mcnemar([[0, only_first], [only_second, 0]], exact=False, correction=False)
            assert distance**2 / variance == pytest.approx(published.statistic)


class TestMcNemar:
    """The tests of statsmodels, where a table has no discordant pair too."""

    def test_the_exact_p_is_the_published_one(self) -> None:
        # StatsDirect's manual of Armitage and Berry (1994); the tests of the R package contingencytables of Cavo (2012)
        found = [mcnemar_exact_p(*pair) for pair in ((12, 2), (6, 16))]
        assert found == pytest.approx([0.0129, 0.0525], abs=5e-5)

    def test_arms_that_never_differ_have_a_p_of_one(self) -> None:
        assert (mcnemar_exact_p(0, 0), mcnemar_score_p(0, 0)) == (1, 1)
        assert (mcnemar_exact_p(4, 4), mcnemar_score_p(4, 4)) == (1, 1)


class TestPaired:
    """The two methods through the function that ``compare`` calls."""

    def test_the_chosen_method_gives_interval_and_p_and_the_rest_stays(self) -> None:
        ours, tango = compared(Pairs(20, 9, 200), "pseudo_pairs"), compared(Pairs(20, 9, 200), "tango")
        assert (ours.interval, tango.interval) == ("pseudo_pairs", "tango")
        assert (tango.low, tango.high) == tango_interval(20, 9, 200, 0.95)
        assert tango.p == mcnemar_score_p(20, 9)
        assert tango.p < 0.05 < ours.p
        assert ours.mcnemar_p == tango.mcnemar_p == mcnemar_exact_p(20, 9)
        assert (ours.difference, ours.detectable) == (tango.difference, tango.detectable)

    @pytest.mark.parametrize("interval", ["pseudo_pairs", "tango"])
    def test_questions_that_repeat_a_problem_get_neither_tango_s_interval_nor_mcnemar_s_p(
        self, interval: Interval
    ) -> None:
        first, second = [True] * 20 + [False] * 20, [False] * 40
        names = [str(index // 2) for index in range(40)]
        found = paired_difference(first, second, 0.95, names, interval)
        assert (found.interval, found.mcnemar_p) == ("pseudo_pairs", None)
        assert found == paired_difference(first, second, 0.95, names)


class TestDocument:
    """docs/comparison.md, Pseudo-pairs, Tango and McNemar."""

    def test_its_twenty_tables_are_those_that_the_command_prints(self) -> None:
        assert len(TABLES) == 20
        assert table(intervals.HEADS, intervals.rows()) in DOCUMENT

    def test_its_coverages_and_false_findings_are_those_that_the_command_prints(self) -> None:
        assert table(intervals.COVERAGE_HEADS, intervals.coverage_rows()) in DOCUMENT
        assert table(intervals.FALSE_FINDING_HEADS, intervals.false_finding_rows()) in DOCUMENT

    def test_what_it_says_of_the_least_coverage_and_the_most_false_findings_is_so(self) -> None:
        ours, tango = (min(each) for each in zip(*intervals.coverages().values(), strict=True))
        said = re.search(r"At the least it is (\S+) % with pseudo-pairs and (\S+) % with Tango", DOCUMENT)
        assert said
        assert said.groups() == (f"{ours * 100:.1f}", f"{tango * 100:.1f}")
        most = [max(each) for each in zip(*intervals.false_findings().values(), strict=True)]
        assert most[0] <= 0.05
        assert most[2] <= 0.05
        assert f"Tango's test reaches {most[1] * 100:.1f} %" in DOCUMENT

    def test_what_it_says_of_where_the_three_part_is_so(self) -> None:
        parted: dict[str, list[str]] = {"score alone": [], "exact alone not": [], "otherwise": []}
        for pairs in TABLES:
            ours, tango = compared(pairs, "pseudo_pairs"), compared(pairs, "tango")
            assert tango.mcnemar_p is not None
            assert tango.p <= ours.p + 1e-4
            match (ours.p < 0.05, tango.p < 0.05, tango.mcnemar_p < 0.05):
                case (False, True, False):
                    parted["score alone"].append(f"{pairs.only_first} : {pairs.only_second}")
                case (True, True, False):
                    parted["exact alone not"].append(f"{pairs.only_first} : {pairs.only_second}")
                case (one, other, third) if len({one, other, third}) > 1:
                    parted["otherwise"].append(f"{pairs.only_first} : {pairs.only_second}")
        said = " ".join(DOCUMENT.split())
        assert f"the score test alone is under it ({', '.join(parted['score alone'])})" in said
        assert f"the exact test alone is not ({', '.join(parted['exact alone not'])})" in said
        assert parted["otherwise"] == []
        assert f"On {20 - sum(map(len, parted.values()))} of 20 all three" in said

    @pytest.mark.heavy
    @pytest.mark.parametrize("interval", ["pseudo_pairs", "tango"])
    def test_its_exact_sums_use_the_intervals_that_compare_uses(self, interval: Interval) -> None:
        tables = AllTables.of(30, 0.4, 0.7)
        assert tables.probability.sum() == pytest.approx(1)
        for difference in (-0.1, 0.0, 0.16):
            holds = tables.holds(interval, difference)
            for only_first, only_second, held in zip(tables.only_first, tables.only_second, holds, strict=True):
                found = compared(Pairs(int(only_first), int(only_second), 30), interval)
                assert held == (found.low <= difference <= found.high), (only_first, only_second)
