r"""Identify the language of a text, among the eleven languages of MGSM.

    language_of("Natalia hat im Mai 24 Haarspangen verkauft.")  → "de"
    language_of("那么她一共卖了 72 个。")                          → "zh"
    language_of("48 + 24 = 72 (m)")                             → None: too little prose to tell

The steps:

- Numbers, formulas, markers and code are removed.
- The script decides first. The rest must have ``LETTERS`` letters, weighted by their information (``WEIGHTS``: a
  Chinese character counts as three Latin letters), and one script must have ``SHARE`` of them; otherwise None.
- Kana identify Japanese.
- py3langid, restricted to the five languages in Latin script, separates those, if it is ``CONFIDENT``. Any other
  language of that script (Portuguese) is classified as one of the five.
- A script of none of the eleven is "other".
"""

import re
from functools import lru_cache
from typing import Any

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
LATIN = ("de", "en", "es", "fr", "sw")
LETTERS, SHARE, CONFIDENT = 16, 0.6, 0.8
WEIGHTS = {"Latin": 1, "Han": 3}
OTHER_SCRIPT = 2
KANA_SHARE = 0.1  # Japanese prose has about 0.5, Chinese 0
LONGEST = 4_000  # characters that are read: enough for any language

# the text between $5 and $6 is prose: a formula's last $ follows no space, and no digit follows it
NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)|\$(?=\S)[^$\n]{1,200}(?<=\S)\$(?!\d)"  # code, formulas
    r"|<\|[^|\s]{1,40}\|>|</?\w{1,20}>|https?://\S+|\\[a-zA-Z]+|[A-Za-z_]*\d[A-Za-z\d_]*|[A-Za-z]{0,2}[=^]",
    re.DOTALL,
)
SCRIPTS = {
    "Bengali": re.compile(r"[\u0980-\u09ff]"),
    "Telugu": re.compile(r"[\u0c00-\u0c7f]"),
    "Thai": re.compile(r"[\u0e00-\u0e7f]"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "Han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff々]"),
    "Kana": re.compile(r"[\u3041-\u30ff]"),
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
}
LETTER = re.compile(r"[^\W\d_]")
OF_SCRIPT = {"Bengali": "bn", "Telugu": "te", "Thai": "th", "Cyrillic": "ru"}


def language_of(text: str) -> str | None:
    """One of ``LANGUAGES``, "other" for a script of none of them, or None if it cannot be determined."""
    prose = NO_PROSE.sub(" ", text[:LONGEST])
    letters = {name: len(script.findall(prose)) for name, script in SCRIPTS.items()}
    letters["other"] = max(0, len(LETTER.findall(prose)) - sum(letters.values()))
    kana = letters.pop("Kana")
    letters["Han"] += kana
    weights = {name: number * WEIGHTS.get(name, OTHER_SCRIPT) for name, number in letters.items()}
    script = max(weights, key=weights.__getitem__)
    if weights[script] < max(LETTERS, SHARE * sum(weights.values())):
        return None
    if script == "Han":
        return "ja" if kana >= KANA_SHARE * letters["Han"] else "zh"
    return _latin(prose) if script == "Latin" else OF_SCRIPT.get(script, "other")


def question_language(question: str) -> str:
    """The language that an answer to a question is expected in: English where it cannot be determined."""
    return language_of(question) or "en"


def _latin(prose: str) -> str | None:
    language, probability = _identifier().classify(" ".join(prose.split()))
    return language if probability >= CONFIDENT else None


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's model for the five languages, loaded once from the package's files, without a network."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LATIN)
    return identifier
