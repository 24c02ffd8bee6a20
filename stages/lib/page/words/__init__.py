"""The words of the page in English and Chinese: two tables with the same keys.

    words()["en"]["rows.found"]   → {"one": "{n} row", "other": "{n} rows"}
    said("rows.found", n=3)       → "3 rows": English, as the page is without a script

A text has places for values, ``{n}``. Where it depends on a number ``n``, it is an object with the plural forms of the
language, by the names that Intl.PluralRules gives them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from stages.lib.comparison.warnings import filled, texts

LANGUAGES = ("en", "zh")
Text = str | dict[str, str]


@cache
def words() -> dict[str, dict[str, Text]]:
    """The tables by language; the texts of the comparison's warnings are ``warning.CODE``."""
    return {name: _table(name) for name in LANGUAGES}


def _table(name: str) -> dict[str, Text]:
    of_page = json.loads((Path(__file__).parent / f"{name}.json").read_bytes())
    return {**of_page, **{f"warning.{code}": text for code, text in texts(name).items()}}


def said(key: str, /, **values: Any) -> str:
    """A text in English, with its values; numbers have thousands separators."""
    text = words()["en"][key]
    form = text if isinstance(text, str) else text["one" if values["n"] == 1 else "other"]
    return filled(form, values)
