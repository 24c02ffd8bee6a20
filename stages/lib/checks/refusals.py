"""Responses that refuse to answer: they begin with a phrase of ``stages/phrases/NAME.txt``, one to a line.

Only the beginning counts, because "I cannot tell" inside an answer is not a refusal. An apology or a greeting may come
before the phrase ("I'm sorry, but …", "抱歉，…"). Case, the form of apostrophes and Markdown do not matter.
"""

import re
import unicodedata

from stages.lib.checks import Failed, PreparedCheck, shown
from stages.lib.params import RefusalsCheck, Student, phrases_named
from stages.lib.rows.distilled import Distilled

# what may come before the phrase
LEAD = re.compile(
    r"(?:(?:assistant|response|answer)\s*:"
    r"|(?:i'm|i am|we're|we are)\s(?:so |very |really |truly )?(?:sorry|afraid)(?: that)?"
    r"|(?:my (?:sincere )?)?apologies|(?:i|we) apologi[sz]e|sorry|unfortunately|regrettably|thank you[^.!\n]{0,60}[.!]"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|遗憾|不好意思)|对不起|您好|你好|but|however|但是?)[\s,，.。!！:：;；\-–—]*"
)
LONGEST = 300


def prepared(check: RefusalsCheck, student: Student) -> PreparedCheck:
    """``refusal``."""
    phrases = tuple(_plain(phrase) for phrase in phrases_named(check.phrases))

    def failed(row: Distilled) -> Failed | None:
        text = _plain(row.response)
        place = 0
        while not text.startswith(phrases, place):
            lead = LEAD.match(text, place)
            if not lead:
                return None
            place = lead.end()
        return Failed("refusal", f"response: '{shown(row.response)}'")

    return failed


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text[:LONGEST]).casefold().replace("’", "'").replace("‘", "'")
    return " ".join(re.sub(r"[*_#>`]", "", folded).split())
