"""The words that mark an answer, compiled from one file per language (``languages/en.toml``, …).

    lexicon("de", is_ascii=True).label.search("die antwort lautet 18.")

English and Chinese are always read, because students often answer in one of them. To add a language, add a file: its
lists extend theirs, and a missing list adds nothing. Patterns match text in lower case (``values.fold``).
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "languages"
MARKS = r"[\s*_”\"」】)]{0,6}"
GAP = r"(?:[\s*_~(-]|\\[,;:! ]|\\(?:text|mathrm|textbf|mbox)\s*\{){0,6}"
NUMBER = r"<<number>>s?(?![a-z])"
OPENINGS = ("check", "practice", "maybe_practice", "example", "later", "case", "rest")
# <<list>> matches any phrase of a list, <<one two>> any phrase of either list; a name that is not here is <<name>>
PATTERNS = {
    "any_unit": r"(?<![a-z])<<unit>>",
    "behind_number": rf"\s?(?P<half>[ap])\.?m\b\.?|{GAP}(?:(?P<percent>\\?%|per ?cent(?:age)?(?![a-z])|个百分点)"
    rf"|(?P<magnitude><<magnitude>>)?{GAP}(?:(?:more|additional|extra|full|whole|total|an?|of an?|个|多)\s?)?"
    r"(?P<unit><<unit>>)?)",
    "in_words": rf"(?<![\w-])(?:an?\s)?(?:{NUMBER}(?:(?:\s|-|\sand\s(?:an?\s)?){NUMBER}){{0,12}}|<<unit>> and a half)",
    "negative_before": r"<<negative_before>>[\s*$]*\Z",
    "negative_after": r"[\s*]*<<negative_after>>",
    "uncounted_before": r"<<uncounted_before context_before>>\s*\Z",
    "label": r"(?P<final><<final>>[\s*]{0,3})?<<answer>>"
    r"(?:\s(?:to|for|of|auf|zu[mr]?|à|au|de|a|al|kwa|на|к)\s[^.\n:?。]{0,80}?)?"
    rf"(?:】|{MARKS}(?:<<is>>|[:=])(?P<denied>\s*<<denies>>)?|{MARKS}(?=\n|\Z)|{MARKS}(?=[*$\\(]{{0,4}}-?\d))",
    "concludes": "<<concludes total>>",
    "denied_before": r"<<denied_before>>[\s*$¥€£]*\Z",
    "denied_after": r"[\s*]*(?:\w+\s)?<<denied_after>>",
    "joins": r"(?:[,、;/~±&-]|<<joins>>)(?:[\s*$]|<<about is hedge>>)*\Z",
    "tag": r"<<tag>>[^?\n]{0,6}\?",
    "context_before": r"<<context_before>>[\s*$]*\Z",
    "context_after": r"[\s*_-]*<<context_after>>",
    "opens": r"[\W_]{0,12}(?:[一二三四五六七八九十\d]{1,2}[、.)\s]\s?)?(?:<<lead>>[\W_]{0,4}){0,5}"
    rf"(?:{'|'.join(f'(?P<{kind}><<{kind}>>)' for kind in OPENINGS)})",
    "about": r"<<about>>\s?",
}


class Unit(NamedTuple):
    """``factor`` is its size in its dimension's smallest unit. A percent converts into no other unit."""

    dimension: str
    factor: Fraction


class Lexicon:
    """The patterns and tables of a language, of English and of Chinese. Chinese is left out where a text is ASCII."""

    def __init__(self, language: str, is_ascii: bool) -> None:
        names = dict.fromkeys(name for name in ("en", "zh", language) if (FOLDER / f"{name}.toml").is_file())
        files = [tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")) for name in names]
        self.decimal_comma = any(file.get("decimal_comma", False) for file in files)
        self._files = [file for file in files if file["words"] or not is_ascii]
        self.numbers, self.magnitudes, self.parts = map(self._table, ("numbers", "magnitudes", "parts"))
        units = [(dimension, table) for file in self._files for dimension, table in file.get("units", {}).items()]
        self.units = {word: Unit(of, Fraction(factor)) for of, table in units for word, factor in table.items()}
        self.common = frozenset(" ".join(word for file in self._files for word in file.get("common", ())).split())
        known = [*self.numbers, *self.parts, *(name for name in self.magnitudes if len(name) > 1 and _is_latin(name))]
        self._groups = {
            "unit": _any_of(re.escape(word) + "(?![a-z])" * _is_latin(word) for word in self.units),
            "magnitude": _any_of(word + "(?![a-z])" * _is_latin(word) for word in self.magnitudes),
            "number": _any_of(known),
        }

    def __getattr__(self, name: str) -> re.Pattern[str]:
        """The pattern of this name, compiled at its first use."""
        if name not in PATTERNS and name not in self._files[0]:
            raise AttributeError(name)
        written = PATTERNS.get(name, f"<<{name}>>")
        while "<<" in written:  # a phrase may hold a list itself
            written = re.sub("<<(.*?)>>", lambda found: self._phrases(found[1].split()), written)
        pattern = re.compile(written)
        setattr(self, name, pattern)
        return pattern

    def _phrases(self, keys: list[str]) -> str:
        """All phrases of some lists as one group; each language has its own word boundaries."""
        if keys[0] in self._groups:
            return self._groups[keys[0]]
        groups = []
        for file in self._files:
            phrases = "|".join(phrase for key in keys for phrase in file.get(key, ()))
            groups += [rf"(?<!\w)(?:{phrases})(?!\w)" if file["words"] else phrases] * bool(phrases)
        return f"(?:{'|'.join(groups) or '(?!)'})"

    def _table(self, key: str) -> dict[str, int]:
        return {word: value for file in self._files for word, value in file.get(key, {}).items()}


def _is_latin(word: str) -> bool:
    return word.isascii() and word[-1].isalpha()


def _any_of(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


lexicon: Callable[[str, bool], Lexicon] = lru_cache(maxsize=None)(Lexicon)
