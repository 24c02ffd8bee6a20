"""The script of a text: a cheap view of its language, which tells Chinese from English but not English from German.

script_of("小明有5个苹果。")             → "han"
script_of("Natalia sold 48 clips.")  → "latin"
script_of("48 + 24 =")               → "none"
"""

import re
import unicodedata
from collections import Counter
from functools import cache

# scripts whose words have no spaces between them: Thai, Lao, Burmese, Khmer, kana, Han
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
# signs inside words that are no letters to re: accents, the points of Hebrew and Arabic, the vowels of Indic scripts
MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0970-\u0dff"
NAMES = {"cjk": "han", "hiragana": "kana", "katakana": "kana", "katakana-hiragana": "kana", "ideographic": "han"}
WEIGHTS = {"han": 3, "kana": 2, "hangul": 2}  # a character of these says as much as so many letters
KANA_SHARE = 0.1  # Japanese prose has about half of its characters in kana, Chinese none
COMMAND = re.compile(r"\\[a-zA-Z]+")  # of LaTeX


def script_of(text: str) -> str:
    """The script that most of the text is written in, "kana" for Japanese, "none" for a text without letters."""
    plain = unicodedata.normalize("NFKC", COMMAND.sub(" ", text))
    found = Counter(script for character in plain if (script := _script(character)))
    if not found:
        return "none"
    if found["kana"] >= KANA_SHARE * (found["kana"] + found["han"]) > 0:
        found["kana"] += found.pop("han", 0)
    return min(found, key=lambda script: (-found[script] * WEIGHTS.get(script, 1), script))


@cache
def _script(character: str) -> str | None:
    """The first word of a letter's Unicode name, for example LATIN; None for what is no letter."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "other").split()[0].lower()
    return NAMES.get(name, name)
