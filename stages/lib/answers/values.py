r"""Numbers as people write them: every value of a text, with its span.

    Text("$1.5 million for 2\\frac12 days", lexicon("en")).values(0, 40)  → 1500000 (money), 5/2 (time)

Read are digits with their separators (1,080 · 3{,}332 · 1 000 · 1,14,200), decimals, exponents, fractions and mixed
numbers (3/4, 2 1/2, \frac{3}{4}, ½, 三分之二), percent, currency and units on either side, compound units (2 hours 40
minutes is one value), clock times and ratios (10:30 is a pair), number words (192 million, 1.8万, 3万2750), and numbers
in Chinese or English words where a piece of text has no digits.

Spans are places in the text itself: ``fold`` changes characters one by one.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

from stages.lib.answers.lexicon import Lexicon, Unit

SHORT = 80  # characters of a piece that is read by itself while the whole has not been
LONGEST = 200  # digits: a longer number is nobody's answer, and reading it costs more the longer it is
FOLDED = str.maketrans(
    "０１２３４５６７８９．＋／％＝＄￥（）＊，：；！？−–—﹣－‒‑∶×✕✖⨯∙·⋅\u00a0\u2009\u202f\u3000\u2002\u2003≒≃∼～।"
    "০১২৩৪৫৬৭৮৯౦౧౨౩౪౫౬౭౮౯๐๑๒๓๔๕๖๗๘๙",
    "0123456789.+/%=$¥()*,:;!?-------:×××××××      ≈≈~~。" + "0123456789" * 3,
)
VULGAR = {sign: unicodedata.normalize("NFKC", sign).replace("\u2044", "/") for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
NUMERALS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "俩": 2}
TENS = {"十": 10, "百": 100, "千": 1000}
MYRIADS = {"万": 10_000, "亿": 100_000_000}
N = "[零〇一二两俩三四五六七八九十百千万亿]"

SEPARATOR = r"(?:,|\{,\}|\\,|,\\!|\\!,|\\[ ;:]|\{\\,\})"
WHOLE = (
    rf"\d{{1,3}}(?:{SEPARATOR}\d{{3}})+(?!\d)|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!\d)"
    r"|(?<![\d.])[1-9]\d{0,2}(?: \d{3})+(?![\d,])|\d+"
)
FRAC = r"\\[dtc]?frac\s*(?:\{\s*-?[\d.,]+\s*\}|\d)\s*(?:\{\s*[\d.,]+\s*\}|\d)"
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
# no value: a list's number, a step's, GSM8K's calculator
UNCOUNTED = re.compile(
    r"(?m:^)[#>*+| \t_-]{0,20}\d{1,2}(?:\ufe0f?\u20e3|[、)](?=[^\S\n]*[^\s\d])|\.(?=[*_]{0,3}[^\S\n]+\S|[^\s\d.*,)%]))"
    r"|<<[^<>\n]{0,200}>>|\d\ufe0f?\u20e3"
)
PREFIX = re.compile(r"(?:(?P<minus>-)(?P<space>\s?))?(?:(?:us|hk|a|c)?\\?(?P<money>[$€£¥])\s?)?(?P<second>-\s?)?\Z")
SPACED_SIGN = (*"=≈(:,是为于成了到*$[>{+×÷/剩约", "is", "are", "to", "equals", "of", "was")
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
    """A number of a text: ``value`` counts ``unit`` where it has one.

    ``end`` is behind the number, ``stop`` behind its unit. ``scale`` is the number word's (million), already in the
    value; ``decimals`` how many places were written. A ``pair`` is 10:30, ``half`` its am or pm. ``other`` is a second
    reading (1.000 in German).
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
    """The text in lower case and one spelling of digits, signs and spaces, every character in its place."""
    lower = text.lower()
    if text.isascii():
        return lower
    if len(lower) != len(text):
        lower = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
    return lower.translate(FOLDED)


class Text:
    """A folded text and the values in it, which are read once."""

    def __init__(self, text: str, words: Lexicon) -> None:
        self.words = words
        self.text = (
            UNCOUNTED.sub(_blank, text) if "\n" in text or "<" in text or text[:2].strip("*# ")[:1].isdigit() else text
        )

    def values(self, start: int, end: int) -> tuple[Value, ...]:
        """The values that begin between two places, in order; those in words only where none is in digits."""
        if "_digits" not in self.__dict__ and end - start < SHORT < len(self.text):  # all that most verdicts look at
            found = tuple(self._joined(start, end))
            if found:
                return found
        return _between(self._digits, start, end) or _between(self._worded, start, end)

    def worded(self, start: int, end: int) -> tuple[Value, ...]:
        """The values that are written in words between two places."""
        return _between(self._worded, start, end)

    @cached_property
    def all(self) -> frozenset[Fraction]:
        """Every value, in digits or in words."""
        return frozenset(value.value for value in self._digits[1] + self._worded[1])

    @cached_property
    def _digits(self) -> tuple[list[int], list[Value]]:
        kept = self._joined(0, len(self.text))
        return [value.start for value in kept], kept

    @cached_property
    def _worded(self) -> tuple[list[int], list[Value]]:
        values = sorted([*self._chinese(), *self._english()], key=lambda value: value.start)
        return [value.start for value in values], values

    def _joined(self, start: int, end: int) -> list[Value]:
        kept: list[Value] = []
        for value in self._each(start, end):
            joined = self._compound(kept[-1], value) if kept and (kept[-1].unit or kept[-1].scale > 1) else None
            if joined:
                kept.pop()
            kept.append(joined or value)
        return kept

    def _each(self, position: int, end: int) -> Iterator[Value]:
        text = self.text
        start = ASCII_START if text.isascii() else START
        while match := start.search(text, position, end):
            at = match.start()
            bare = BARE.match(text, at)
            if bare and (at == 0 or text[at - 1] not in "-$¥€£ .\\午上晚晨负度下*") and not self.words.decimal_comma:
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
        value, other = _value(match), None
        if words.decimal_comma and match["whole"]:
            value, other, stop = _with_comma(text, at) or (value, other, stop)
        if value is None:
            return None
        start, negative, money = self._prefix(at)
        scale, unit, half, after = self._suffix(stop)
        if money and unit is None and not text.startswith("$", stop):
            unit = words.units["$"]
        if match["numeral"] and match["numeral"].startswith("百分之"):
            value, unit = value * 100, words.units["%"]
        if below := words.negative_after.match(text, after):
            negative, after = True, below.end()
        scale *= -1 if negative else 1
        pair = _pair(match) if match["pair"] or match["clock"] else ()
        if pair and not text.isascii() and not half:
            half = (
                "pm"
                if words.pm.search(text, max(0, at - 5), at)
                else "am"
                if words.am.search(text, max(0, at - 5), at)
                else ""
            )
        decimals = len(match["decimals"] or match["point"] or ".") - 1
        if scale != 1:
            value, other = value * scale, other and other * scale
        return Value(value, start, stop, after, unit, abs(scale), decimals, pair, half, other)

    def _prefix(self, at: int) -> tuple[int, bool, bool]:
        """Where a number begins with its sign and currency, whether it is negative, and whether it is money."""
        text, start = self.text, at
        if at == 0 or text[at - 1].isalnum():
            return at, self.words.negative_before.search(text, max(0, at - 16), at) is not None if at else False, False
        before = text[max(0, at - 8) : at]
        match = PREFIX.search(before)
        assert match
        if match["money"]:
            start = at - len(before) + match.start("money") - before[: match.start("money")].endswith("\\")
        sign = at - len(before) + match.start()
        negative = bool(match["second"]) or bool(match["minus"] and self._is_sign(sign, bool(match["space"])))
        start = sign if negative else start
        negative = negative or self.words.negative_before.search(text, max(0, start - 16), start) is not None
        return start, negative, bool(match["money"])

    def _is_sign(self, at: int, spaced: bool) -> bool:
        """Whether a minus is a number's sign: not one between two numbers, nor a list's dash."""
        before = self.text[max(0, at - 12) : at]
        near = before.rstrip(" \t")
        if not near or near.endswith("\n"):
            return not spaced
        if near[-1].isascii() and (near[-1].isalnum() or near[-1] in ")]}.%$"):
            return near.endswith(SPACED_SIGN) if spaced or near == before else True
        return not spaced or near.endswith(SPACED_SIGN)

    def _suffix(self, at: int) -> tuple[int, Unit | None, str, int]:
        """What stands behind a number: the number word's factor, the unit, am or pm, and where that ends."""
        match = self.words.behind_number.match(self.text, at)
        if not match or match.end() == at:
            return 1, None, "", at
        if match["half"]:
            return 1, None, f"{match['half']}m", match.end()
        if match["percent"]:
            return 1, self.words.units["%"], "", match.end()
        scale, unit = self.words.magnitudes.get(match["magnitude"] or "", 1), self.words.units.get(match["unit"] or "")
        if (match["magnitude"] or " ") in "km" and not re.search(
            r"[$€£¥]\s?[\d.,]*\Z", self.text[max(0, at - 16) : at]
        ):
            return 1, None, "", at
        return scale, unit, "", match.end() if scale != 1 or unit else at

    def _compound(self, first: Value, second: Value) -> Value | None:
        """2 hours 40 minutes, 3元5角 and 2 thousand 4 hundred as one value."""
        a, b, between = first.unit, second.unit, self.text[first.stop : second.start]
        if first.scale > second.scale > 1 and not between.strip():
            return second._replace(value=first.value + second.value, start=first.start, scale=1)
        if a and not b and a.dimension == "time" and re.match("分(?!之)", self.text[second.stop : second.stop + 2]):
            b = self.words.units["minutes"]
        if not (a and b) or a.dimension != b.dimension or not 0 <= second.value * b.factor < a.factor:
            return None
        if len(between) > 12 or not re.fullmatch(r"[\s*}]*(?:and|,|零|又|和|、)?[\s*]*", between):
            return None
        value = first.value * a.factor / b.factor + (second.value if first.value >= 0 else -second.value)
        return Value(value, first.start, second.end, second.stop, b)

    def _chinese(self) -> Iterator[Value]:
        """Numerals before a measure word, of several signs, or alone: 七十二个, 两只; not the 一 of 一起."""
        text, words = self.text, self.words
        for match in () if text.isascii() else CHINESE.finditer(text):
            after, before = text[match.end() : match.end() + 1], text[max(0, match.start() - 1) : match.start()]
            several = len(match.group()) > 1 and re.search("[十百千万]|分之|半", match.group())
            single = match.group() not in "千万百亿" and (after in MEASURE or not after.isalpha())
            value = _chinese_value(match)
            if value is None or before == "每" or not (several or single) or (before == "第" and after == "步"):
                continue
            _, unit, _, stop = self._suffix(match.end())
            negative = words.negative_before.search(text, max(0, match.start() - 16), match.start())
            yield Value(-value if negative else value, match.start(), match.end(), stop, unit)

    def _english(self) -> Iterator[Value]:
        text, words, stop = self.text, self.words, 0
        for match in words.in_words.finditer(text):
            value = words.value_of(match.group())
            at = match.start()
            if (
                value is None
                or at < stop
                or match.group() == "one"
                or (value <= 12 and words.uncounted_before.search(text, max(0, at - 16), at))
            ):
                continue
            _, unit, _, stop = self._suffix(match.end())
            below = words.negative_after.match(text, stop)
            stop = below.end() if below else stop
            negative = below or words.negative_before.search(text, max(0, at - 16), at)
            yield Value(-value if negative else value, at, match.end(), stop, unit)


def _between(values: tuple[list[int], list[Value]], start: int, end: int) -> tuple[Value, ...]:
    return tuple(values[1][bisect_left(values[0], start) : bisect_left(values[0], end)])


def _blank(match: "re.Match[str]") -> str:
    return " " * len(match.group())


@lru_cache(maxsize=4096)
def _whole(digits: str) -> Fraction:
    return Fraction(int(digits))


def _pair(match: "re.Match[str]") -> tuple[int, ...]:
    """The numbers of 10:30, 10点30分 and 10点半."""
    if not (match["pair"] or match["clock"]):
        return ()
    numbers = tuple(int(part) for part in re.findall(r"\d+", match.group()))
    return numbers if len(numbers) > 1 else (*numbers, 30 if "半" in match.group() else 0)


def _value(match: "re.Match[str]") -> Fraction | None:
    """The value of what ``NUMBER`` matched; None for a fraction over zero, and numerals in no order."""
    pair = _pair(match)
    if pair or (match.lastgroup == "whole" and match["whole"].isdigit()):
        return Fraction(pair[0], pair[1] or 1) if pair else _whole(match["whole"])
    if match["numeral"]:
        found, whole = CHINESE.fullmatch(match["numeral"]), integer(re.sub(".*分之.*", "零", match["numeral"]))
        return _chinese_value(found) if found else None if whole is None else Fraction(whole)
    if match["fraction"]:
        return _fraction(match["fraction"])
    value = Fraction(re.sub(r"\D", "", match["whole"] or "0") + (match["decimals"] or match["point"] or ""))
    if match["rest"]:
        return Fraction(integer(match["whole"] + match["rest"]) or value)
    if match["above"] or match["over"]:
        above, below = (Fraction(match["above"]), value) if match["above"] else (value, Fraction(match["over"]))
        return above / below if below else None
    power = int(re.sub(r".*\^|[{}e\s]", "", match["power"])) if match["power"] else 0
    part = Fraction(1, 2) if match["half"] else _fraction(match["mixed"]) if match["mixed"] else Fraction(0)
    return value * Fraction(10) ** power + (part if part is not None and part < 1 else 0)


def _fraction(text: str) -> Fraction | None:
    r"""½, 1/2, \frac12 and \frac{3}{4}."""
    parts = re.findall(r"-?[\d.,]+", VULGAR.get(text, text))
    above, below = (part.replace(",", "").rstrip(".") or "0" for part in (parts if len(parts) > 1 else parts[0][-2:]))
    try:
        return Fraction(above) / Fraction(below)
    except (ValueError, ZeroDivisionError):
        return None


def _with_comma(text: str, at: int) -> tuple[Fraction, Fraction | None, int] | None:
    """A number where the comma is the decimal sign, 1.234,50 or 1,5; 1.000 has two readings, the thousand first."""
    found = re.compile(r"\d+(?:(?:[.,'’]|\{,\}|(?<=\d) (?=\d{3}(?!\d)))\d+)*").match(text, at)
    digits = found.group().replace("{,}", ",") if found else ""
    if not found or digits.isdigit():
        return None
    if re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", digits):
        plain = int(re.sub(r"\D", "", digits))
        return Fraction(plain), Fraction(plain, 1000), found.end()
    if re.fullmatch(r"[1-9]\d{0,2}(?:[. '’]\d{3})+(?:,\d+)?|\d+,\d+", digits):
        return Fraction(re.sub(r"[. '’]", "", digits).replace(",", ".")), None, found.end()
    return None


def integer(text: str) -> int | None:
    """The value of a whole Chinese numeral, digits in it (1千9百20) or not; None for signs in no order (万三十十)."""
    signs = re.findall(r"\d+|\D", text)
    if not any(sign in TENS or sign in MYRIADS for sign in signs):
        return int("".join(str(NUMERALS.get(sign, sign)) for sign in signs))
    total = section = digit = 0
    last_ten = last_myriad = 10**9
    for sign in signs:
        if sign in TENS:
            if TENS[sign] >= last_ten:
                return None
            section, digit, last_ten = section + (digit or 1) * TENS[sign], 0, TENS[sign]
        elif sign in MYRIADS:
            myriad = MYRIADS[sign]
            if myriad == last_myriad:
                return None
            below = section + digit
            total = total + below * myriad if myriad < last_myriad else (total + below) * myriad  # 3亿5000万, 1万亿
            section, digit, last_ten, last_myriad = 0, 0, 10**9, myriad
        else:
            digit = int(NUMERALS.get(sign, sign))
    if 0 < digit < 10 and signs[-2] not in "零〇十":  # 一百二 is 120, 一万二 is 12,000; 一百零二 is 102
        digit *= (TENS.get(signs[-2]) or MYRIADS.get(signs[-2], 10)) // 10
    return total + section + digit


def _chinese_value(match: "re.Match[str]") -> Fraction | None:
    if match["only_half"]:
        return Fraction(1, 2)
    if match["below"]:
        below, above, whole = (integer(match[name] or "零") for name in ("below", "above", "whole"))
        return None if not below or above is None or whole is None else whole + Fraction(above, below)
    number, decimals = integer(match["integer"]), match["decimals"] or ""
    if number is None:
        return None
    value = number + Fraction(integer(decimals) or 0, 10 ** len(decimals)) if decimals else Fraction(number)
    return value + Fraction(1, 2) if match["half"] else value
