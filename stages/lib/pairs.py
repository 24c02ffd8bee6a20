"""The pairs of arms that are compared: those of ``compare.pairs``, or the default ones.

pairs_of(params.compare, ["base", "unfiltered", "filtered"])
→ [["unfiltered", "base"], ["filtered", "base"], ["filtered", "unfiltered"]]
"""

from stages.lib.params import Compare


def pairs_of(params: Compare, arms: list[str]) -> list[list[str]]:
    """The pairs that params name; null: the default ones."""
    return params.pairs if params.pairs is not None else default_pairs(arms)


def default_pairs(arms: list[str]) -> list[list[str]]:
    """Each trained arm against the base, and filtered against unfiltered and control where these exist."""
    against_base = [[arm, "base"] for arm in arms if arm != "base"]
    return against_base + [["filtered", other] for other in ("unfiltered", "control") if {"filtered", other} <= {*arms}]
