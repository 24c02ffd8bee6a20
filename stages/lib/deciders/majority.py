"""The strategy ``majority``, without gold answers: the value that most samples of a question state is taken as gold.

Self-consistency (Wang et al. 2022, arXiv 2203.11171): wrong workings end in different values, right ones in the same.

Each value that a sample states is tried as the gold answer; the samples that the rule then calls right support it.
So ``1,080`` and ``1080``, or 240 minutes and 4 hours, are one value. The largest set of supporters decides if it

- holds two samples or more;
- is ``min_share`` of all answers to the question, those that failed a check or state no value included;
- is larger than any other set (two sets of the same size: no majority).

The order of the samples changes nothing.
"""

from collections import Counter
from collections.abc import Sequence

from stages.lib.answers import rule_verdict, stated_answer
from stages.lib.deciders.decision import Decision, Said, by_rule
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Majority
from stages.lib.texts.languages import question_language

FEWEST = 2  # samples of a majority

Cluster = frozenset[int]  # places of samples


class ByMajority:
    """Decides about all samples of a question at once."""

    def __init__(self, min_share: float) -> None:
        self._min_share = min_share

    def decide(self, rows: Sequence[Distilled], of: int) -> list[Decision]:
        """Right where a sample supports the majority's value, wrong where it states another one, else unsure."""
        language = question_language(rows[0].question if rows else "")
        stated = [stated_answer(row.question, row.response, language) for row in rows]
        supporters = _supporters(rows, stated, language)
        clusters = sorted(set(supporters.values()), key=len, reverse=True)
        first = clusters[0] if clusters else Cluster()
        share = len(first) / of
        value = _written(first, supporters, Counter(stated)) if self._decides(clusters, share) else None
        majority = Majority(value=value, share=round(share, 4), clusters=_sizes(supporters))
        winners = first if value is not None else Cluster()
        return [self._decision(row, stated[place], place in winners, majority) for place, row in enumerate(rows)]

    def _decides(self, clusters: list[Cluster], share: float) -> bool:
        """Whether the largest cluster is a majority."""
        sizes = [len(cluster) for cluster in clusters]
        return bool(sizes) and sizes[0] >= FEWEST and share >= self._min_share and sizes.count(sizes[0]) == 1

    def _decision(self, row: Distilled, stated: str | None, is_winner: bool, majority: Majority) -> Decision:
        rule = by_rule(row)
        against_gold = rule.verdict if rule else None
        decided = stated is not None and majority.value is not None
        verdict: Said = "right" if is_winner else "wrong" if decided else "unsure"
        return Decision(verdict, "majority", stated, against_gold, majority=majority)


def _supporters(rows: Sequence[Distilled], stated: Sequence[str | None], language: str) -> dict[str, Cluster]:
    """For each value that a sample states: the samples that the rule calls right with this value as the gold answer."""

    def supports(place: int, value: str) -> bool:
        if stated[place] in (None, value):
            return stated[place] == value
        return rule_verdict(rows[place].question, rows[place].response, value, language).verdict == "right"

    values = {value for value in stated if value}
    return {value: frozenset(place for place in range(len(rows)) if supports(place, value)) for value in values}


def _written(cluster: Cluster, supporters: dict[str, Cluster], named: Counter[str | None]) -> str:
    """A cluster's value in its most frequent form; of equally frequent ones, the shortest."""
    forms = [value for value, found in supporters.items() if found == cluster]
    return min(forms, key=lambda value: (-named[value], len(value), value))


def _sizes(supporters: dict[str, Cluster]) -> list[int]:
    """How many samples state each value; one that supports several counts for the largest of them."""
    sizes, left = [], set().union(*supporters.values())
    for _, cluster in sorted(supporters.items(), key=lambda item: (-len(item[1]), item[0])):
        if mine := cluster & left:
            sizes.append(len(mine))
            left -= mine
    return sorted(sizes, reverse=True)
