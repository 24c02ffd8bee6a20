r"""Read numbers as people write them: every value of a text, with its span.

    Text("$1.5 million for 2\\frac12 days", lexicon("en")).values(0, 40)  → 1500000 (money), 5/2 (time)

What is read:

    digits with their separators    1,080 · 3{,}332 · 1 000 · 1,14,200, decimals, exponents
    fractions and mixed numbers     3/4, 2 1/2, \frac{3}{4}, ½, 三分之二
    percent, currency and units     on either side; compound units (2 hours 40 minutes is one value)
    clock times and ratios          10:30 is a pair
    number words                    192 million, 1.8万, 3万2750
    Chinese and English words       only where a piece of text has no digits

Spans are positions in the text itself: ``fold`` changes characters one by one.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

from stages.lib.answers.lexicon import Lexicon, Unit

SHORT = 80  # characters: a shorter piece is read alone, as long as the whole text was not read
LONGEST = 200  # digits: a longer number is never an answer, and the time to read it grows with its length
FOLDED = str.maketrans(
    "０１２３４５６７８９．＋／％＝＄￥（）＊，：；！？−–—﹣－‒‑∶×✕✖⨯∙·⋅\u00a0\u2009\u202f\u3000\u2002\u2003≒≃∼～।"
    "০১২৩৪৫৬৭৮৯౦౧౨౩౪౫౬౭౮౯๐๑๒๓๔๕๖๗๘๙",
    "0123456789.+/%=$¥()*,:;!?-------:×××××××      ≈≈~~。" + "0123456789" * 3,
)
VULGAR = {sign: unicodedata.normalize("NFKC", sign).replace("\u2044", "/") for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
NUMERALS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "俩": 2}
FACTORS = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
N = "[零〇一二两俩三四五六七八九十百千万亿]"

SEPARATOR = r"(?:,|\{,\}|\\,|,\\!|\\!,|\\[ ;:]|\{\\,\})"
WHOLE = (
    rf"\d{{1,3}}(?:{SEPARATOR}\d{{3}})+(?!\d)|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!\d)"
    r"|(?<![\d.])[1-9]\d{0,2}(?: \d{3})+(?![\d,])|\d+"
)
REAL = r"-?\d[\d,]*(?:\.\d+)?"
FRAC = rf"\\[dtc]?frac\s*(?:\{{\s*{REAL}\s*\}}|\d)\s*(?:\{{\s*{REAL}\s*\}}|\d)"
PART = rf"[{''.join(VULGAR)}]"
START = re.compile(
    rf"\d|(?<![\d.])\.\d|{PART}|\\[dtc]?frac(?=[\s{{\d])|[一二两三四五六七八九](?=[十百千万亿]\d)"
    rf"|(?<!分)(?=[百千十一二两三四五六七八九万]{{1,6}}(?:又{N}{{1,6}})?分之{N}){N}"
)
ASCII_START = re.compile(r"\d|(?<![\d.])\.\d|\\[dtc]?frac(?=[\s{\d])")
BARE = re.compile(r"\d{1,15}(?=\s?[+=×÷)\]?!;<]|\Z|\n|\.(?:\s|\Z)|,\s)")  # most numbers: nothing more to read
NUMBER = re.compile(
    r"(?P<pair>\d{1,4}(?:(?::|\x00+)\d{1,4}){1,2}(?![\d:]))|(?P<clock>\d{1,2}\s?[点时]\s?(?:\d{1,2}\s?分(?!之)|半|整|钟))"
    rf"|(?P<numeral>{N}{{1,6}}(?:又{N}{{1,6}})?分之{N}+|[一二两三四五六七八九][十百千万亿](?:\d|{N})+)|(?P<fraction>{FRAC}|{PART})"
    rf"|(?:(?P<whole>{WHOLE})(?P<decimals>\.\d+)?|(?P<point>\.\d+))"
    r"(?:(?P<power>e[+-]?\d{1,3}(?!\w)|\s?(?:[×x*]|\\times)\s?10\s?\^\s?(?:\d|\{-?\d{1,3}\}|-\d{1,3}))"
    rf"|(?(decimals)(?!))(?:\s|\s?又\s?|\sand\s)?(?P<mixed>(?<!\d)\d{{1,4}}\s?/\s?\d{{1,4}}(?!\.?\d)|{FRAC}|{PART})"
    r"|\s?/\s?(?P<over>-?\d+(?:\.\d+)?)|\s?分之\s?(?P<above>\d+)|(?P<half>个半)"
    rf"|(?P<rest>(?<=\d)[十百千万亿](?:\d|{N})+))?"
)
# not values: the number of a list item or a step, GSM8K's calculator notes
UNCOUNTED = re.compile(
    r"(?m:^)[#>*+| \t_-]{0,20}\d{1,2}(?:\ufe0f?\u20e3|[、)](?=[^\S\n]*[^\s\d])|\.(?=[*_]{0,3}[^\S\n]+\S|[^\s\d.*,)%]))"
    r"|<<[^<>\n]{0,200}>>|\d\ufe0f?\u20e3"
)
PREFIX = re.compile(r"(?:(?P<minus>-)(?P<space>\s?))?(?:(?:us|hk|a|c)?\\?(?P<money>[$€£¥])\s?)?(?P<second>-\s?)?\Z")
SIGNED = re.compile(
    r"(?:[=≈(:,是为于成了到*$\[>{+×÷/剩约]|is|are|to|equals|of|was)[ \t]*\Z"
)  # a minus after it is a sign
CLOSES = frozenset("abcdefghijklmnopqrstuvwxyz0123456789)]}.%$")  # a minus directly after it is not a sign
# where the comma is the decimal sign: 1.234,50 and 1,5 have one reading; 1.000 has two, the thousand first
COMMA = re.compile(
    r"(?:(?P<open>[1-9]\d{0,2}(?:[.,]|\{,\})\d{3})|(?P<sure>[1-9]\d{0,2}(?:[. '’]\d{3})+(?:,\d+)?|\d+(?:,|\{,\})\d+))"
    r"(?!(?:[.,'’]|\{,\})?\d| \d{3}(?!\d))"
)
CHINESE = re.compile(
    rf"(?:(?P<whole>{N}{{1,24}})又)?(?P<below>{N}{{1,24}})分之(?P<above>{N}{{1,24}})"
    rf"|(?P<integer>(?!一[起共样定些下直般开边旦点半]){N}{{1,24}})(?:点(?P<decimals>[零〇一二三四五六七八九]{{1,12}}))?"
    r"(?P<half>[个小时年天月周]{1,2}半)?|(?P<only_half>一半)"
)
MEASURE = frozenset(
    "个個只块元角分天年月周岁小时秒次条本张支枝根朵颗粒棵头匹辆架艘件套双对副页杯瓶盒箱袋包打米英厘公里斤克吨磅人名位"
    "倍度美株把台间层道题点星期步份串盘碗桶罐片滴"
)


class Value(NamedTuple):
    """A number in a text: ``value``, in ``unit`` where it has one.

    ``end`` is where the number ends, ``stop`` where its unit ends. ``scale`` is the factor of a number word (million),
    already in the value. ``decimals`` is the number of decimal places written. ``pair`` holds the parts of 10:30,
    ``half`` its am or pm. ``other`` is a second reading (1.000 in German).
    """

    value: Fraction
    start: int
    end: int
    stop: int
    unit: Unit | None = None
    scale: int = 1
    decimals: int = 0
    pair: tuple[int, ...] = ()
    half: str = ""
    other: Fraction | None = None


def fold(text: str) -> str:
    """The text in lower case, with one spelling of digits, signs and spaces; every character keeps its position."""
    lower = text.lower()
    if text.isascii():
        return lower
    if len(lower) != len(text):
        lower = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
    return lower.translate(FOLDED)


class Text:
    """A folded text and its values, which are read once."""

    def __init__(self, text: str, words: Lexicon) -> None:
        self.words = words
        listed = "\n" in text or "<" in text or text[:2].strip("*# ")[:1].isdigit()
        self.text = UNCOUNTED.sub(lambda found: " " * len(found.group()), text) if listed else text

    def values(self, start: int, end: int) -> tuple[Value, ...]:
        """The values that begin between two positions, in order; values in words only where none is in digits."""
        if "_digits" not in self.__dict__ and end - start < SHORT < len(self.text):  # most verdicts need no more
            found = tuple(self._joined(start, end))
            if found:
                return found
        return _between(self._digits, start, end) or self.worded(start, end)

    def worded(self, start: int, end: int) -> tuple[Value, ...]:
        """The values written in words between two positions."""
        return _between(self._worded, start, end)

    @cached_property
    def _digits(self) -> list[Value]:
        return self._joined(0, len(self.text))

    @cached_property
    def _worded(self) -> list[Value]:
        """七十二个, 两只, seventy-two; not the 一 in 一起, and not the two in "the two"."""
        text, words, values = self.text, self.words, list[Value]()
        found = [(match, _english_value(match.group(), words)) for match in words.in_words.finditer(text)]
        found += [(match, _chinese_value(match)) for match in (() if text.isascii() else CHINESE.finditer(text))]
        for match, value in sorted(found, key=lambda each: each[0].start()):
            at, stop = match.start(), values[-1].stop if values else 0
            if value is not None and at >= stop and self._is_counted(match, value):
                _, unit, _, stop = self._suffix(match.end())
                negative, stop = self._sign(at, stop)
                values.append(Value(-value if negative else value, at, match.end(), stop, unit))
        return values

    def _is_counted(self, match: "re.Match[str]", value: Fraction) -> bool:
        """Whether a number word counts something."""
        word, at, after = match.group(), match.start(), self.text[match.end() : match.end() + 1]
        before = self.text[max(0, at - 1) : at]
        if word.isascii():
            is_context = value <= 12 and self.words.uncounted_before.search(self.text, max(0, at - 16), at)
            return word != "one" and not is_context
        several = len(word) > 1 and re.search("[十百千万]|分之|半", word)
        single = word not in "千万百亿" and (after in MEASURE or not after.isalpha())
        return bool(several or single) and before != "每" and before + after != "第步"

    def _joined(self, start: int, end: int) -> list[Value]:
        kept: list[Value] = []
        for value in self._each(start, end):
            joined = self._compound(kept[-1], value) if kept and (kept[-1].unit or kept[-1].scale > 1) else None
            kept[len(kept) - bool(joined) :] = [joined or value]
        return kept

    def _each(self, position: int, end: int) -> Iterator[Value]:
        text = self.text
        start = ASCII_START if text.isascii() else START
        while match := start.search(text, position, end):
            at = match.start()
            bare = BARE.match(text, at)
            if bare and (at == 0 or text[at - 1] not in "-$¥€£ .\\负度下*") and not self.words.decimal_comma:
                position = bare.end()
                yield Value(_whole(bare.group()), at, position, position)
                continue
            number = NUMBER.match(text, at)
            value = self._number(number) if number and number.end() - at <= LONGEST else None
            position = value.stop if value else max(number.end() if number else 0, at + 1)
            if value:
                yield value

    def _number(self, match: "re.Match[str]") -> Value | None:
        text, words, at, stop = self.text, self.words, match.start(), match.end()
        pair = _pair(match) if match["pair"] or match["clock"] else ()
        value, other = _value(match, pair), None
        if words.decimal_comma and match["whole"] and (comma := COMMA.match(text, at)):
            stop, digits = comma.end(), re.sub(r"[^\d,]" if comma["sure"] else r"\D", "", comma.group())
            value = Fraction(digits.replace(",", "."))
            other = value / 1000 if comma["open"] else None
        if value is None:
            return None
        start, negative, money = self._prefix(at)
        scale, unit, half, after = self._suffix(stop, money)
        if money and unit is None and not text.startswith("$", stop):
            unit = words.units["$"]
        if match.group().startswith("百分之"):
            value, unit = value * 100, words.units["%"]
        signed, after = self._sign(start, after)
        factor = -scale if negative or signed else scale
        decimals = len(match["decimals"] or match["point"] or ".") - 1
        if factor != 1:
            value, other = value * factor, other and other * factor
        return Value(value, start, stop, after, unit, scale, decimals, pair, half, other)

    def _sign(self, start: int, stop: int) -> tuple[bool, int]:
        """Whether words say that a number is negative (零下5度, 5 degrees below zero), and where they end."""
        below = self.words.negative_after.match(self.text, stop)
        before = start and self.words.negative_before.search(self.text, max(0, start - 16), start)
        return bool(below or before), below.end() if below else stop

    def _prefix(self, at: int) -> tuple[int, bool, bool]:
        """Where a number starts (sign and currency included), whether it has a minus, and whether it is money."""
        before = self.text[max(0, at - 24) : at]
        match = None if before[-1:].isalnum() else PREFIX.search(before, max(0, len(before) - 8))
        if not match or not match.group():
            return at, False, False
        ahead = before[: match.start()]
        # a minus between two numbers is not a sign, and neither is a list's dash
        sign = SIGNED.search(ahead) or not (match["space"] or ahead[-1:] in CLOSES)
        negative = bool(match["second"] or (match["minus"] and sign))
        start = match.start() if negative else match.start("money") if match["money"] else len(before)
        return at - len(before) + start, negative, bool(match["money"])

    def _suffix(self, at: int, money: bool = False) -> tuple[int, Unit | None, str, int]:
        """What follows a number: the number word's factor, the unit, am or pm, and where that ends."""
        match = self.words.behind_number.match(self.text, at)
        if not match or (match["magnitude"] in ("k", "m") and not money):
            return 1, None, "", at
        if match["half"]:
            return 1, None, f"{match['half']}m", match.end()
        unit = self.words.units.get("%" if match["percent"] else match["unit"] or "")
        scale = self.words.magnitudes.get(match["magnitude"] or "", 1)
        return scale, unit, "", match.end() if scale != 1 or unit else at

    def _compound(self, first: Value, second: Value) -> Value | None:
        """2 hours 40 minutes, 3元5角 and 2 thousand 4 hundred as one value."""
        a, b, between = first.unit, second.unit, self.text[first.stop : second.start]
        if first.scale > second.scale > 1 and not between.strip():
            return second._replace(value=first.value + second.value, start=first.start, scale=1)
        if not (a and b) or a.dimension != b.dimension or not 0 <= second.value * b.factor < a.factor:
            return None
        if not re.fullmatch(r"[\s*}]{0,4}(?:and|,|零|又|和|、)?[\s*]{0,4}", between):
            return None
        value = first.value * a.factor / b.factor + (second.value if first.value >= 0 else -second.value)
        return Value(value, first.start, second.end, second.stop, b)


def _between(values: list[Value], start: int, end: int) -> tuple[Value, ...]:
    first, last = (bisect_left(values, place, key=lambda value: value.start) for place in (start, end))
    return tuple(values[first:last])


@lru_cache(maxsize=4096)
def _whole(digits: str) -> Fraction:
    return Fraction(int(digits))


def _pair(match: "re.Match[str]") -> tuple[int, ...]:
    """The numbers of 10:30, 10点30分 and 10点半."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", match.group()))
    return numbers if len(numbers) > 1 else (*numbers, 30 * ("半" in match.group()))


def _value(match: "re.Match[str]", pair: tuple[int, ...]) -> Fraction | None:
    """The value of a match of ``NUMBER``; None for a division by zero."""
    if pair or (match.lastgroup == "whole" and match["whole"].isdigit()):
        return Fraction(pair[0], pair[1] or 1) if pair else _whole(match["whole"])
    if match["numeral"] or match["rest"]:
        found = CHINESE.fullmatch(match.group())
        return _chinese_value(found) if found else _integer(match.group())
    if match["fraction"]:
        return _fraction(match["fraction"])
    value = re.sub(r"\D", "", match["whole"] or "0") + (match["decimals"] or match["point"] or "")
    if match["above"] or match["over"]:
        return _quotient(match["above"], value) if match["above"] else _quotient(value, match["over"])
    power = int(re.sub(r".*\^|[{}e\s]", "", match["power"])) if match["power"] else 0
    part = Fraction(1, 2) if match["half"] else _fraction(match["mixed"]) if match["mixed"] else None
    return Fraction(value) * Fraction(10) ** power + (part if part and part < 1 else 0)


def _fraction(text: str) -> Fraction | None:
    r"""½, 1/2, \frac12 and \frac{3}{4}."""
    parts = re.findall(REAL, VULGAR.get(text, text))
    return _quotient(*(parts if len(parts) > 1 else parts[0][-2:]))


def _quotient(above: str, below: str) -> Fraction | None:
    divisor = Fraction(below.replace(",", ""))
    return Fraction(above.replace(",", "")) / divisor if divisor else None


def _count(words: list[str], numbers: Mapping[str, int], factors: Mapping[str, int]) -> Fraction | None:
    """The value of number words in order, in Chinese or English; None for others (five six)."""
    total = section = digit = 0
    last = 10**18
    for word in words:
        factor = factors.get(word.removesuffix("s"))
        if factor is None:
            number = int(word) if word.isdigit() else numbers.get(word)
            if number is None or (digit and (digit % 10 or number >= 10)):
                return None
            digit += number
        elif factor <= 100 or word == "千":
            section, digit = section + (digit or 1) * factor, 0
        else:
            below = section + digit
            total = total + (below or not total) * factor if factor < last else (total + below) * factor
            section, digit, last = 0, 0, factor  # 3亿5000万, 1万亿
    if 0 < digit < 10 and words[-2:][0] in FACTORS:  # 一百二 is 120, 一万二 is 12,000; 一百零二 is 102
        digit *= FACTORS[words[-2]] // 10
    return Fraction(total + section + digit)


def _integer(text: str) -> Fraction | None:
    """The value of a whole Chinese numeral, digits in it (1千9百20) or not."""
    if not FACTORS.keys() & set(text):
        return Fraction("".join(str(NUMERALS.get(sign, sign)) for sign in text))
    return _count(re.findall(r"\d+|\D", text), NUMERALS, FACTORS)


def _chinese_value(match: "re.Match[str]") -> Fraction | None:
    if match["only_half"]:
        return Fraction(1, 2)
    if match["below"]:
        below, above, whole = (_integer(match[name] or "零") for name in ("below", "above", "whole"))
        return None if not below or above is None or whole is None else whole + above / below
    number, decimals = _integer(match["integer"]), match["decimals"] or ""
    part = _integer(decimals or "零")
    if number is None or part is None:
        return None
    return number + Fraction(part, 10 ** len(decimals)) + Fraction(bool(match["half"]), 2)


def _english_value(name: str, words: Lexicon) -> Fraction | None:
    """Seventy-two, two thirds, three and a half."""
    each = [word for word in re.split(r"[\s-]+", name) if word not in ("and", "a", "an")]
    if each[0] in words.units:  # an hour and a half
        return Fraction(3, 2)
    part = words.parts.get(each[-1])
    if not part:
        return _count(each, words.numbers, words.magnitudes)
    if " and " in name:
        whole, rest = (_english_value(half, words) for half in name.split(" and ", 1))
        return None if whole is None or rest is None else whole + rest
    above = _count(each[:-1] or ["one"], words.numbers, words.magnitudes)
    return None if above is None else above / part
