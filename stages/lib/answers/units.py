"""Units that change into one another by a fixed factor, in English and Chinese.

    unit("minutes")            → Unit("time", 60)           unit("美分") → Unit("money", 1)
    asked_unit("How many hours did it take?") → Unit("time", 3600)

Months and years are a dimension of their own: a month has no fixed number of days. A percent is no factor of 1/100
but a unit of its own: 25 % is 25 of something, never 0.25.
"""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """``factor`` is how many of its dimension's smallest unit one of it is."""

    dimension: str
    factor: Fraction


PERCENT = Unit("percent", Fraction(1))
NAMES: dict[str, dict[str, int]] = {
    "time": {
        "seconds second secs sec 秒钟 秒": 1,
        "minutes minute mins min 分钟": 60,
        "hours hour hrs hr 小时 钟头": 3600,
        "days day 天": 86_400,
        "weeks week 星期 礼拜 周": 604_800,
    },
    "calendar": {"months month 个月": 1, "years year 年": 12, "decades decade": 120},
    "money": {
        "cents cent pennies penny ¢ 美分 分钱": 1,
        "dimes-worth 角 毛": 10,
        "dollars dollar bucks usd 美元 美金 人民币 块钱 块 元": 100,
    },
    "metric length": {
        "millimeters millimeter millimetres mm 毫米": 1,
        "centimeters centimeter centimetres cm 厘米": 10,
        "meters meter metres metre 米": 1000,
        "kilometers kilometer kilometres km 公里 千米": 1_000_000,
    },
    "length": {
        "inches inch 英寸": 1,
        "feet foot ft 英尺": 12,
        "yards yard 码": 36,
        "miles mile 英里": 63_360,
    },
    "metric weight": {"grams gram 克": 1, "kilograms kilogram kgs kg kilos 千克 公斤": 1000, "tonnes 吨": 1_000_000},
    "weight": {"ounces ounce oz 盎司": 1, "pounds pound lbs lb 磅": 16},
    "metric volume": {"milliliters milliliter millilitres ml 毫升": 1, "liters liter litres litre 升": 1000},
    "volume": {"cups cup": 1, "pints pint 品脱": 2, "quarts quart 夸脱": 4, "gallons gallon 加仑": 16},
    "count": {"dozens dozen 打": 12},
    "percent": {"percentage percent %": 1},
}
UNITS = {
    word: Unit(dimension, Fraction(factor))
    for dimension, names in NAMES.items()
    for words, factor in names.items()
    for word in words.split()
}
SYMBOLS = {"$": UNITS["dollar"], "¢": UNITS["cent"]}
_LONGEST_FIRST = sorted(UNITS, key=len, reverse=True)
_ASCII = "|".join(re.escape(word) for word in _LONGEST_FIRST if word.isascii() and word.isalpha())
_CHINESE = "|".join(word for word in _LONGEST_FIRST if not word.isascii() and word.isalpha())
UNIT = rf"(?:(?:{_ASCII})(?![a-z])|(?:{_CHINESE}))"
MENTIONED = re.compile(rf"(?<![a-z]){UNIT}|[%$¢]")
ASKED = re.compile(
    rf"(?=[hip多几以百])(?:how (?:many|much)(?: \w+){{0,2}}? (?P<how>{UNIT})"
    rf"|(?<![a-z])in (?:total )?(?P<in>{UNIT})(?=[^.?]{{0,60}}\?|[.)]?\s*$)"
    rf"|(?P<what>percentage|percent)(?=[^.?]{{0,80}}\?)|(?P<cost>how much (?:money|does|did|do|will|would|is|was)\b)"
    rf"|(?:多少|几)个?(?P<chinese>{UNIT})|以\s*(?P<by>{UNIT})\s*为单位|(?P<share>百分之几|百分比))",
)


def unit(word: str) -> Unit | None:
    """The unit of a name; None for what is no unit here (apples, 岁)."""
    return UNITS.get(word.lower())


def asked_unit(question: str) -> Unit | None:
    """The unit that the question's last ask names; None where it names none (how long, how many apples, how much)."""
    found = None
    for match in ASKED.finditer(question.lower()):
        name = match["how"] or match["in"] or match["chinese"] or match["by"]
        found = unit(name) if name else PERCENT if match["what"] or match["share"] else None
    return found


def mentioned_units(question: str) -> set[Unit]:
    """Every unit that the question speaks of."""
    words = (match.group() for match in MENTIONED.finditer(question.lower()))
    return {found for word in words if (found := SYMBOLS.get(word) or unit(word))}
