"""Chinese numerals: 三十六 → 36, 一百零五 → 105, 两千 → 2000, 三点五 → 3.5, 两个半 → 2.5, 一半 → 1/2.

A numeral inside a word (一起, 第一步) is no number: ``NUMERAL`` is tried only where one is expected. Fractions and
percentages (三分之二, 百分之四十) are written in digits before, by ``spelling``.
"""

import re
from fractions import Fraction

DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "俩": 2}
TENS = {"十": 10, "百": 100, "千": 1000}
MYRIADS = {"万": 10_000, "亿": 100_000_000}
INTEGER = "[零〇一二两俩三四五六七八九十百千万亿]{1,24}"
NUMERAL = re.compile(
    rf"(?P<integer>(?!一[半共起样定些下直般开边旦点])(?!一?[百千万亿](?![零〇一二三四五六七八九十个元])){INTEGER})(?:点(?P<decimals>[零〇一二三四五六七八九]{{1,12}})|(?P<half>[个小时年天月周]{{1,2}}半))?"
    r"|(?P<only_half>一?半)"
)


def integer(text: str) -> int | None:
    """The value of a whole numeral, with digits in it (1千9百20), too; None for signs in no order (万三十十)."""
    signs = re.findall(r"\d+|\D", text)
    if not any(sign in TENS or sign in MYRIADS for sign in signs):
        return int("".join(str(_digit(sign)) for sign in signs))
    total = section = digit = 0
    last_unit = last_myriad = 10**9
    for sign in signs:
        if sign in TENS:
            if TENS[sign] >= last_unit:
                return None
            section, digit, last_unit = section + (digit or 1) * TENS[sign], 0, TENS[sign]
        elif sign in MYRIADS:
            myriad = MYRIADS[sign]
            if myriad == last_myriad:
                return None
            below = section + digit
            total = total + below * myriad if myriad < last_myriad else (total + below) * myriad  # 3亿5000万, 1万亿
            section, digit, last_unit, last_myriad = 0, 0, 10**9, myriad
        else:
            digit = _digit(sign)
    if 0 < digit < 10 and signs[-2] not in "零〇十":  # 一百二 is 120, 一万二 is 12,000; 一百零二 is 102
        unit = TENS.get(signs[-2]) or MYRIADS.get(signs[-2], 10)
        digit *= unit // 10
    return total + section + digit


def _digit(sign: str) -> int:
    return DIGITS[sign] if sign in DIGITS else int(sign)


def numeral_value(match: re.Match[str]) -> Fraction | None:
    """The value of what ``NUMERAL`` matched."""
    if match["only_half"]:
        return Fraction(1, 2)
    value = _whole(match["integer"])
    if value is not None and match["decimals"]:
        value += Fraction(integer(match["decimals"]) or 0, 10 ** len(match["decimals"]))
    return value if value is None or not match["half"] else value + Fraction(1, 2)


def _whole(text: str) -> Fraction | None:
    value = integer(text)
    return None if value is None else Fraction(value)
