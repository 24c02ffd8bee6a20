"""The pairs of arms that are compared: those of ``compare.pairs``, or the default ones.

pairs_of(params.compare, ["base", "unfiltered", "filtered", "polished"], {"polished": "filtered"})
→ [["unfiltered", "base"], ["filtered", "base"], ["polished", "base"], ["filtered", "unfiltered"],
   ["polished", "filtered"]]
"""

from collections.abc import Mapping

from stages.lib.params import Compare


def pairs_of(params: Compare, arms: list[str], starts: Mapping[str, str]) -> list[list[str]]:
    """The pairs that params name; null: the default ones. ``starts``: what each on-policy arm starts from."""
    return params.pairs if params.pairs is not None else default_pairs(arms, starts)


def default_pairs(arms: list[str], starts: Mapping[str, str]) -> list[list[str]]:
    """Each arm against base, filtered against unfiltered and control, an on-policy arm against what it starts from."""
    against_base = [[arm, "base"] for arm in arms if arm != "base"]
    filtered = [["filtered", other] for other in ("unfiltered", "control") if {"filtered", other} <= {*arms}]
    return against_base + filtered + [[arm, start] for arm, start in starts.items() if {arm, start} <= {*arms}]
