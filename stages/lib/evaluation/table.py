"""The comparison as Markdown: one table of the arms, one of the differences.

python -m stages.lib.evaluation.table metrics/compare.json
"""

import sys
from pathlib import Path
from typing import Any

from stages.lib.records import read_json

CAVEAT = "The intervals are those of the questions; another training of the same arm differs besides."


def comparison_table(comparison: dict[str, Any]) -> str:
    """Both tables, from what metrics/compare.json holds."""
    percent = f"{comparison['confidence'] * 100:g} %"
    lines = [f"| arm | rows | steps | accuracy | n | {percent} interval |", "|---|---|---|---|---|---|"]
    for name, arm in comparison["arms"].items():
        rows, steps = arm.get("rows", "–"), arm.get("steps", "–")
        interval = f"{points(arm['low'])} – {points(arm['high'])}"
        lines.append(f"| {name} | {rows} | {steps} | **{points(arm['accuracy'])} %** | {arm['n']} | {interval} |")
    lines += ["", f"| paired difference | points | {percent} interval | p | finding |", "|---|---|---|---|---|"]
    for pair in comparison["pairs"].values():
        interval = f"{signed(pair['low'])} – {signed(pair['high'])}"
        name = f"{pair['first']} − {pair['second']}"
        lines.append(
            f"| {name} | **{signed(pair['difference'])}** | {interval} | {p_value(pair['p'])} | {pair['finding']} |"
        )
    lines += ["", CAVEAT]
    return "\n".join(lines)


def points(share: float) -> str:
    """A share in per cent."""
    return f"{share * 100:.1f}"


def signed(share: float) -> str:
    """A difference of shares in points, always with its sign."""
    return f"{share * 100:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """A p-value to three digits."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


if __name__ == "__main__":
    print(comparison_table(read_json(Path(sys.argv[1]), "Run 'dvc repro compare' to make it.")))
