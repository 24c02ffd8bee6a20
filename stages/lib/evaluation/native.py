"""Answers in MGSM's languages, written as the rules for English and Chinese read them.

    readings("Die Antwort lautet 1,5.", "de")    → ("Die answer is 1.5.",)
    readings("La respuesta es 1.000.", "es")     → ("La answer is 1000.", "La answer is 1.000.")
    readings("উত্তর হল ১৮।", "bn")                  → (" answer is 18。",)

Rewritten are native digits, the sentence "the answer is …" as MGSM's own worked examples say it and as students do,
the words for so, in total, and, or, and the separators in numbers; numbers in words (fünf) are not.

In German, Spanish, French and Russian the comma is the decimal sign: 1,5 is 1.5, and 1.234,50, 1.234.567, 1 234 and
1'234 are what they look like. One sign before exactly three digits (1.000 or 1,000) may be either: students mix both
ways. Such a text has two readings, one with all such numbers as thousands, one with all as decimals. Bengali and
Telugu also group by lakhs (1,14,200).
"""

import re
from typing import NamedTuple

from stages.lib.answers.reading import solution

NATIVE = str.maketrans("০১২৩৪৫৬৭৮৯౦౧౨౩౪౫౬౭౮౯๐๑๒๓๔๕๖๗๘๙।", "0123456789" * 3 + "。")
COMMA_IS_DECIMAL = frozenset({"de", "es", "fr", "ru"})
SPACES = re.compile(" {2,}")
LAKHS = re.compile(r"(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])")

APOSTROPHE = re.compile(r"(?<=\d)['’](?=\d{3}(?!\d))")
LATEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|,\\!)(?=\d)")
GROUPED = re.compile(
    r"(?<![\d.,])[1-9]\d{0,2}(?:(?:\.\d{3}){2,}(?:,\d+)?|(?:\.\d{3})+,(?:\d{1,2}|\d{4,}))(?![\d,]|\.\d)"
)
DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d{1,2}|\d{4,}|(?<=(?<!\d)0,)\d+|(?<=\d{4},)\d+)(?![\d,]|\.\d)")
EITHER = re.compile(r"(?<![\d.,])([1-9]\d{0,2})[.,](\d{3})(?![\d,]|\.\d)")


class Words(NamedTuple):
    """A language's words as patterns.

    ``answer`` and what comes between it and the number: ``copula``, which ``:`` may always stand for, or nothing where
    ``bare``; ``denied`` stands behind the number. ``so`` concludes, ``total`` sums up.
    """

    answer: str
    copula: str
    so: str
    total: str
    final: str
    bare: bool = False
    denied: str = ""


WORDS = {
    "de": Words(
        r"\b(?:end)?antwort\b",
        r"\b(?:lautet|ist|beträgt|wäre)\b(?! nicht)(?: (?:also|daher|somit|dann))?",
        r"\b(?:also|daher|deshalb|somit|folglich|demnach|deswegen)\b",
        r"\b(?:insgesamt|zusammen)\b",
        r"\bendgültige\w*|\bend(?=antwort)",
    ),
    "es": Words(
        r"\brespuesta\b(?: (?:final|correcta))?",
        r"\b(?:es|sería|son)\b(?: (?:entonces|por tanto|por lo tanto))?",
        r"\b(?:por (?:lo )?tanto|entonces|así que|en consecuencia|luego)\b",
        r"\b(?:en total|en conjunto)\b",
        r"(?!)",
    ),
    "fr": Words(
        r"\bréponse\b(?: (?:finale|correcte))?",
        r"\b(?:est|sera|serait)\b(?: (?:donc|alors))?",
        r"\b(?:donc|ainsi|par conséquent|alors)\b",
        r"\b(?:au total|en tout)\b",
        r"(?!)",
    ),
    "ru": Words(
        r"\bответ(?:ом)?\b",
        r"(?:[—–-](?=\s)|\b(?:равен|является|составляет|будет)\b)",
        r"\b(?:таким образом|следовательно|поэтому|значит|итак)\b",
        r"\b(?:всего|в сумме|в общей сложности|итого)\b",
        r"\b(?:окончательн|итогов)\w+",
    ),
    "sw": Words(
        r"\bjibu\b(?: (?:la mwisho|sahihi|letu))?",
        r"\b(?:ni|litakuwa)\b",
        r"\b(?:kwa hivyo|kwa hiyo|hivyo|basi)\b",
        r"\b(?:kwa jumla|jumla ya|kwa ujumla)\b",
        r"\bmwisho\b",
    ),
    "ja": Words(
        r"(?:答え|解答|正解|回答)",
        r"(?:は|が)[、,]?",
        r"(?:したがって|従って|よって|だから|つまり|ゆえに|そのため)",
        r"(?:合計|全部で|全体で|合わせて)",
        r"最終的な|最終",
        denied=r"(?:では|じゃ)(?:な|あ)",
    ),
    "bn": Words(
        r"উত্তর(?:টি)?",
        r"(?:হল|হলো|হ'ল|হচ্ছে|হবে)",
        r"(?:সুতরাং|অতএব|তাই|কাজেই)",
        r"(?:মোট|সর্বমোট|একসাথে)",
        r"(?:চূড়ান্ত|চূড়ান্ত)",
        bare=True,
        denied=r"(?:নয়|নয়)",
    ),
    "te": Words(
        r"(?:సమాధానం|జవాబు)",
        r"(?:ఏమిటంటే|అంటే)",
        r"(?:కాబట్టి|అందువల్ల|అందుకే|కనుక)",
        r"(?:మొత్తం|మొత్తంగా)",
        r"(?:తుది|చివరి)",
        bare=True,
        denied=r"కాదు",
    ),
    "th": Words(
        r"คำตอบ(?:สุดท้าย)?",
        r"(?:ก็)?(?:คือ|เท่ากับ|เป็น)",
        r"(?:ดังนั้น|เพราะฉะนั้น|ฉะนั้น)",
        r"(?:รวมทั้งหมด|ทั้งหมด|รวมเป็น|รวม)",
        r"สุดท้าย",
        bare=True,
        denied=r"ไม่ใช่|ไม่ถูก",
    ),
}
MARKS = r"[\s*_]{0,6}"
ABOUT = r"(?:\s(?:auf|zu|zur|à|au|de|a|al|kwa|на|к)\s[^.\n:：?？。]{0,80}?)?"  # the answer *to the question* is …
NUMBER_BEFORE, NUMBER_BEHIND = r"(?<=[\d*%$€])\s{0,2}", r"\s{0,2}(?=[*$€-]{0,3}\d)"
OR = re.compile(NUMBER_BEFORE + "(?:oder|o|ou|или|au|または|か|অথবা|বা|లేదా|หรือ)" + NUMBER_BEHIND, re.IGNORECASE)
AND = re.compile(NUMBER_BEFORE + "(?:und|y|et|и|na|と|এবং|ও|మరియు|และ)" + NUMBER_BEHIND, re.IGNORECASE)


def _patterns(words: Words) -> list[tuple[re.Pattern[str], str]]:
    not_denied = rf"(?![^\n。.]{{0,40}}{words.denied})" if words.denied else ""
    link = rf"(?:{words.copula}{'|(?=[$₹*-]{0,4}[0-9])' if words.bare else ''})"
    spelled = [
        (rf"{words.answer}{ABOUT}({MARKS}){link}{not_denied}", r" answer\1 is "),
        (rf"{words.answer}(?={MARKS}[:：=])", " answer"),
        (words.final, "final "),
        (words.so, " so "),
        (words.total, " altogether "),
    ]
    return [(re.compile(pattern, re.IGNORECASE), spelling) for pattern, spelling in spelled]


PATTERNS = {language: _patterns(words) for language, words in WORDS.items()}


def readings(response: str, language: str) -> tuple[str, ...]:
    """The solution's text in the rules' spelling; twice where its numbers can be read in two ways, thousands first.

    An English or Chinese question's response comes back as it is: the rules read both languages in one text, and they
    go on to read both here, for students often answer in one of them.
    """
    if language not in WORDS:
        return (response,)
    text = solution(response).translate(NATIVE)
    for pattern, spelling in PATTERNS[language]:
        text = pattern.sub(spelling, text)
    text = SPACES.sub(" ", AND.sub(" and ", OR.sub(" or ", text)))
    if language not in COMMA_IS_DECIMAL:
        return (LAKHS.sub(lambda found: found.group().replace(",", ""), text),)
    return _with_separators(text)


def _with_separators(text: str) -> tuple[str, ...]:
    """With a decimal point and without separators; in two ways where a number could be either."""
    text = APOSTROPHE.sub("", LATEX_COMMA.sub(",", text))
    text = GROUPED.sub(lambda found: found.group().replace(".", "").replace(",", "."), text)
    text = DECIMAL_COMMA.sub(r"\1.\2", text)
    thousands = EITHER.sub(r"\1\2", text)
    return (thousands,) if thousands == text else (thousands, EITHER.sub(r"\1.\2", text))
