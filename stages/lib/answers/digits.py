"""Numbers written in words, or half in words, as digits: so that the rules meet them as they meet all others.

    in_digits("一共是1万5620元")              → "一共是15620元"
    in_digits("he had seventy-two clips")      → "he had 72 clips"
    in_digits("**three degrees below zero**")  → "**-3 degrees **"
    in_digits("零度以下10度")                    → "-10度"

English words are written in digits from eleven on, and zero: the smaller ones (one of them, the two of us) are numbers
only where one is expected. Chinese numerals likewise, but for those that digits or a minus stand beside.
"""

import re

from stages.lib.answers.chinese import integer
from stages.lib.answers.words import IN_WORDS, words_value

SIGNS = "零〇一二两三四五六七八九十百千万亿"
MIXED = re.compile(rf"(?<![\d.,])(?:\d+|[一二两三四五六七八九])[十百千万亿][\d{SIGNS}]*(?![.,]\d)")
# 5千, 8百万 and the like are read as they are; 百分 and 千克 begin another word
ONE_MAGNITUDE = re.compile(r"\d+(?:[百千]?[万亿]|千)")
NUMERAL = f"[{SIGNS}]{{1,12}}"
NEGATIVE = re.compile(rf"(?:零下|负)(?:的|摄氏|华氏)?\s?(?P<bold>\**)\s?(?:(?P<numeral>{NUMERAL})|(?=\d))")
BELOW = re.compile(
    r"(?:比\s?)?(?<![\d.])(?:零|0\s?)(?:摄氏|华氏)?[度°]c?(?:以下|下面|之下|还?低)的?\s?(?P<bold>\**)\s?"
    rf"(?:(?P<numeral>{NUMERAL})|(?=\d))"
)
ENGLISH_MIXED = re.compile(
    r"(?<![\d.,])\d+ (?:hundred|thousand|million|billion)"
    r"(?: (?:and )?\d+ (?:hundred|thousand|million)(?![a-z]))+(?: and \d+(?![\d.,]*\d))?"
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
# one of these is in every number in English words that is written in digits
LARGE: tuple[str, ...] = (
    "teen",
    "twent",
    "thirt",
    "fort",
    "fift",
    "eight",
    "ninet",
    "sixt",
    "sevent",
    "eleven",
    "twelve",
    "zero",
)
LARGE += ("hundred", "thousand", "million")
LATIN = re.compile("[a-z]{4}")
IN_LARGE_WORDS = re.compile(rf"(?<![\w-])(?<!\d[ -]){IN_WORDS.pattern}(?!-?[a-z\d]|\s?/)")
NO_COUNT = re.compile(r"half|hal|third|quarter|(?:four|fif|six|eigh|ten)th|dozen|s\b|^(?:hundred|thousand|[mb]illion)")
NEGATIVE_WORDS = re.compile(rf"(?:negative\s|minus\s(?=[a-z -]{{1,40}} degree))({IN_WORDS.pattern})")
BELOW_ZERO = re.compile(
    rf"(?P<number>\d[\d,.]*|{IN_WORDS.pattern})"
    r"(?P<degrees>\**\s?(?:°\s?[cf]?|degrees?(?: (?:fahrenheit|celsius))?)?\**)\s?below (?:zero|0)\b"
)


def in_digits(text: str) -> str:
    """A text in lower case with its large, mixed and negative numbers in digits."""
    if not text.isascii():
        text = _chinese(text)
    if "below " in text:
        text = BELOW_ZERO.sub(lambda found: f"-{_value(found['number'])}{found['degrees']}", text)
    if "negative " in text or "minus " in text:
        text = NEGATIVE_WORDS.sub(lambda found: f"-{_value(found[1])}", text)
    if LATIN.search(text) and any(word in text for word in LARGE):
        text = IN_LARGE_WORDS.sub(lambda found: _large(found.group()), text)
        text = ENGLISH_MIXED.sub(_sum, text)
    return text


def _chinese(text: str) -> str:
    if "百" in text or "千" in text or "万" in text or "亿" in text:
        text = MIXED.sub(_mixed, text)
    if "负" in text or "零下" in text:
        text = NEGATIVE.sub(_negative, text)
    if "零度" in text or "0度" in text or "0°" in text or "零摄氏" in text:
        text = BELOW.sub(_negative, text)
    return text


def _mixed(found: re.Match[str]) -> str:
    text = found.group()
    following = found.string[found.end() : found.end() + 1]
    if following in ("克", "米", "分") and text[-1] in "百千":
        return text
    if not re.search(r"\d", text) or ONE_MAGNITUDE.fullmatch(text):
        return text
    value = integer(text)
    return text if value is None else str(value)


def _negative(found: re.Match[str]) -> str:
    if not found["numeral"]:
        return f"{found['bold']}-"
    several = re.fullmatch("[一二两三四五六七八九]{2,}", found["numeral"])  # 零下五六度
    value = None if several else integer(found["numeral"])
    return found.group() if value is None else f"{found['bold']}-{value}"


def _large(text: str) -> str:
    """In digits from eleven on, and zero; a fraction, a dozen and the hundreds' place stay words."""
    if NO_COUNT.search(text):
        return text
    value = words_value(text)
    return text if value is None or 0 < value < 11 else str(value)


def _value(text: str) -> str:
    value = None if text[0].isdigit() else words_value(text)
    return text if value is None else str(value)


def _sum(found: re.Match[str]) -> str:
    """2 thousand 4 hundred as 2400."""
    parts = re.findall(r"(\d+)(?: (hundred|thousand|million|billion))?", found.group())
    return str(sum(int(number) * SCALES.get(scale, 1) for number, scale in parts))
