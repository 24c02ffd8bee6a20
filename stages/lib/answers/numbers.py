"""Numbers as people write them: the quantities in a text, and their exact values.

    quantities_in("$1.5 million for 2 1/2 days")  → 1500000 (money), 5/2 (time)
    quantity_at("七十二个夹子")                     → 72

The text comes from ``spelling.normalise``. Read are decimals (.5), exponents (1.5e3), fractions and mixed numbers
(3/4, 2 1/2), a number and a word (192 million, 1.8万), currency and units on either side, compound units (2 hours 40
minutes is one quantity), clock times and ratios (10:30 is a pair); numbers in Chinese or English words only where
one is expected.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from stages.lib.answers.chinese import NUMERAL, numeral_value
from stages.lib.answers.units import PERCENT, SYMBOLS, UNIT, Unit, unit
from stages.lib.answers.words import BEFORE_COUNT, COUNT, IN_WORDS, words_value

LONGEST = 200  # digits: a longer number is nobody's answer, and reading it costs more the longer it is
MAGNITUDES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
MAGNITUDES |= {"k": 10**3, "千": 10**3, "万": 10**4, "百万": 10**6, "千万": 10**7, "亿": 10**8}

WHOLE = r"\d{1,3}(?:,\d{3})+(?!\d)|(?<![\d.])[1-9]\d{0,2}(?: \d{3})+(?![\d,])|\d+"
QUANTITY = re.compile(
    rf"(?P<first>-\s?)?(?P<currency>(?:us|hk|a|c)?[$€£¥]\s?)?(?P<second>-\s?)?"
    rf"(?:(?P<pair>(?<![\d.:])\d{{1,4}}(?::\d{{1,4}}){{1,3}}(?![\d:]))"
    rf"|(?:(?P<whole>{WHOLE})(?P<decimals>\.\d+)?|(?P<point>(?<![\d.])\.\d+))"
    r"(?:(?P<e>e[+-]?\d{1,3})(?![\w])|\s?[×x*]\s?10\^(?P<ten>\d|\{-?\d{1,3}\}|-\d{1,3}))?"
    r"(?:(?P<mixed>(?(decimals)(?!))(?:\s|\s?又\s?|\sand\s)(?P<numerator>\d{1,4})\s?/\s?(?P<denominator>\d{1,4})(?![\d.]))"
    r"|\s?/\s?(?P<over>-?\d+(?:\.\d+)?))?)"
    r"(?P<gap>[\s*_-]{0,4})"
    r"(?:(?P<percent>%|per ?cent(?:age)?\b|个百分点)|(?P<half>[ap]\.?m\b\.?)"
    r"|(?P<magnitude>(?:hundred|thousand|million|billion|trillion)(?![a-z])|k(?![a-z])|百万|千万|[万亿千])?"
    rf"[\s*_-]{{0,4}}(?:(?:more|additional|extra|full|whole|total|个|多)\s?)?(?P<unit>{UNIT})?)?"
)
UNIT_AFTER = re.compile(rf"[\s*_-]{{0,4}}(?:个|多)?({UNIT})")
PERCENT_AFTER = re.compile(r"\s?(?:%|per ?cent)")
# what a number has that is more than digits and a unit
MARKS: tuple[str, ...] = ("first", "second", "currency", "pair", "decimals", "point", "e", "ten", "mixed", "over")
MARKS += ("percent", "half", "magnitude")
DIGIT = re.compile(r"\d")
# a number that nothing about it makes more of: the most, and read without the long pattern
BARE = re.compile(r"\d+(?=\s?\**\s?(?:[+=÷≈→)\]}?!;。，！？；、）\n颗只支本条张岁枚朵盒]|\Z))")
LEAD = re.compile(r"(?:-\s?)?(?:(?:us|hk|a|c)?[$€£¥]\s?)?(?:-\s?)?\.?$")  # what may stand before a number's first digit
ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
EVENING = ("下午", "晚上", "傍晚")
MORNING = ("上午", "早上", "凌晨", "清晨")
HALF_ENDS = frozenset("午上晚晨")
SPACED_SIGN = (*"=≈(:,，：是为于成了到*$[>{+×÷/剩", "is", "are", "to", "equals", "of", "was")
AT_ONCE = re.compile(r"[\s*_:：\"“'(（]{0,6}(?:大约|约|整整|about |exactly |approximately |just |only )?")
MEASURE = (
    "个只块元角分天年月周岁小时分钟秒次条本张支枝根朵颗粒棵头匹辆架艘件套双对副页杯瓶盒箱袋包打米英厘公里斤克吨磅人名位倍"
    "美株把台间层道题点星期步份串盘碗桶罐片滴"
)


class Quantity(NamedTuple):
    """A number as found in a (normalised) text: ``value`` counts ``unit`` where it has one.

    ``scale`` is the number word's (million), already in the value. A ``pair`` is 10:30, a ratio or a time of day.
    """

    text: str
    value: Fraction
    unit: Unit | None = None
    start: int = 0
    end: int = 0
    scale: int = 1
    kind: Literal["number", "pair"] = "number"
    half: Literal["am", "pm", None] = None


@lru_cache(maxsize=256)  # a sentence is asked for its numbers again and again
def quantities_in(text: str) -> tuple[Quantity, ...]:
    """The quantities of a normalised text, in order; what a compound unit joins is one (2 hours 40 minutes)."""
    return tuple(each_quantity(text))


def each_quantity(text: str) -> Iterator[Quantity]:
    """The same, one at a time: who needs only the first reads no further."""
    last: Quantity | None = None
    for quantity in _single(text):
        joined = _joined(last, quantity, text) if last else None
        if last and not joined:
            yield last
        last = joined or quantity
        if not last.unit:  # nothing joins it
            yield last
            last = None
    if last:
        yield last


def quantity_at(text: str, position: int = 0) -> Quantity | None:
    """The quantity with which a text goes on at a position, in digits or in words."""
    start = _end(AT_ONCE.match(text, position), position)
    window = text[max(0, position - 4) : start + 120]
    offset = max(0, position - 4)
    for quantity in each_quantity(window):
        if offset + quantity.end > start:
            at_once = offset + quantity.start <= start
            return moved(quantity, offset) if at_once else spelled_at(text, start)
    return spelled_at(text, start)


def spelled_at(text: str, start: int) -> Quantity | None:
    """A number in Chinese or English words that begins at a position."""
    chinese, english = NUMERAL.match(text, start), IN_WORDS.match(text, start)
    if chinese:
        value, end = numeral_value(chinese), chinese.end()
    elif english:
        value, end = words_value(english.group()), english.end()
    else:
        return None
    if value is None:
        return None
    named, percent = UNIT_AFTER.match(text, end), PERCENT_AFTER.match(text, end)
    found_unit = PERCENT if percent else unit(named[1]) if named else None
    return Quantity(text[start:end], value, found_unit, start, named.end() if named else end)


def spelled_in(text: str) -> list[Quantity]:
    """Chinese numerals before a measure word, or of several signs: 七十二个, 两只; not the 一 of 一起."""
    found: list[Quantity] = []
    for match in NUMERAL.finditer(text):
        before, after = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 1]
        several = len(match.group()) > 1 and re.search("[十百千万]|分之", match.group())
        single = match.group() not in "一半千万百亿" and after and after in MEASURE
        if before not in tuple("第每") and (several or single):
            quantity = spelled_at(text, match.start())
            joined = _joined(found[-1], quantity, text) if quantity and found else None
            found[-1:] = [joined] if joined else [*found[-1:], *([quantity] if quantity else [])]
    return found


def worded_in(text: str) -> list[Quantity]:
    """Numbers in English words that count something: three slices; not the two of them."""
    matches = (match for match in COUNT.finditer(text) if not BEFORE_COUNT.search(text, 0, match.start()))
    return [quantity for match in matches if (quantity := spelled_at(text, match.start()))]


def _single(text: str) -> Iterator[Quantity]:
    position = 0
    while found := DIGIT.search(text, position):
        start = found.start()
        lead = LEAD.search(text, max(position, start - 8), start) if _may_lead(text, start) else None
        bare = BARE.match(text, start) if not lead else None
        if bare:
            position = bare.end()
            value = _plain(bare.group())
            if value is not None and not text.startswith("第", start - 1):
                yield Quantity(bare.group(), value, None, start, position, half=_half_of_day(text, start))
            continue
        match = QUANTITY.match(text, lead.start() if lead else start)
        if match is None:
            position = found.end()
            continue
        position = match.end("gap")
        quantity = _quantity(match, text)
        if quantity and not _is_ordinal(match, text):
            position = quantity.end
            yield quantity


def _may_lead(text: str, start: int) -> bool:
    """Whether a sign or a currency may stand before a number: a look at two characters spares most a search."""
    before = text[max(0, start - 2) : start].rstrip()
    return before != "" and before[-1] in "-$€£¥."


def _is_ordinal(match: re.Match[str], text: str) -> bool:
    """第3天, the 3rd day."""
    return text.startswith("第", match.start() - 1) or (
        not match["gap"] and bool(ORDINAL.match(text, match.end("gap")))
    )


def _quantity(match: re.Match[str], text: str) -> Quantity | None:
    if not any(match.group(*MARKS)):  # digits and perhaps a unit: by far the most, so read without the rest
        start, end = match.span("whole")
        named = match["unit"]
        value = _plain(text[start:end])
        if value is None:
            return None
        found, stop = (unit(named), match.end()) if named else (None, end)
        return Quantity(text[start:end], value, found, start, stop, half=_half(match, text))
    return _marked_quantity(match, text)


def _marked_quantity(match: re.Match[str], text: str) -> Quantity | None:
    negative = _is_sign(match, text)
    value = _pair(match["pair"]) if match["pair"] else _number(match)
    if value is None:
        return None
    core_start = (
        match.start("pair") if match["pair"] else min(s for s in (match.start("whole"), match.start("point")) if s >= 0)
    )
    magnitude = (match["magnitude"] or "").lower()
    if magnitude == "k" and not match["currency"]:
        magnitude = ""
    scale = MAGNITUDES.get(magnitude, 1)
    core_end = match.start("gap")
    return Quantity(
        text=("-" if negative else "")
        + text[core_start:core_end].strip()
        + ("" if scale == 1 else " " * magnitude.isascii() + magnitude),
        value=_scaled(-value if negative else value, scale),
        unit=_unit(match, text),
        start=match.start() if negative or not match["first"] else match.start() + len(match["first"]),
        end=match.end() if match["unit"] or match["percent"] or match["magnitude"] or match["half"] else core_end,
        scale=scale,
        kind="pair" if match["pair"] else "number",
        half=_half(match, text),
    )


@lru_cache(maxsize=4096)
def _plain(digits: str) -> Fraction | None:
    """The value of digits with their separators; None for too many."""
    digits = digits.replace(",", "").replace(" ", "")
    return Fraction(int(digits)) if len(digits) <= LONGEST else None


def _scaled(value: Fraction, scale: int) -> Fraction:
    return value if scale == 1 else value * scale


def _number(match: re.Match[str]) -> Fraction | None:
    digits = (match["whole"] or "0").replace(",", "").replace(" ", "") + (match["decimals"] or match["point"] or "")
    if len(digits) > LONGEST or len(match["over"] or "") > LONGEST:
        return None
    value = Fraction(digits) if "." in digits else Fraction(int(digits))
    power = match["e"] or match["ten"]
    if power:
        value *= Fraction(10) ** int(power.strip("e{}"))
    if match["mixed"]:
        numerator, denominator = int(match["numerator"]), int(match["denominator"])
        return value + Fraction(numerator, denominator) if numerator < denominator else value
    if match["over"]:
        below = Fraction(match["over"])
        return value / below if below else None
    return value


def _pair(text: str) -> Fraction | None:
    first, second = (int(part) for part in text.split(":")[:2])
    return Fraction(first, second) if second else Fraction(first)


def _is_sign(match: re.Match[str], text: str) -> bool:
    """Whether the minus before a number is its sign: not one between two numbers, nor a list's dash."""
    minus = match["first"] or match["second"]
    if not minus:
        return False
    before = text[max(0, match.start() - 12) : match.start()]
    near = before.rstrip(" \t")
    if not near or near.endswith("\n"):
        return " " not in minus
    if near[-1].isascii() and (near[-1].isalnum() or near[-1] in ")]}.%$"):
        spaced = " " in minus
        return near.endswith(SPACED_SIGN) if spaced or near == before else True
    return " " not in minus or near.endswith(SPACED_SIGN)


def _unit(match: re.Match[str], text: str) -> Unit | None:
    if match["percent"]:
        return PERCENT
    if match["unit"]:
        return unit(match["unit"])
    # "$18" is money, "$18$" is mathematics
    if match["currency"] and not text.startswith("$", match.start("gap")):
        return SYMBOLS["$"] if "$" in match["currency"] else Unit("money", Fraction(100))
    return SYMBOLS.get(text[match.start("gap") : match.start("gap") + 1]) if "¢" in text else None


def _half(match: re.Match[str], text: str) -> Literal["am", "pm", None]:
    if match["half"]:
        return "am" if match["half"][0] == "a" else "pm"
    return _half_of_day(text, match.start())


def _half_of_day(text: str, start: int) -> Literal["am", "pm", None]:
    """By the word before a number: 下午3点."""
    before = text[max(0, start - 4) : start].rstrip(" *")
    if before[-1:] not in HALF_ENDS:
        return None
    return "pm" if before.endswith(EVENING) else "am" if before.endswith(MORNING) else None


def _joined(first: Quantity, second: Quantity, text: str) -> Quantity | None:
    """5 feet 6 inches, 2小时40分 and $3 and 50 cents as one; None where they are two quantities."""
    a, b = first.unit, second.unit
    if a is None or second.start - first.end > 12:
        return None
    between = text[first.end : second.start]
    if (
        a
        and not b
        and a.dimension == "time"
        and a.factor == 3600
        and re.match(r"分(?!之)", text[second.end : second.end + 2])
    ):
        b = unit("分钟")
        second = second._replace(unit=b, end=second.end + 1)
    if (
        not (a and b)
        or a.dimension != b.dimension
        or a.factor <= b.factor
        or not re.fullmatch(r"[\s*]*(?:and|,|零|又|和|，|、)?[\s*]*", between)
    ):
        return None
    if second.value * b.factor >= a.factor or second.value < 0:
        return None
    value = first.value * a.factor / b.factor + (second.value if first.value >= 0 else -second.value)
    return Quantity(text[first.start : second.end].strip(" *"), value, b, first.start, second.end)


def moved(quantity: Quantity, by: int) -> Quantity:
    """The quantity of a piece, with its place in the whole."""
    return quantity._replace(start=quantity.start + by, end=quantity.end + by)


def _end(match: re.Match[str] | None, otherwise: int) -> int:
    return match.end() if match else otherwise
