r"""One spelling for what people write in many ways, so that the rules that read numbers need to know but one.

    normalise("１，０８０元，−5，$\frac12$，½，三分之二")  → "1,080元，-5，$1/2$，1/2，2/3"

Digits, signs and spaces of other widths, thousands separators, fractions in LaTeX, in one character or in Chinese,
clock times, LaTeX's marks around numbers; numbers in words by ``digits``; all in lower case.
"""

import re

from stages.lib.answers.chinese import INTEGER, integer
from stages.lib.answers.digits import in_digits

ONE_SIGN = str.maketrans(
    "０１２３４５６７８９．＋／％＝＄￥（）＊−–—﹣－‒‑∶×✕✖⨯∙·⋅\u00a0\u2009\u202f\u3000\u2002\u2003≒≃∼～",
    "0123456789.+/%=$¥()*-------:×××××××      ≈≈~~",
    "\u200b\u200c\u200d\ufeff\ufe0f\u20e3\u2060\u2066\u2069",
)
OTHER_SIGNS = re.compile(f"[{''.join(map(chr, ONE_SIGN))}]")
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
# (sign, pattern, spelling): tried where the text has the sign. The pattern begins with it and looks back from there:
# so the search leaps from sign to sign instead of trying at every character.
SPELLINGS: list[tuple[str, re.Pattern[str], str]] = [
    (sign, re.compile(pattern), spelling)
    for sign, pattern, spelling in (
        ("，", r"，(?<=\d，)(?=\d{3}(?!\d))", ","),
        ("：", r"：(?<=\d：)(?=\d)", ":"),
        ("比", r"比(?<=\d比)(?=\d{1,4}(?!\d|\s?[多少大小]))", ":"),
        ("minus", r"minus\s(?=\$?\d)", "-"),
        ("negative", r"negative\s(?=\$?\d)", "-"),
        ("个半", r"个半(?<=\d个半)", ".5"),
        ("小时半", r"小时半(?<=\d小时半)", ".5小时"),
        ("年半", r"年半(?<=\d年半)", ".5年"),
        ("点半", r"点半(?<=\d点半)", ":30"),
        ("点钟", r"点钟(?<=\d点钟)", ":00"),
        ("点整", r"点整(?<=\d点整)", ":00"),
        ("分", r"[点时](?<=\d[点时])\s?(\d{2})\s?分(?!之)", r":\1"),
        ("分", r"[点时](?<=\d[点时])\s?(\d)\s?分(?!之)", r":0\1"),
        ("分之", r"(?<!\d)(\d{1,6})\s?分之\s?(\d{1,6})", r"\2/\1"),
    )
]
VULGAR_SIGN = re.compile(f"[{''.join(VULGAR)}]")
FRACTION_SIGN = re.compile(rf"(\d)?({VULGAR_SIGN.pattern})")
IN_PARTS = re.compile(
    rf"百分之(?P<hundredths>{INTEGER})|(?:(?P<whole>{INTEGER})又)?(?P<denominator>{INTEGER})分之(?P<numerator>{INTEGER})"
)
LATEX: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), spelling)
    for pattern, spelling in (
        (r"(?<=\d)(?:\{,\}|\\,|,\\!|\\!,|\\ |\\;|\\:|\{\\,\})(?=\d{3}(?!\d))", ","),
        (
            r"\\(?:text|textbf|mathrm|mathbf|textrm|operatorname|mbox|bm|underline|boldsymbol|textit|mathit|emph)\s*\{([^{}]*)\}",
            r" \1 ",
        ),
        (r"(?<=\d)\s*\\[dtc]?frac", r" \\frac"),
        (r"\\[dtc]?frac\s*(\d)\s*(\d)", r"\1/\2"),
        (r"\\[dtc]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*(-?[\d.,]+)\s*\}", r"\1/\2"),
        (r"\\(?:times|cdot)(?![a-z])", "×"),
        (r"\\div(?![a-z])", "÷"),
        (r"\\(?:approx|simeq|doteq)(?![a-z])", "≈"),
        (r"\\(?:left|right|displaystyle|quad|qquad|large)(?![a-z])", " "),
        (r"\\([$%#&])", r"\1"),
        (r"\\[,;:! ]", " "),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})", "°"),
        (r"\\(?:rightarrow|implies|therefore)(?![a-z])", "⇒"),
    )
]


def normalise(text: str) -> str:
    """One spelling for digits, signs, spaces, fractions and LaTeX's marks, in lower case."""
    text = text.lower()
    if not text.isascii():
        text = OTHER_SIGNS.sub(_one_sign, text)
        if VULGAR_SIGN.search(text):
            text = FRACTION_SIGN.sub(lambda found: (found[1] + " " if found[1] else "") + VULGAR[found[2]], text)
    if "\\" in text:
        for pattern, spelling in LATEX:
            text = pattern.sub(spelling, text)
    text = in_digits(text)
    for sign, spelled, spelling in SPELLINGS:
        if sign in text:
            text = spelled.sub(spelling, text)
    return IN_PARTS.sub(_in_digits, text) if "分之" in text else text


def _one_sign(found: re.Match[str]) -> str:
    sign = ONE_SIGN[ord(found.group())]
    return chr(sign) if sign else ""


def _in_digits(found: re.Match[str]) -> str:
    """百分之四十 as 40%, 三分之二 as 2/3; so they stand out among other numbers."""
    if found["hundredths"]:
        value = integer(found["hundredths"])
        return found[0] if value is None else f"{value}%"
    below, above, whole = integer(found["denominator"]), integer(found["numerator"]), integer(found["whole"] or "零")
    if not below or above is None or whole is None:
        return found[0]
    return f"{whole} {above}/{below}" if whole else f"{above}/{below}"
