r"""Gold answers of every kind: a number, or else a choice (B), yes or no, a short text, an expression.

read_gold("(B)").kind  → "choice"        read_gold("2\\sqrt{3}").kind  → "expression"
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from stages.lib.answers.expressions import same_expression
from stages.lib.answers.lexicon import lexicon
from stages.lib.answers.statements import NOT_PLAIN, Response, Span, Statement, Strength
from stages.lib.answers.values import Text, Value, fold

Kind = Literal["number", "choice", "side", "text", "expression"]
Same = tuple[bool | None, Statement | None]
CHOICE = re.compile(r"[(\[]?([a-j])[)\].、]?")
WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
MATHEMATICS = re.compile(r"\\[a-z]+|[\^√π=∞°{}\[\]<>≤≥,\d]|\b[a-z]\s?[+*/^=)-]")
LETTER = r"(?:[\s*_:(\[「“\"$]|\\text\{|\\boxed\{){0,4}(?P<letter>[a-j])(?![a-z'’])(?!\s?[=+×])"


class Gold(NamedTuple):
    """The gold answer: its kind, folded text, and value where it is a number."""

    kind: Kind
    text: str
    value: Value | None = None


@lru_cache(maxsize=4096)
def read_gold(answer: str) -> Gold:
    """A gold answer; it is data, so numbers are written in digits or in words alone, with a decimal point."""
    words = lexicon("en", False)
    text = re.sub(r"(?<=\d)\. (?=\d)", ".", fold(answer.rpartition("####")[2])).strip(" \n.。")
    text = text.strip("$ ") if text.count("$") != 1 else text
    text = re.sub(r"^\\boxed\{(.*)\}$", r"\1", text, flags=re.DOTALL).strip()
    plain = WRAPPED.sub(r"\1", text).strip(" .。")
    choice = CHOICE.fullmatch(plain)
    if choice:
        return Gold("choice", choice[1])
    named = re.sub(r"^[a-z]\s*=\s*", "", text)
    found = () if NOT_PLAIN.search(named) else Text(named, words).values(0, len(named))
    if len(found) == 1 and (len(named) < 40 or found[0].start == 0):
        return Gold("number", named, found[0])
    if words.yes.fullmatch(plain) or words.no.fullmatch(plain):
        return Gold("side", plain)
    return Gold("expression" if MATHEMATICS.search(text) else "text", text)


def same_by_kind(parts: Response, gold: Gold, statement: Statement | None) -> Same:
    """Whether a response states a gold answer that is no number, and where; None where that is open."""
    if gold.kind == "choice":
        return _same_choice(parts, gold, statement)
    if gold.kind == "side":
        return _same_side(parts, gold, statement)
    return _same_text(parts, gold, statement) if gold.kind == "text" else _same_expression(gold, statement, parts)


def _same_choice(parts: Response, gold: Gold, statement: Statement | None) -> Same:
    """Whether the letter that is chosen last, by the surest form that is there, is the gold one."""
    surest = (rf"\\boxed\s?\{{{LETTER}", rf"(?:{parts.words.label.pattern}){LETTER}", rf"[选選](?:项|择)?{LETTER}")
    weaker = (
        rf"{parts.words.option}{LETTER}",
        r"\*\*[(]?(?P<letter>[a-j])[).]?[^*\n]{0,40}\*\*",
        rf"\A{LETTER}[\s).*。]*\Z",
    )
    for form in surest + weaker:
        found = parts.find(re.compile(form), Span(parts.start, parts.end))
        if found:
            same = found["letter"] == gold.text or (False if form in surest else None)
            return same, Statement(Strength.LABEL, "choice", (), *found.span("letter"), found["letter"])
    return None, statement


def _same_side(parts: Response, gold: Gold, statement: Statement | None) -> Same:
    """Whether the box, the last label, the last sentence or the first says the same of yes and no."""
    labels = [Span(match.end(), parts.end) for match in parts.words.label.finditer(parts.text, parts.start, parts.end)]
    sentences = [span for span in parts.body if parts.text[span.start : span.end].strip()]
    boxes = [Span(each.start, each.end) for each in parts.explicit]
    for span in boxes[-1:] + labels[-1:] + sentences[-1:] + sentences[:1]:
        no, yes = parts.words.no.search(parts.text, *span), parts.words.yes.search(parts.text, *span)
        found = no if no and not (yes and yes.start() < no.start()) else None if no else yes
        if found:
            wanted = parts.words.no.fullmatch(gold.text) is not None
            return (found is no) == wanted, Statement(Strength.LABEL, "side", (), *found.span(), found.group())
    return None, statement


def _same_text(parts: Response, gold: Gold, statement: Statement | None) -> Same:
    """Whether a box, a label or all of it is the gold text; another text may mean the same."""
    labels = [match.end() for match in parts.words.label.finditer(parts.text, parts.start, parts.end)][-1:]
    lines = [Span(start, start + len(parts.text[start : parts.end].partition("\n")[0])) for start in labels]
    for span in [*(Span(each.start, each.end) for each in parts.explicit[-1:]), *lines, Span(parts.start, parts.end)]:
        found = parts.text[span.start : span.end].strip()
        if _bare(found) and _bare(found) == _bare(gold.text):
            return True, Statement(Strength.LABEL, "text", (), *span, found)
    return None, statement


def _same_expression(gold: Gold, statement: Statement | None, parts: Response) -> Same:
    """By math-verify; what is only labelled, not boxed, is never wrong."""
    if not statement:
        return None, None
    written = parts.text[statement.values[-1].start : statement.values[-1].end] if statement.values else ""
    found = statement.expression or written
    same = same_written(gold.text, found) if found else None
    return (same if same or statement.strength == Strength.EXPLICIT else None), statement


def same_written(gold: str, found: str) -> bool | None:
    """Whether two expressions are written alike, or the same to math-verify."""
    return True if _bare(gold) == _bare(found) else same_expression(gold, found)


def _bare(text: str) -> str:
    """Without LaTeX's wrappers, marks, articles and spaces."""
    return re.sub(r"^(?:the|an?)\s|[\s*_.。,:;!?\"'“”()\[\]{}$\\-]", "", WRAPPED.sub(r"\1", text).strip(" *_.:$"))
