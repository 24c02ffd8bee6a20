"""The page's scripts and styles, as they stand in it, and the Content-Security-Policy that admits exactly these.

script("early")   → the script of the head: language and theme before the first paint
script("main")    → the modules of assets/ in one function
policy([…])       → "default-src 'none'; script-src 'sha256-…'; …"
"""

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
CHARTS = Path(__file__).parent / "echarts" / "echarts.min.js"
# in the order in which they are read: each uses those before it
MODULES = (
    "words",
    "dom",
    "data",
    "state",
    "searcher",
    "search",
    "diff",
    "answers",
    "reviews",
    "flips",
    "rows",
    "charts",
    "main",
)


def style() -> str:
    """The stylesheet."""
    return (ASSETS / "page.css").read_text(encoding="utf-8")


def early() -> str:
    """The script that runs before anything is drawn."""
    return (ASSETS / "early.js").read_text(encoding="utf-8")


def charts() -> str:
    """Apache ECharts, reduced to what charts.js draws with."""
    return CHARTS.read_text(encoding="utf-8")


def main() -> str:
    """All modules in one function, so that their names are nobody else's."""
    modules = "\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in MODULES)
    return f'(() => {{\n"use strict";\n{modules}}})();\n'


def policy(scripts: Iterable[str], with_siblings: bool) -> str:
    """The policy: nothing is loaded, and no script runs but these; the siblings where there are some."""
    sources = [f"'sha256-{_sha256(script)}'" for script in scripts] + ["'self'"] * with_siblings
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(sources)}",
            "worker-src blob:",  # the search, whose text is in the main script
            "style-src 'unsafe-inline'",  # positions in charts are style attributes; a style runs nothing
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
