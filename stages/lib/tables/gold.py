"""Reading the gold answer from a column, in the forms in which public sets hold it.

plain          the whole text                               "72"
after_hashes   what follows the last "####", no thousands separators   "… #### 1,080" → "1080"
boxed          the content of the last \\boxed{…}           "… is \\boxed{\\frac{1}{2}}." → "\\frac{1}{2}"
"""

import re
from collections.abc import Callable

BOXED = re.compile(r"\\f?boxed\s*\{")


def plain(text: str) -> str | None:
    """The text without blanks around it."""
    return text.strip() or None


def after_hashes(text: str) -> str | None:
    """GSM8K's form (github.com/openai/grade-school-math)."""
    _, marked, answer = text.rpartition("####")
    return answer.strip().replace(",", "") or None if marked else None


def boxed(text: str) -> str | None:
    """MATH's form (github.com/hendrycks/math); braces inside are counted, escaped ones are not."""
    openings = list(BOXED.finditer(text))
    if not openings:
        return None
    start, depth = openings[-1].end(), 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : start + brace.start()].strip() or None
    return None


READERS: dict[str, Callable[[str], str | None]] = {"plain": plain, "after_hashes": after_hashes, "boxed": boxed}
