"""What a tutor says of the answer once it is given: another time, another case, what is left over.

    is_aside("明年它就 **7岁** 啦", "How old is it?")            → True
    is_aside("明年它就 **7岁** 啦", "How old is it next year?")  → False: it is what the question asks

A result that stands in such a sentence is not the answer where a conclusion comes before it. It may be, too: so
nothing is judged wrong that has the gold answer there.
"""

import re

COUNT = r"(?:\d+|[一二两三四五六七八九十]{1,3})"
WORD = r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|a|an)"
TIME = (
    rf"(?:到了?)?(?:明年|后年|去年|前年|明天|再过|{COUNT}\s?(?:年|天|个月|周|个?小时|岁)(?:以|之)?[前后](?!一共))"
    rf"|(?:next|last) (?:year|month|week)\b"
    rf"|{WORD} (?:year|month|week|day)s? (?:later|ago|after|before|earlier|from now)\b"
    rf"|in (?:another )?{WORD} (?:more )?years?\b"
)
# 如果她还想买 adds to the question; a plain 如果 or if may repeat what the question says
MORE = (
    r"(?:那么?)?(?:如果|假如|假设|要是)[^，,。]{0,8}(?:再|还|没有|多)"
    r"|(?:so )?if (?:there (?:were|was) (?:an?|one|another|more|no)"
    r"|[^,.]{0,20}\b(?:wants?|wanted|another|instead|more))\b"
)
CASE = r"(?:那么?)?(?:如果|假如|假设|要是|若是)|(?:so )?(?:suppose|imagine|if\b(?=[^.]*\b(?:would|could|'d)\b))"
REST = r"剩下的[\s*]*\d|(?:另外|其他|其余)的?[\s*]*\d|the (?:other|remaining|rest)\b[^.=]{0,12}\d"
LEAD = r"\W*(?:(?:and|then|but|now|等一下|等等)\b[,，\s]*)?"
ASIDE = re.compile(
    rf"{LEAD}(?:(?P<time>{TIME})|(?P<more>{MORE})|(?P<case>{CASE}))"
    rf"|{LEAD}(?P<rest>{REST})"
)
REST_BEHIND = re.compile(rf"[,，]\s?(?P<rest>{REST})")
CLAUSE = re.compile(rf"[,，]\s?(?:但|而)?(?:{TIME})|[,，]\s?剩下的[\s*]*\d")
# what the question's last sentence holds where the aside is what it asks for
ASKED = {
    "time": re.compile(
        rf"{COUNT}\s?(?:年|天|个月|周|个?小时|岁)(?:以|之)?[前后]|明年|去年|\b(?:next|last) (?:year|month|week)"
        rf"|\b(?:ago|later|from now|(?:in|after) {WORD} (?:more )?(?:year|month|week|day)s?"
        rf"|{WORD} (?:year|month|week|day)s? (?:after|before))\b"
    ),
    "more": re.compile(r"再|还|没有|\b(?:were|would|more|another|instead)\b"),
    "case": re.compile(r"如果|假如|要是|假设|\b(?:if|suppose|were to)\b"),
    "rest": re.compile(r"剩|其他|其余|另外|\b(?:left|remain\w*|rest|other)\b"),
}
LAST_SENTENCE = re.compile(r"[.。；;!！]\s+|[。；！](?=.)")
CLOSES = re.compile(r"(?:听懂|明白|学会|懂|会)了(?:吗|没|嘛)|\b(?:understand|got it|make sense|clear)\?")


def is_aside(sentence: str, question: str) -> bool:
    """Whether a sentence speaks of another time or case than the question's, or of the rest."""
    found = ASIDE.match(sentence) or REST_BEHIND.search(sentence)
    if not found:
        return False
    asked = ASKED[found.lastgroup or ""]
    return not asked.search(LAST_SENTENCE.split(question.lower().strip())[-1])


def turns_aside(sentence: str) -> int | None:
    """Where a sentence goes over to another time, or to the rest: 现在12岁，四年前她是8岁."""
    found = CLAUSE.search(sentence)
    return found.start() if found else None


def closes(sentence: str) -> bool:
    """Whether it asks if the lesson has been understood."""
    return CLOSES.search(sentence) is not None
