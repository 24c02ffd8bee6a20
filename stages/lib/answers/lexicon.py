"""The words by which an answer is known, compiled from one file a language: ``languages/en.toml`` and its siblings.

    lexicon("de", is_ascii=True).label.search("die antwort lautet 18.")

English and Chinese are always read: students often answer in one of them. A further language is a further file: its
lists add to theirs, and a list that it lacks adds nothing. Patterns are for text in lower case (``values.fold``).
"""

import re
import tomllib
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "languages"
MARKS = r"[\s*_”\"」】)]{0,6}"
GAP = r"(?:[\s*_~(-]|\\[,;:! ]|\\(?:text|mathrm|textbf|mbox)\s*\{){0,6}"
OPENINGS = ("check", "practice", "maybe_practice", "example", "later", "case", "rest")


class Unit(NamedTuple):
    """``factor`` is how many of its dimension's smallest unit one of it is; a percent changes into nothing else."""

    dimension: str
    factor: Fraction


class Lexicon:
    """The patterns and tables of a language, English and Chinese; of Chinese none where a text is ASCII."""

    def __init__(self, language: str, is_ascii: bool) -> None:
        names = dict.fromkeys(name for name in ("en", "zh", language) if (FOLDER / f"{name}.toml").is_file())
        files = [tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")) for name in names]
        self._files = [file for file in files if file["words"] or not is_ascii]
        self.decimal_comma = any(file.get("decimal_comma", False) for file in files)
        self.magnitudes, self.numbers, self.parts = (self._table(key) for key in ("magnitudes", "numbers", "parts"))
        units = [(dimension, table) for file in self._files for dimension, table in file.get("units", {}).items()]
        self.units = {word: Unit(of, Fraction(factor)) for of, table in units for word, factor in table.items()}
        self._numbers()
        self._statements()

    def _numbers(self) -> None:
        unit = "|".join(
            re.escape(word) + "(?![a-z])" * word[-1].isalpha() * word.isascii() for word in _longest(self.units)
        )
        self.unit = f"(?:{unit})"
        self.any_unit = re.compile(rf"(?<![a-z]){self.unit}")
        magnitude = "|".join(word + "(?![a-z])" * word.isascii() for word in _longest(self.magnitudes))
        self.behind_number = re.compile(
            rf"\s?(?P<half>[ap])\.?m\b\.?|{GAP}(?:(?P<percent>\\?%|per ?cent(?:age)?(?![a-z])|个百分点)"
            rf"|(?P<magnitude>{magnitude})?{GAP}(?:(?:more|additional|extra|full|whole|total|an?|of an?|个|多)\s?)?"
            rf"(?P<unit>{self.unit})?)"
        )
        known = [*self.numbers, *self.parts, *(name for name in self.magnitudes if len(name) > 1 and name.isascii())]
        word = rf"(?:{'|'.join(_longest(known))})s?(?![a-z])"
        self.in_words = re.compile(
            rf"(?<![\w-])(?:an?\s)?(?:{word}(?:(?:\s|-|\sand\s(?:an?\s)?){word}){{0,12}}|{self.unit} and a half)"
        )
        self.negative_before = self.pattern("negative_before", after=r"[\s*$]*\Z")
        self.negative_words = self.pattern("negative_words")
        self.negative_after = self.pattern("negative_after", before=r"[\s*]*")
        self.uncounted_before = self.pattern("uncounted_before", "scene_before", after=r"\s*\Z")
        self.pm, self.am = (self.pattern(half, after=r"\s?\**\Z") for half in ("pm", "am"))

    def _statements(self) -> None:
        answer, final, link, denies = (self.words(key) for key in ("answer", "final", "is", "denies"))
        self.label = re.compile(
            rf"(?P<final>{final}[\s*]{{0,3}})?{answer}(?:\s(?:to|for|of|auf|zu[mr]?|à|au|de|a|al|kwa|на|к)\s[^.\n:?。]{{0,80}}?)?"
            rf"(?:】|{MARKS}(?:{link}|[:=])(?P<denied>\s*{denies})?|{MARKS}(?=\n|\Z)|{MARKS}(?=[*$\\(]{{0,4}}-?\d))"
        )
        self.concludes = self.pattern("concludes", "total")
        self.total, self.clause, self.so, self.corrects = map(self.pattern, ("total", "clause", "so", "corrects"))
        self.hedge = self.pattern("hedge")
        self.yes, self.no, self.ratio = (self.pattern(key) for key in ("yes", "no", "ratio"))
        self.denied_before = self.pattern("denied_before", after=r"[\s*$¥€£]*\Z")
        self.denied_after = self.pattern("denied_after", before=r"[\s*]*(?:\w+\s)?")
        joins, between = self.words("joins"), self.words("about", "is", "hedge")
        self.joins = re.compile(rf"(?:[,、;/~±&-]|{joins})(?:[\s*$]|{between})*\Z")
        self.tag = self.pattern("tag", after=r"[^?\n]{0,6}\?")
        self.scene_before = self.pattern("scene_before", after=r"[\s*$]*\Z")
        self.scene_after = self.pattern("scene_after", before=r"[\s*_-]*")
        lead = (
            rf"[\W_]{{0,12}}(?:[一二三四五六七八九十\d]{{1,2}}[、.)\s]\s?)?(?:{self.words('lead')}[\W_]{{0,4}}){{0,5}}"
        )
        self.opens = re.compile(lead + f"(?:{'|'.join(f'(?P<{kind}>{self.words(kind)})' for kind in OPENINGS)})")
        self.asks = {kind: self.pattern(f"asks_{kind}") for kind in ("later", "rest")}
        self.asked = re.compile(self.words("asked").replace("UNIT", self.unit))
        self.counted = self.pattern("counted")
        self.about = self.pattern("about", after=r"\s?")
        self.common = frozenset(name for file in self._files for name in " ".join(file.get("common", ())).split())
        self.option = self.words("option")

    def value_of(self, name: str) -> Fraction | None:
        """The value of a number in words: seventy-two, two thirds, three and a half; None for none (five six)."""
        words = [word for word in re.split(r"[\s-]+", name) if word not in ("and", "a", "an")]
        if words[0] in self.units:  # an hour and a half
            return Fraction(3, 2)
        part = self.parts.get(words[-1])
        if not part:
            return self._count(words)
        if " and " in name:
            whole, rest = (self.value_of(half) for half in name.split(" and ", 1))
            return None if whole is None or rest is None else whole + rest
        above = self._count(words[:-1]) if words[:-1] else Fraction(1)
        return None if above is None else above / part

    def _count(self, words: list[str]) -> Fraction | None:
        total = section = 0
        for word in words:
            number, magnitude = self.numbers.get(word), self.magnitudes.get(word.removesuffix("s"))
            if number is not None and not section % 10 and not (section % 100 and number >= 10):
                section += number
            elif magnitude and magnitude <= 100:
                section = (section or 1) * magnitude
            elif magnitude:
                total, section = total + (section or 1) * magnitude, 0
            else:
                return None
        return Fraction(total + section)

    def names_scale(self, scale: int, text: str) -> bool:
        """Whether a text has a number word of this factor: million."""
        return any(
            word in text for word, factor in self.magnitudes.items() if factor == scale and word not in ("k", "m")
        )

    def words(self, *keys: str) -> str:
        """All phrases of some lists as one group; each language's with its own borders."""
        lists = [(file, [word for key in keys for word in file.get(key, ())]) for file in self._files]
        groups = [
            rf"(?<!\w)(?:{'|'.join(words)})(?!\w)" if file["words"] else "|".join(words)
            for file, words in lists
            if words
        ]
        return f"(?:{'|'.join(groups) or '(?!)'})"

    def pattern(self, *keys: str, before: str = "", after: str = "") -> re.Pattern[str]:
        """The same, compiled."""
        return re.compile(before + self.words(*keys) + after)

    def _table(self, key: str) -> dict[str, int]:
        return {name: value for file in self._files for name, value in file.get(key, {}).items()}


def _longest(words: Any) -> list[str]:
    return sorted(words, key=len, reverse=True)


lexicon: Callable[[str, bool], Lexicon] = lru_cache(maxsize=None)(Lexicon)
