r"""What a response states as its answer, where no gold answer is known.

    stated_answer("What is 2 + 2?", "2 + 2 = 4. The answer is **4**.")   → "4"
    stated_answer("Is 7 prime?", "Yes, 7 is a prime number.")            → "yes"
    stated_answer("Which one? A) 3 B) 5", "It is B) 5, because …")        → "b"
    stated_answer("Sum up the text.", "Three farmers met in 1848.")      → None

A value counts only if the rule, with this value as the gold answer, calls the response right.
"""

import re
from collections.abc import Iterator

from stages.lib.answers.statements import Response, Strength
from stages.lib.answers.verdict import LETTER, rule_verdict

OPTIONS = re.compile(r"(?:^|[\s(（\[【])a\s?[).）．、:：】\]].*?[\s(（\[【]b\s?[).）．、:：】\]]", re.DOTALL)
ASKS_VALUE = re.compile(r"\b(?:how|what|which|who|when|where)\b|多少|几|什么|哪")
ALONE = 60  # characters of a response that may be just a number


def stated_answer(question: str, response: str, language: str = "en") -> str | None:
    """The answer as it would be a gold answer's text; None where the response states none for certain."""
    parts = Response(response, question, language)
    for found in _candidates(parts):
        if found and rule_verdict(question, response, found, language).verdict == "right":
            return found
    return None


def _candidates(parts: Response) -> Iterator[str]:
    """What may be the answer, the kind that the question asks for first."""
    if OPTIONS.search(parts.question.text):
        yield from _letters(parts)
    elif not ASKS_VALUE.search(parts.question.text):
        yield from _sides(parts)
    statement = parts.answer_statement()
    whole = parts.text[parts.start : parts.end].strip()
    if statement and (statement.strength > Strength.MENTION or len(whole) <= ALONE):
        if value := statement.value:
            yield parts.text[value.start : value.end].strip()
        elif statement.expression:
            yield statement.expression.strip()
    labels = [label.end() for label in parts.words.label.finditer(parts.text, parts.start, parts.end)]
    if labels:
        yield parts.text[labels[-1] : parts.end].partition("\n")[0].strip(" *.。:：")[:ALONE]


def _letters(parts: Response) -> Iterator[str]:
    yield from dict.fromkeys(match["letter"] for match in re.finditer(LETTER, parts.text))


def _sides(parts: Response) -> Iterator[str]:
    """Yes or no, where the first or the last sentence begins with it."""
    sentences = [span for span in parts.body if parts.text[span.start : span.end].strip()]
    for span in sentences[-1:] + sentences[:1]:
        start = re.compile(r"[\s*_\"“]*").match(parts.text, span.start)
        for words, side in ((parts.words.no, "no"), (parts.words.yes, "yes")):
            if start and words.match(parts.text, start.end(), span.end):
                yield side
