"""The comparison as Markdown: one table of the arms, one of the differences.

python -m stages.lib.evaluation.table metrics/compare.json
"""

import sys
from pathlib import Path
from typing import Any

from stages.lib.records import read_json


def comparison_table(comparison: dict[str, Any]) -> str:
    """Both tables, from what metrics/compare.json holds."""
    percent = f"{comparison['confidence'] * 100:g} %"
    lines = [f"| arm | rows | steps | accuracy | n | {percent} interval |", "|---|---|---|---|---|---|"]
    for name, arm in comparison["arms"].items():
        rows, steps = arm.get("rows", "–"), arm.get("steps", "–")
        interval = f"{_points(arm['low'])} – {_points(arm['high'])}"
        lines.append(f"| {name} | {rows} | {steps} | **{_points(arm['accuracy'])} %** | {arm['n']} | {interval} |")
    lines += ["", f"| paired difference | points | {percent} interval | p | finding |", "|---|---|---|---|---|"]
    for pair in comparison["pairs"].values():
        interval = f"{_signed(pair['low'])} – {_signed(pair['high'])}"
        name = f"{pair['first']} − {pair['second']}"
        p = f"{pair['p']:.3f}" if pair["p"] >= 0.001 else "< 0.001"
        lines.append(f"| {name} | **{_signed(pair['difference'])}** | {interval} | {p} | {pair['finding']} |")
    return "\n".join(lines)


def _points(share: float) -> str:
    return f"{share * 100:.1f}"


def _signed(share: float) -> str:
    return f"{share * 100:+.1f}".replace("-", "−")


if __name__ == "__main__":
    print(comparison_table(read_json(Path(sys.argv[1]), "Run 'dvc repro compare' to make it.")))
