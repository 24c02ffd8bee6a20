r"""The verdict by rule: does the response state the gold answer as its answer?

The gold answer is known, so nothing has to be extracted. The rule looks for the statement that counts as the response's
answer (``Response.answer_statement``), and compares its value with the gold one:

    right     it states the gold value
    wrong     it states another value, and no result anywhere is the gold value, in any unit or form
    unsure    all else: a false verdict costs more than no verdict

Values are compared exactly. Units are converted (240 minutes are the 4 hours asked for). A rounded number is right
where the gold one has three decimal places or more. A gold answer that is not a number is one of four kinds: a choice
(B), yes or no, a short text, or an expression, which math-verify compares.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from stages.lib.answers.expressions import same_expression
from stages.lib.answers.lexicon import Unit, lexicon
from stages.lib.answers.statements import NOT_PLAIN, Response, Span, Statement, Strength
from stages.lib.answers.values import Text, Value, fold

VerdictWord = Literal["right", "wrong", "unsure"]
Agreement = tuple[bool | None, Statement | None]  # whether the gold answer is stated (None: open), and by what
# factors between two forms of the same value: units, percents, thousands left out for a child
CONVERSION_FACTORS = frozenset({7, 10, 12, 16, 24, 30, 52, 60, 100, 365, 1000, 3600, 5280, 10_000, 10**6, 10**9})
FACTORS_WITHOUT_UNIT = frozenset({100, 1000, 10_000})
WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
MATHEMATICS = re.compile(r"\\[a-z]+|[\^√π=∞°{}\[\]<>≤≥,\d]|\b[a-z]\s?[+*/^=)-]")
LETTER = r"(?:[\s*_:(\[「“\"$]|\\text\{|\\boxed\{){0,4}(?P<letter>[a-j])(?![a-z'’])(?!\s?[=+×])"


@dataclass(frozen=True)
class Verdict:
    """``verdict`` on the ``prediction`` (as written; None where none was found) and its ``value``, by a ``rule``.

    ``start`` and ``end`` mark the part of the response that decided; both are 0 where there is none.
    """

    verdict: VerdictWord
    prediction: str | None
    rule: str
    value: Fraction | None = None
    start: int = 0
    end: int = 0


class Gold(NamedTuple):
    """The gold answer: its kind, folded text, and value where it is a number."""

    kind: Literal["number", "choice", "side", "text", "expression"]
    text: str
    value: Value | None = None


def rule_verdict(question: str, response: str, answer: str, language: str = "en") -> Verdict:
    """Judge a response against the gold ``answer``; unsure where either cannot be read for certain.

    English and Chinese are always read; ``language`` names a further one that has a file in ``languages``.
    """
    parts, gold = Response(response, question, language), read_gold(answer)
    same, statement = KINDS[gold.kind](parts, gold, parts.answer_statement())
    word: VerdictWord = "unsure" if same is None else "right" if same else "wrong"
    if statement is None:
        return Verdict(word, None, "none")
    value = next((each for each in statement.values if gold.value and agrees(each, gold.value, parts)), None)
    value = value or next(iter(statement.values), None)
    start, end = (value.start, value.end) if value else (statement.start, statement.end)
    found = parts.text[start:end].strip() if value else statement.expression
    exact = statement.value.value if statement.value else None
    return Verdict(word, found, statement.rule, exact, start + parts.cut, end + parts.cut)


@lru_cache(maxsize=4096)
def read_gold(answer: str) -> Gold:
    """Read a gold answer. It is data, so a number is in digits or in words, never both, with a decimal point."""
    words = lexicon("en", False)
    text = re.sub(r"(?<=\d)\. (?=\d)", ".", fold(answer.rpartition("####")[2])).strip(" \n.。")
    text = text.strip("$ ") if text.count("$") != 1 else text
    text = re.sub(r"^\\boxed\{(.*)\}$", r"\1", text, flags=re.DOTALL).strip()
    plain = WRAPPED.sub(r"\1", text).strip(" .。")
    if choice := re.fullmatch(r"[(\[]?([a-j])[)\].、]?", plain):
        return Gold("choice", choice[1])
    named = re.sub(r"^[a-z]\s*=\s*", "", text)
    found = () if NOT_PLAIN.search(named) else Text(named, words).values(0, len(named))
    if len(found) == 1 and (len(named) < 40 or found[0].start == 0):
        return Gold("number", named, found[0])
    if words.yes.fullmatch(plain) or words.no.fullmatch(plain):
        return Gold("side", plain)
    return Gold("expression" if MATHEMATICS.search(text) else "text", text)


def _same_number(parts: Response, gold: Gold, statement: Statement | None) -> Agreement:
    if statement is None or gold.value is None:
        return None, statement
    held = _holds(parts, gold.value, statement)
    if statement.strength == Strength.EXPLICIT:
        return _same_explicit(parts, gold.value, held), statement
    emphatic = parts.strongest_result() if not held and statement.strength < Strength.LABEL else None
    if emphatic and parts.emphasis(emphatic) > parts.emphasis(statement) and _holds(parts, gold.value, emphatic):
        return True, emphatic
    return (None if held is False and _is_stated_anywhere(parts, gold.value, statement) else held), statement


def _same_explicit(parts: Response, gold: Value, held: bool | None) -> bool | None:
    """Compare boxes or ``####``: the last one counts, unless others are next to it."""
    adjacent = [parts.explicit[-1]]
    for box in reversed(parts.explicit[:-1]):
        between = parts.text[box.end : adjacent[-1].start]
        if len(between) > 40 or "\n" in between or parts.words.clause.search(between):
            break
        adjacent.append(box)
    if held and all(_holds(parts, gold, box) for box in adjacent[1:]):
        return True
    if held is not False or any(_holds(parts, gold, box) is not False for box in parts.explicit[:-1]):
        return None
    return None if sum(value.value for box in adjacent for value in box.values) == gold.value else False


def _holds(parts: Response, gold: Value, statement: Statement) -> bool | None:
    """Whether a statement states the gold value; None where that is open."""
    explicit, expression = statement.strength == Strength.EXPLICIT, statement.expression or ""
    if not statement.values:
        same = same_written(str(gold.value), expression) if re.search(r"\d|\\pi", expression) else None
        return same if explicit else same or None
    found = {agrees(value, gold, parts) for value in statement.values}
    if found == {False}:
        meant = explicit and statement.value and may_be_meant(statement.value, gold)
        return None if meant or any(agrees(value, gold, parts) is not False for value in statement.also) else False
    if statement.value or False not in found | {None}:
        return found.pop()
    hedged = explicit or parts.words.hedge.search(parts.text, statement.start, statement.end)
    # where it is open which value is meant, the last result before it decides
    weaker = (Strength.EQUATION, Strength.RESULT)
    before = [each.value for each in parts.stated if each.end <= statement.start and each.strength in weaker][-1:]
    return True if not hedged and before and before[0] and agrees(before[0], gold, parts) else None


def _is_stated_anywhere(parts: Response, gold: Value, statement: Statement) -> bool:
    """Whether any result of the response is the gold value, in any unit or form.

    Where the statement is weak or has several values, any number that the question does not give counts too, and so
    does the sum of a few numbers.
    """
    results = [value for each in parts.stated_anywhere if each.strength for value in each.values]
    if any(agrees(value, gold, parts) is not False for value in results):
        return True
    if any(may_be_meant(value, gold) for value in statement.values + statement.also):
        return True
    if gold.value < 0 and parts.words.negative_words.search(parts.text):
        return any(value.value == -gold.value for value in results)
    worded = parts.numbers.worded(statement.start, statement.end)
    if statement.strength >= Strength.LABEL and statement.value:
        return any(value.value == gold.value for value in worded)
    every = parts.numbers.values(0, len(parts.text))
    if 1 < len(every) < 4 and sum(value.value for value in every) == gold.value:
        return True
    return any(
        agrees(each, gold, parts) is not False and each.value not in parts.question.given_values
        for each in every + worded
    )


def agrees(found: Value, gold: Value, parts: Response) -> bool | None:
    """Whether a value is the gold one; None where that depends on a unit that is not named."""
    if found.pair or gold.pair or (found.half and gold.half):
        return _pairs_agree(found, gold, parts)
    unit, expected, equal = found.unit, gold.unit or parts.question.asked, found.value == gold.value
    if unit and expected and unit.dimension == expected.dimension and unit != expected:
        return found.value * unit.factor == gold.value * expected.factor or (None if equal else False)
    if equal or _rounds_to(found, gold) or (unit and _changes_into(found, unit, gold, parts)):
        return True
    if found.scale != gold.scale and found.value * gold.scale == gold.value * found.scale:
        scale = max(found.scale, gold.scale)
        names = (name for name, factor in parts.words.magnitudes.items() if factor == scale and name not in "km")
        return True if any(name in parts.question.text for name in names) else None
    return None if found.other is not None and found.other == gold.value else False


def _changes_into(found: Value, unit: Unit, gold: Value, parts: Response) -> bool:
    """Whether it is the gold value in another unit that the question mentions."""
    same = (each for each in parts.question.mentioned if each.dimension == unit.dimension)
    return any(found.value * unit.factor == gold.value * each.factor for each in same)


def _rounds_to(found: Value, gold: Value) -> bool:
    """Whether a number is the gold one after rounding: 2.14 or 15/7 for 2.14285714286, 90 for 89.999982."""
    if gold.decimals < 3:
        return False
    apart = abs(found.value - gold.value)
    rounded = 0 < found.decimals < gold.decimals and apart * 2 <= Fraction(1, 10**found.decimals)
    return rounded or apart <= max(Fraction(1, 10**gold.decimals), abs(gold.value) / 10**6)


def may_be_meant(found: Value, gold: Value) -> bool:
    """Whether a value may be the gold one in another unit or form; then it is not called wrong."""
    if not found.value or not gold.value or found.value == gold.value:
        return False
    ratio = abs(found.value / gold.value)
    if max(ratio, 1 / ratio) in (CONVERSION_FACTORS if found.unit or gold.unit else FACTORS_WITHOUT_UNIT):
        return True
    apart, places = abs(found.value - gold.value), max(found.decimals, gold.decimals, found.value.denominator > 1)
    return places > 0 and apart < Fraction(1, 10 ** min(places, 2)) and apart < abs(gold.value) / 20


def _pairs_agree(found: Value, gold: Value, parts: Response) -> bool:
    """Compare ratios by quotient, times of day by minute; 10:30 equals 22:30 where only one says am or pm."""
    one, two = _minutes(found), _minutes(gold)
    if one is None or two is None or parts.words.ratio.search(parts.question.text):
        return found.value == gold.value
    return one == two or (bool(found.half) != bool(gold.half) and one % 720 == two % 720)


def _minutes(value: Value) -> int | None:
    """The minute of the day; None where the value is not a time of day."""
    hours, minutes = (*value.pair, 0)[:2] if value.pair else (value.value, 0)
    if hours != int(hours) or not 0 <= hours <= 24 or not 0 <= minutes < 60:
        return None
    later = 12 if value.half == "pm" else 0
    return (int(hours) % 12 + later if value.half and hours <= 12 else int(hours)) * 60 + int(minutes)


def _same_choice(parts: Response, gold: Gold, statement: Statement | None) -> Agreement:
    """Whether the letter chosen last, in the most reliable form found, is the gold one."""
    surest = (rf"\\boxed\s?\{{{LETTER}", rf"(?:{parts.words.label.pattern}){LETTER}", rf"[选選](?:项|择)?{LETTER}")
    bold, alone = r"\*\*[(]?(?P<letter>[a-j])[).]?[^*\n]{0,40}\*\*", rf"\A{LETTER}[\s).*。]*\Z"
    for form in (*surest, rf"{parts.words.option.pattern}{LETTER}", bold, alone):
        found = parts.find(re.compile(form), Span(parts.start, parts.end))
        if found:
            same = found["letter"] == gold.text or (False if form in surest else None)
            return same, Statement(Strength.LABEL, "choice", (), *found.span("letter"), found["letter"])
    return None, statement


def _same_side(parts: Response, gold: Gold, statement: Statement | None) -> Agreement:
    """Whether the box, the last label, the last sentence or the first one says the same yes or no."""
    sentences = [span for span in parts.body if parts.text[span.start : span.end].strip()]
    for span in _stated(parts) + sentences[-1:] + sentences[:1]:
        no, yes = parts.words.no.search(parts.text, *span), parts.words.yes.search(parts.text, *span)
        found = no if no and not (yes and yes.start() < no.start()) else None if no else yes
        if found:
            expected = parts.words.no.fullmatch(gold.text) is not None
            return (found is no) == expected, Statement(Strength.LABEL, "side", (), *found.span(), found.group())
    return None, statement


def _same_text(parts: Response, gold: Gold, statement: Statement | None) -> Agreement:
    """Whether a box, a label or the whole response is the gold text; never False: another text may mean the same."""
    for span in (*_stated(parts), Span(parts.start, parts.end)):
        found = parts.text[span.start : span.end].strip()
        if _bare(found) and _bare(found) == _bare(gold.text):
            return True, Statement(Strength.LABEL, "text", (), *span, found)
    return None, statement


def _stated(parts: Response) -> list[Span]:
    """The last box, and the rest of the line after the last label."""
    labels = [label.end() for label in parts.words.label.finditer(parts.text, parts.start, parts.end)][-1:]
    lines = [Span(start, start + len(parts.text[start : parts.end].partition("\n")[0])) for start in labels]
    return [*(Span(each.start, each.end) for each in parts.explicit[-1:]), *lines]


def _same_expressed(parts: Response, gold: Gold, statement: Statement | None) -> Agreement:
    """Compare by math-verify; an expression with a label and no box is never wrong."""
    if not statement:
        return None, None
    found = statement.expression or "".join(parts.text[each.start : each.end] for each in statement.values[-1:])
    same = same_written(gold.text, found) if found else None
    return same if statement.strength == Strength.EXPLICIT else same or None, statement


def same_written(gold: str, found: str) -> bool | None:
    """Whether two expressions are written the same way, or math-verify finds them equal."""
    return True if _bare(gold) == _bare(found) else same_expression(gold, found)


def _bare(text: str) -> str:
    """The text without LaTeX's wrappers, marks, articles and spaces."""
    return re.sub(r"^(?:the|an?)\s|[\s*_.。,:;!?\"'“”()\[\]{}$\\-]", "", WRAPPED.sub(r"\1", text).strip(" *_.:$"))


KINDS = {
    "number": _same_number,
    "choice": _same_choice,
    "side": _same_side,
    "text": _same_text,
    "expression": _same_expressed,
}
