"""Values by their rank among many, of which only the number of each is kept: memory does not grow with their number.

at = ranked(Counter([7, 7, 9]))
at(0), at(2)        → (7, 9)
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate


def ranked(counts: Mapping[int, int]) -> Callable[[int], int]:
    """A function of a rank, from 0: the value there if all were sorted. ``counts``: how many there are of each."""
    values = sorted(counts)
    ends = list(accumulate(counts[value] for value in values))
    return lambda rank: values[bisect_right(ends, rank)]


def median(counts: Mapping[int, int]) -> float:
    """The middle value, or the mean of the two in the middle; 0 of none."""
    total, at = sum(counts.values()), ranked(counts)
    if total % 2:
        return at(total // 2)
    return (at(total // 2 - 1) + at(total // 2)) / 2 if total else 0
