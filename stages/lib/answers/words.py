"""Numbers in English words: seventy-two → 72, one hundred and five → 105, two thirds → 2/3, three and a half → 3.5."""

import re
from fractions import Fraction

UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SMALL = {word: value for value, word in enumerate(UNITS)} | {word: 20 + 10 * index for index, word in enumerate(TENS)}
LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
WORD = "|".join(sorted([*SMALL, *LARGE, *PARTS, "hundred", "dozen"], key=len, reverse=True))
IN_WORDS = re.compile(rf"(?:an?\s+)?(?:{WORD})s?\b(?:(?:[\s-]|\s+and\s+|\s+and\s+an?\s+){{1,3}}(?:{WORD})s?\b){{0,12}}")

SCENERY = (
    r"\b(?:the|these|those|both|all|each|every|any|other|next|first|last|another|his|her|their|this|that|no|of|in|for) "
)
COUNT = re.compile(rf"(?<!-)\b(?!(?:{'|'.join(PARTS)})s?\b|one\b){IN_WORDS.pattern}")
BEFORE_COUNT = re.compile(SCENERY + "$")


def words_value(text: str) -> Fraction | None:
    """The value of a number in words, as ``IN_WORDS`` finds one; None where the words make no number."""
    words = [word for word in re.split(r"[\s-]+", text.lower()) if word not in ("and", "a", "an")]
    part = _part(words[-1])
    if not part:
        return _count(words)
    if len(words) > 1 and re.search(r"\band\b", text.lower()):  # three and a half, two and three quarters
        above = _count(words[-2:-1]) if not re.search(r"\band\s+an?\b", text.lower()) else None
        whole = _count(words[:-2] if above else words[:-1])
        return None if whole is None else whole + (above or 1) / Fraction(part)
    above = _count(words[:-1]) if len(words) > 1 else Fraction(1)
    return None if above is None else above / part


def _part(word: str) -> int | None:
    return PARTS.get(word) or PARTS.get(word.removesuffix("s"))


def _count(words: list[str]) -> Fraction | None:
    total = section = 0
    if not words:
        return None
    for word in words:
        if word in SMALL:
            if section % 10 or (section % 100 and SMALL[word] >= 10):
                return None  # "five six" is two numbers
            section += SMALL[word]
        elif word.removesuffix("s") == "hundred":
            section = (section or 1) * 100
        elif word.removesuffix("s") == "dozen":
            section = (section or 1) * 12
        elif word.removesuffix("s") in LARGE:
            total, section = total + (section or 1) * LARGE[word.removesuffix("s")], 0
        else:
            return None
    return Fraction(total + section)
