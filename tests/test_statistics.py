"""The statistics: coverage in every cell, p and interval of one method, published tables, figures worked by hand."""

from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from benchmarks.coverage import Cell, Measured, cells, draw, measure
from stages.lib.comparison.results import Churn
from stages.lib.statistics.noise import churn_alone, error_of, over_trainings
from stages.lib.statistics.paired import (
    PairedDifference,
    cluster_means,
    holm,
    mean_difference,
    paired_difference,
    proportion,
)


def from_cells(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """The answers of two arms from the four cells of their 2 × 2 table."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


def of_cells(both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95) -> PairedDifference:
    return paired_difference(*from_cells(both, only_first, only_second, neither), confidence)


@cache
def measured(cell: Cell) -> Measured:
    """A cell is drawn once for all tests."""
    return measure(cell)


class TestCoverage:
    """Of 2,000 samples, so many intervals hold the true difference."""

    @pytest.mark.parametrize(
        "kind",
        ["single", pytest.param("clustered", marks=pytest.mark.heavy), pytest.param("few", marks=pytest.mark.heavy)],
    )
    def test_it_is_at_least_93_and_a_half_per_cent_in_each_cell(self, kind: str) -> None:
        coverage = {cell: measured(cell).coverage for cell in cells(kind)}
        assert len(coverage) == 27
        assert {cell: share for cell, share in coverage.items() if share < 0.935} == {}

    def test_the_plain_paired_interval_does_not_hold_with_few_discordant_pairs(self) -> None:
        assert measured(Cell(100, 1, 0.03, "one-sided")).plain_coverage < 0.85

    @pytest.mark.parametrize("kind", ["single", pytest.param("clustered", marks=pytest.mark.heavy)])
    def test_it_is_not_bought_with_width_where_there_are_many_discordant_pairs(self, kind: str) -> None:
        for cell in cells(kind):
            if cell.discordance * cell.clusters >= 75:
                assert measured(cell).width < 1.05 * measured(cell).plain_width, cell

    @pytest.mark.parametrize("rho", [0.0, 0.1, 0.7])
    def test_it_holds_whether_a_problem_s_languages_go_together_or_not(self, rho: float) -> None:
        for split in ("one-sided", "mixed"):
            assert measured(Cell(250, 11, 0.1, split, rho)).coverage >= 0.935

    @pytest.mark.parametrize("confidence", [0.9, 0.99])
    def test_it_holds_at_other_levels_of_confidence(self, confidence: float) -> None:
        cell = Cell(250, 1, 0.1, "one-sided")
        low, high, _ = mean_difference(draw(cell, 2000, np.random.default_rng(3)), confidence)
        assert np.mean((low <= cell.difference) & (cell.difference <= high)) >= confidence - 0.015


class TestPublished:
    """Tables with figures that others published."""

    def test_presidential_approval(self) -> None:
        # Agresti, Categorical Data Analysis (1990), p. 350: 1,600 people asked twice, 944 and then 880 approve. Penn
        # State's STAT 504 gives McNemar's statistic 17.3559 and p = 3.099e-05, Agresti 0.04 with 0.02 to 0.06
        published = mcnemar([[794, 150], [86, 570]], exact=False, correction=False)
        assert (published.statistic, published.pvalue) == pytest.approx((17.3559, 3.099e-05), rel=1e-4)
        ours = of_cells(794, 150, 86, 570)
        assert ours.difference == pytest.approx(0.04)
        assert (round(ours.low, 2), round(ours.high, 2)) == (0.02, 0.06)
        assert ours.p == pytest.approx(3.1e-05, rel=0.1)

    def test_two_media_for_one_culture(self) -> None:
        # Armitage and Berry (1994), p. 127: 50 specimens on two media. StatsDirect's manual gives p = 0.0129 (exact)
        # and 0.0162 (McNemar, corrected for continuity)
        table = [[20, 12], [2, 16]]
        assert mcnemar(table, exact=True).pvalue == pytest.approx(0.0129, abs=5e-5)
        assert mcnemar(table, exact=False, correction=True).pvalue == pytest.approx(0.0162, abs=5e-5)
        assert of_cells(20, 12, 2, 16).p == pytest.approx(0.0145, abs=0.003)


class TestPairedDifference:
    """Two arms on the same questions."""

    def test_a_table_worked_out_by_hand(self) -> None:
        # 20 only the first, 5 only the second, of 100. With 1.5 pairs more of each: 21.5, 6.5, of 103.
        # mean = 15 / 103 = 0.14563; standard error = sqrt((28 / 103 - 0.14563²) / 102) = 0.04957
        # t with 102 degrees of freedom: 1.9835 of them = 0.09832; 0.14563 / 0.04957 = 2.938, p = 0.0041
        result = of_cells(50, 20, 5, 25)
        assert (result.only_first, result.only_second, result.n, result.clusters) == (20, 5, 100, 100)
        assert result.difference == pytest.approx(0.15)
        assert (result.low, result.high) == pytest.approx((0.0473, 0.2440), abs=0.0001)
        assert result.p == pytest.approx(0.0041, abs=0.0001)

    def test_only_the_discordant_pairs_count(self) -> None:
        assert of_cells(75, 20, 5, 0) == of_cells(0, 20, 5, 75)

    def test_swapping_the_arms_turns_the_sign(self) -> None:
        one, other = of_cells(50, 20, 5, 25), of_cells(50, 5, 20, 25)
        assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))
        assert (other.p, other.detectable) == pytest.approx((one.p, one.detectable))

    def test_three_against_none_of_a_hundred_is_no_detectable_difference(self) -> None:
        result = of_cells(50, 3, 0, 47)
        assert result.low < 0 < result.high
        assert result.p > 0.05

    def test_arms_that_never_differ_have_an_interval_around_zero(self) -> None:
        result = of_cells(60, 0, 0, 40)
        assert result.difference == 0
        assert result.low < 0 < result.high
        assert result.p == pytest.approx(1)

    def test_one_question_shows_nothing_and_says_so(self) -> None:
        result = of_cells(0, 1, 0, 0)
        assert (result.difference, result.high) == (1, 1)
        assert result.low < 0
        assert result.detectable is None

    @pytest.mark.parametrize("only_first", range(0, 31, 3))
    @pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
    def test_the_interval_leaves_zero_out_just_where_p_says_so(self, only_first: int, confidence: float) -> None:
        result = of_cells(40, only_first, 8, 52 - only_first, confidence)
        assert (result.low > 0 or result.high < 0) == (result.p < 1 - confidence)

    def test_the_interval_leaves_zero_out_just_where_p_says_so_for_clusters_too(self) -> None:
        sample = draw(Cell(60, 11, 0.2, "70/30"), 2000, np.random.default_rng(3))
        low, high, p = mean_difference(sample, 0.95)
        assert 0.2 < np.mean(p < 0.05) < 0.95
        assert np.array_equal((low > 0) | (high < 0), p < 0.05)

    def test_more_confidence_makes_a_wider_interval(self) -> None:
        narrow, wide = (of_cells(50, 20, 5, 25, share) for share in (0.9, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_arms_of_different_length_cannot_be_paired(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            paired_difference([True, False], [True], 0.95)


class TestClusters:
    """Questions that repeat a problem."""

    def test_clusters_of_one_question_are_no_clusters(self) -> None:
        first, second = from_cells(50, 20, 5, 25)
        names = [str(index) for index in range(100)]
        assert paired_difference(first, second, 0.95, names) == paired_difference(first, second, 0.95)
        assert proportion(first, 0.95, names) == proportion(first, 0.95)

    def test_the_same_answers_in_eleven_languages_say_no_more_than_in_one(self) -> None:
        first, second = from_cells(50, 20, 5, 25)
        names = [str(index) for index in range(100)] * 11
        once, eleven = paired_difference(first, second, 0.95), paired_difference(first * 11, second * 11, 0.95, names)
        assert (eleven.n, eleven.clusters, eleven.only_first) == (1100, 100, 220)
        assert (eleven.low, eleven.high, eleven.p) == pytest.approx((once.low, once.high, once.p))
        as_if_unlike = paired_difference(first * 11, second * 11, 0.95)
        assert as_if_unlike.high - as_if_unlike.low < 0.4 * (eleven.high - eleven.low)

    def test_questions_belong_to_their_cluster_whatever_their_order(self) -> None:
        values = np.array([1.0, 0.0, -1.0, 1.0, 1.0, 0.0])
        assert cluster_means(values, ["b", "a", "b", "a", "b", "a"]).tolist() == pytest.approx([1 / 3, 1 / 3])

    def test_an_arm_s_interval_is_that_of_the_problems(self) -> None:
        once = proportion([True] * 36 + [False] * 64, 0.95)
        names = [str(index) for index in range(100)] * 11
        eleven = proportion(([True] * 36 + [False] * 64) * 11, 0.95, names)
        assert (eleven.correct, eleven.n) == (396, 1100)
        assert (eleven.low, eleven.high) == pytest.approx((once.low, once.high), abs=0.001)


class TestDetectable:
    """The smallest difference that so many questions could have shown."""

    @pytest.mark.parametrize(
        ("n", "only_first", "only_second"), [(100, 5, 5), (250, 12, 13), (1319, 66, 66), (1319, 198, 198)]
    )
    def test_a_difference_of_that_size_is_found_four_times_in_five(
        self, n: int, only_first: int, only_second: int
    ) -> None:
        found = of_cells(n - only_first - only_second, only_first, only_second, 0).detectable
        assert found is not None
        discordance = (only_first + only_second) / n
        up = (discordance + found) / 2
        sample = np.random.default_rng(3).choice([1.0, -1.0, 0.0], (n, 2000), p=[up, discordance - up, 1 - discordance])
        _, _, p = mean_difference(sample, 0.95)
        # of 100 questions it is about as large as the share of discordant ones: then somewhat more than four times
        assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.06 if n > 100 else 0.15)

    def test_it_is_about_2_8_standard_errors(self) -> None:
        result = of_cells(5000, 500, 500, 4000)
        error = (result.high - result.low) / 2 / NormalDist().inv_cdf(0.975)
        assert result.detectable == pytest.approx(2.8 * error, rel=0.01)

    def test_more_discordance_hides_more(self) -> None:
        few, many = of_cells(80, 10, 10, 0).detectable, of_cells(40, 30, 30, 0).detectable
        assert few is not None
        assert many is not None
        assert few < many


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
        for clusters in (None, [str(index // 4) for index in range(20)]):
            result = proportion([True] * correct + [False] * (20 - correct), 0.95, clusters)
            assert 0 <= result.low < result.high <= 1


def test_holm_multiplies_the_smallest_p_by_all_and_never_lets_a_larger_one_pass_it() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


class TestNoise:
    """What no training made."""

    @pytest.mark.parametrize("trainings", [2, 3, 5, 10])
    def test_the_interval_over_trainings_is_the_textbooks_and_as_wide_as_the_page_says(self, trainings: int) -> None:
        found = np.random.default_rng(3).normal(0.05, 0.04, trainings)
        over = over_trainings([*found], 0.95)
        expected = stats.t.interval(0.95, trainings - 1, found.mean(), found.std(ddof=1) / trainings**0.5)
        assert (over.mean, over.low, over.high) == pytest.approx((found.mean(), *np.clip(expected, -1, 1)))
        assert over.spread == "trainings"
        widths = {2: 9.0, 3: 2.5, 5: 1.2, 10: 0.7}  # docs/comparison.md, in standard deviations
        assert (expected[1] - expected[0]) / 2 / found.std(ddof=1) == pytest.approx(widths[trainings], abs=0.05)

    def test_equal_differences_are_no_certainty(self) -> None:
        same = over_trainings([0.1, 0.1, 0.1], 0.95)
        assert (same.low, same.high, same.spread) == (None, None, "none")
        drawn = over_trainings([0.1, 0.1, 0.1], 0.95, error=0.034)
        assert drawn.spread == "questions"
        assert (drawn.low, drawn.high) == pytest.approx(stats.t.interval(0.95, 2, 0.1, 0.034 / 3**0.5))
        low, high = stats.norm.interval(0.95, 0.1, 0.034)
        assert error_of(0.1, low, high, 0.95) == pytest.approx(0.034)

    @pytest.mark.parametrize("between", [0.0, 0.01, 0.05])
    def test_with_questions_drawn_again_the_interval_has_at_least_its_coverage(self, between: float) -> None:
        error = 0.034
        draws = np.random.default_rng(3).normal(0.1, np.hypot(error, between), (2000, 3))
        found = [over_trainings([*each], 0.95, error) for each in draws]
        assert np.mean([each.low is not None and each.low <= 0.1 <= (each.high or 0) for each in found]) >= 0.945

    def test_churn_alone_contains_the_change_of_a_difference_in_19_of_20_second_passes(self) -> None:
        n, ps = 400, (0.03, 0.01)
        draw = np.random.default_rng(3)
        changes = [draw.choice([1, -1, 0], (4000, n), p=[p / 2, p / 2, 1 - p]).mean(axis=1) for p in ps]
        first, second = (Churn(batch_size=7, n=n, flipped=round(p * n), net=0.0, differ=99) for p in ps)
        found = churn_alone(first, second, n, 0.95)
        assert found is not None
        assert np.mean(np.abs(changes[0] - changes[1]) <= found.alone) == pytest.approx(0.95, abs=0.015)
        assert found.alone < found.alone_at_most

    def test_answers_without_a_score_have_no_churn_of_a_difference(self) -> None:
        free = Churn(batch_size=7, n=50, differ=9)
        assert churn_alone(free, free, 50, 0.95) is None
