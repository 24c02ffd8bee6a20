"""Count the preferences of a pair, the judge's position bias, and how its preference goes with the answers' length.

counted([Preference(…), …])  → Counts(n=200, wins=90, losses=40, ties=70, flipped=31, length_correlation=0.18, …)
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from stages.lib.rows.preference import Counts, Preference

OPPOSITE = {("first", "second"), ("second", "first")}
SIGN = {"first": 1, "second": -1, "tie": 0}


def counted(rows: Sequence[Preference]) -> Counts:
    """The counts of one pair's rows, of which there is at least one."""
    outcomes = [row.outcome for row in rows]
    flipped = [row for row in rows if (row.verdict, row.verdict_swapped) in OPPOSITE]
    longer = [SIGN[row.outcome] * np.sign(_length_difference(row)) for row in rows]
    return Counts(
        first=rows[0].first,
        second=rows[0].second,
        n=len(rows),
        wins=outcomes.count("first"),
        losses=outcomes.count("second"),
        ties=outcomes.count("tie"),
        identical=sum(row.first_answer == row.second_answer for row in rows),
        unsure=sum("unsure" in (row.verdict, row.verdict_swapped) for row in rows),
        flipped=len(flipped),
        flipped_share=round(len(flipped) / len(rows), 4),
        flipped_to_a=sum(row.verdict == "first" for row in flipped),
        longer_wins=sum(bool(sign > 0) for sign in longer),
        shorter_wins=sum(bool(sign < 0) for sign in longer),
        length_correlation=_length_correlation(rows),
    )


def _length_difference(row: Preference) -> int:
    """In characters."""
    return len(row.first_answer) - len(row.second_answer)


def _length_correlation(rows: Sequence[Preference]) -> float | None:
    lengths, outcomes = [_length_difference(row) for row in rows], [SIGN[row.outcome] for row in rows]
    if len(set(lengths)) < 2 or len(set(outcomes)) < 2:
        return None
    return round(float(spearmanr(lengths, outcomes).statistic), 4)
