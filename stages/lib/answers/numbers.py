"""Numbers as people write them: finding them in a text and taking their exact value."""

import re
from fractions import Fraction

SIGN = r"[-−–+]?"
WHOLE = r"\d{1,3}(?:(?:,|\{,\}|\\,|,\\!|，)\d{3})+(?!\d)|\d+"
NUMBER = rf"{SIGN}\s?(?:{WHOLE})(?:\.\d+)?(?:\s?/\s?\d+(?:\.\d+)?)?"
CURRENCY = r"(?:\\?[$€£¥￥])?"
AMOUNT = rf"{SIGN}{CURRENCY}\s?{NUMBER}"
BINARY_MINUS = r"(?<=[\d)\]}%])[^\S\n]+[-−–][^\S\n]+"
BULLET = r"(?<=\n)[^\S\n]*[-−–][^\S\n]+"
FULL_WIDTH = str.maketrans("０１２３４５６７８９．－＋／％", "0123456789.-+/%")


def normalise(text: str) -> str:
    """Full-width digits and signs as ASCII, a Chinese 负 as a minus, LaTeX fractions as a/b."""
    text = re.sub(r"负\s?(?=\d)", "-", text.translate(FULL_WIDTH))
    text = re.sub(r"\\[dt]?frac(\d)(\d)", r"\1/\2", text)
    return re.sub(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}", r"\1/\2", text)


def numbers_in(text: str) -> list[str]:
    """Every number of a text, as written, in order; a minus between two numbers, or a list's dash, is not a sign."""
    sign = rf"(?:{BINARY_MINUS}|{BULLET}|(?<![\w.)\]])(?P<signed>[-−–])\s?)?"
    pattern = rf"{sign}{CURRENCY}(?P<number>{NUMBER.removeprefix(SIGN)})"
    found = []
    for match in re.finditer(pattern, normalise(text)):
        found.append(("-" if match["signed"] else "") + match["number"].strip())
    return found


def value(number: str) -> Fraction | None:
    """The exact value of a number as ``numbers_in`` finds it; None where it has none (a division by zero)."""
    plain = re.sub(r"\{,\}|\\,|,\\!|[,，\s+]", "", normalise(number)).replace("−", "-").replace("–", "-")
    numerator, _, denominator = plain.partition("/")
    try:
        return Fraction(numerator) / Fraction(denominator or 1)
    except (ValueError, ZeroDivisionError):
        return None
