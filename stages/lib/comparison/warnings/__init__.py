"""The warnings of the comparison as sentences: a text for each code in English and Chinese, with places for values.

    sentence(Warned(code="shortened", arms=["filtered", "base"], values={"n": 3, "first": "filtered", …}))
    → "over cutoff_len: 3 rows of filtered were shortened, 0 of base"

A sentence has no full stop: it may be one of several, or an item of a list.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stages.lib.comparison.results import Warned

PLACE = re.compile(r"\{(\w+)\}")


@cache
def texts(language: str) -> dict[str, str]:
    """The texts by code; the language is ``en`` or ``zh``."""
    found: dict[str, str] = json.loads((Path(__file__).parent / f"{language}.json").read_bytes())
    return found


def sentence(warning: Warned, language: str = "en") -> str:
    """A warning in a language."""
    return filled(texts(language)[warning.code], warning.values)


def filled(text: str, values: Mapping[str, Any]) -> str:
    """A text with its values; whole numbers have thousands separators."""
    return PLACE.sub(lambda place: _shown(values[place[1]]), text)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
