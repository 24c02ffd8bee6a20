r"""The verdict by rule: is the gold answer what a response states as its answer?

The gold answer is known, so nothing is extracted: the response's statements (``statements``) are asked how strongly
they state it, and whether anything as strong, later, says otherwise.

*right*: the statement that counts states the gold value. It is the last box, ``####`` or last line ``A:``; else the
last labelled final answer; else the last label, conclusion or number in bold of the solution; else what its last
equation comes to; else the only number of a text that is whole.
*wrong*: it states another value, and the gold value stands nowhere as a result, in any unit or form.
*unsure*: all else. A wrong verdict costs more than none.

Values are compared exactly. Units that change into one another do so (240 minutes are the 4 hours asked for), and a
rounded number is right where the gold one has three places or more. What is no number is a choice, yes or no, a short
text or an expression (``kinds``).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from stages.lib.answers.expressions import same_expression
from stages.lib.answers.kinds import Gold, read_gold, same_by_kind, same_written
from stages.lib.answers.lexicon import Unit
from stages.lib.answers.statements import Response, Statement, Strength
from stages.lib.answers.values import Value

Word = Literal["right", "wrong", "unsure"]
# factors between two ways to say the same: units, percents, thousands left out for a child
CHANGES = frozenset({7, 10, 12, 16, 24, 30, 52, 60, 100, 365, 1000, 3600, 5280, 10_000, 10**6, 10**9})
WITHOUT_UNIT = frozenset({100, 1000, 10_000})
HALF_DAY = 12 * 60


@dataclass(frozen=True)
class Verdict:
    """``verdict`` on the ``prediction`` (as found; None where none was) and its ``value``, by a ``rule``.

    ``start`` and ``end`` are the place in the response that the verdict rests on; both 0 where there is none.
    """

    verdict: Word
    prediction: str | None
    rule: str
    value: Fraction | None = None
    start: int = 0
    end: int = 0


def rule_verdict(question: str, response: str, answer: str, language: str = "en") -> Verdict:
    """Judge a response against the gold ``answer``; unsure where either cannot be read for certain.

    English and Chinese are always read; ``language`` names a further one that has a file in ``languages``.
    """
    parts = Response(response, question, language)
    gold = read_gold(answer)
    statement = parts.counting()
    if gold.value:
        word, statement = _by_value(parts, gold.value, statement)
    else:
        same, statement = same_by_kind(parts, gold, statement)
        word = "unsure" if same is None else "right" if same else "wrong"
    return _verdict(parts, gold, word, statement)


def _verdict(parts: Response, gold: Gold, word: Word, statement: Statement | None) -> Verdict:
    if statement is None:
        return Verdict(word, None, "none")
    value = next((each for each in statement.values if gold.value and agrees(each, gold.value, parts)), None)
    value = value or (statement.values[0] if statement.values else None)
    start, end = (value.start, value.end) if value else (statement.start, statement.end)
    found = parts.text[start:end].strip() if value else statement.expression
    single = value.value if value and len(statement.values) == 1 else None
    return Verdict(word, found, statement.rule, single, start + parts.cut, end + parts.cut)


def _by_value(parts: Response, gold: Value, statement: Statement | None) -> tuple[Word, Statement | None]:
    if statement is None:
        return "unsure", None
    if statement.strength == Strength.EXPLICIT:
        return _explicit(parts, gold, statement), statement
    held = _holds(parts, gold, statement)
    if held:
        return "right", statement
    emphatic = parts.most_emphatic() if statement.strength < Strength.LABEL else None
    if emphatic and parts.emphasis(emphatic) > parts.emphasis(statement) and _holds(parts, gold, emphatic):
        return "right", emphatic
    return "wrong" if held is False and not _is_stated_anywhere(parts, gold, statement) else "unsure", statement


def _explicit(parts: Response, gold: Value, last: Statement) -> Word:
    """By boxes or ``####``: the last counts, unless others stand beside it."""
    beside = [last]
    for box in reversed(parts.explicit[:-1]):
        between = parts.text[box.end : beside[-1].start]
        if (
            len(between) > 40
            or "\n" in between
            or parts.words.clause.search(between)
            or parts.words.corrects.search(between)
        ):
            break
        beside.append(box)
    if all(_matches(parts, gold, box) for box in beside):
        return "right"
    if any(_matches(parts, gold, box) is not False for box in parts.explicit):
        return "unsure"
    total = sum(value.value for box in beside for value in box.values)
    return "unsure" if total == gold.value else "wrong"


def _matches(parts: Response, gold: Value, box: Statement) -> bool | None:
    if not box.values:
        has_number = any(sign.isdigit() for sign in box.expression or "") or "\\pi" in (box.expression or "")
        return same_written(str(gold.value), box.expression or "") if has_number else None
    found = {agrees(value, gold, parts) for value in box.values}
    if len(box.values) == 1:
        (same,) = found
        return None if same is False and may_be_meant(box.values[0], gold) else same
    return False if found == {False} else None


def _holds(parts: Response, gold: Value, statement: Statement) -> bool | None:
    """Whether a statement states the gold value; None where it leaves that open."""
    if not statement.values:
        return True if statement.expression and same_expression(str(gold.value), statement.expression) else None
    found = [agrees(value, gold, parts) for value in statement.values]
    if (len(found) == 1 or all(found)) and found[0] is not False:
        return found[0]
    if any(each is not False for each in found):
        hedged = parts.words.hedge.search(parts.text, statement.start, statement.end)
        return True if not hedged and _last_equation_comes_to(parts, gold, statement) else None
    return None if any(agrees(value, gold, parts) is not False for value in statement.also) else False


def _last_equation_comes_to(parts: Response, gold: Value, statement: Statement) -> bool:
    """Whether the last result before a statement, which leaves open what it means, is the gold value."""
    weaker = (Strength.EQUATION, Strength.RESULT)
    before = [each for each in parts.stated if each.end <= statement.start and each.strength in weaker]
    last = before[-1].value if before else None
    return last is not None and agrees(last, gold, parts) is True


def _is_stated_anywhere(parts: Response, gold: Value, statement: Statement) -> bool:
    """Whether the gold value stands anywhere as a result, in any unit or form; beside a weak statement, or one of
    several values, whether it is any number that the question does not give, or the sum of a few."""
    results = [value for each in parts.stated_anywhere if each.strength for value in each.values]
    if any(agrees(value, gold, parts) is not False for value in results):
        return True
    if any(may_be_meant(value, gold) for value in statement.values + statement.also):
        return True
    if gold.value < 0 and parts.words.negative_words.search(parts.text):
        return any(value.value == -gold.value for value in results)
    if statement.strength >= Strength.LABEL and statement.value:
        return any(value.value == gold.value for value in parts.numbers.worded(statement.start, statement.end))
    every = parts.numbers.values(0, len(parts.text))
    if 1 < len(every) < 4 and sum(value.value for value in every) == gold.value:
        return True
    every += parts.numbers.worded(statement.start, statement.end)
    return any(agrees(value, gold, parts) is not False and value.value not in parts.givens for value in every)


def agrees(found: Value, gold: Value, parts: Response) -> bool | None:
    """Whether a value is the gold one; None where that hangs on a unit that nobody named."""
    if found.pair or gold.pair or (found.half and gold.half):
        return _pairs_agree(found, gold, parts)
    wanted = gold.unit or (parts.asked if found.unit else None)
    if found.unit and wanted and found.unit != wanted:
        return _units_agree(found, found.unit, wanted, gold)
    if found.value == gold.value or _rounds_to(found, gold):
        return True
    if found.unit and _changes_into(found, found.unit, gold, parts):
        return True
    if found.scale != gold.scale and found.value * gold.scale == gold.value * found.scale:
        scale = max(found.scale, gold.scale)
        names = (name for name, factor in parts.words.magnitudes.items() if factor == scale and name not in "km")
        return True if any(name in parts.question for name in names) else None
    return None if found.other is not None and found.other == gold.value else False


def _units_agree(found: Value, unit: Unit, wanted: Unit, gold: Value) -> bool | None:
    equal = found.value == gold.value
    if unit.dimension != wanted.dimension:
        return equal
    return True if found.value * unit.factor == gold.value * wanted.factor else None if equal else False


def _changes_into(found: Value, unit: Unit, gold: Value, parts: Response) -> bool:
    """Whether it is the gold value in another unit that the question speaks of."""
    same = (each for each in parts.mentioned if each.dimension == unit.dimension)
    return any(found.value * unit.factor == gold.value * each.factor for each in same)


def _rounds_to(found: Value, gold: Value) -> bool:
    """Whether a found number is the gold one but for rounding: 2.14 or 15/7 for 2.14285714286, 90 for 89.999982."""
    if gold.decimals < 3:
        return False
    apart = abs(found.value - gold.value)
    if apart <= max(Fraction(1, 10**gold.decimals), abs(gold.value) / 10**6):
        return True
    return 0 < found.decimals < gold.decimals and apart * 2 <= Fraction(1, 10**found.decimals)


def may_be_meant(found: Value, gold: Value) -> bool:
    """Whether a value may be the gold one in another unit or form: enough to call nothing wrong."""
    if not found.value or not gold.value or found.value == gold.value:
        return False
    ratio = abs(found.value / gold.value)
    if max(ratio, 1 / ratio) in (CHANGES if found.unit or gold.unit else WITHOUT_UNIT):
        return True
    apart, places = abs(found.value - gold.value), max(found.decimals, gold.decimals, found.value.denominator > 1)
    return places > 0 and apart < Fraction(1, 10 ** min(places, 2)) and apart < abs(gold.value) / 20


def _pairs_agree(found: Value, gold: Value, parts: Response) -> bool | None:
    """Ratios by their quotient, times of day by the minute; 10:30 is 22:30 too where no half is said."""
    if found.value == gold.value and not (found.half or gold.half):
        return True
    one, two = _minutes(found), _minutes(gold)
    if one is None or two is None or parts.words.ratio.search(parts.question):
        return found.value == gold.value
    if one == two:
        return True
    vague = not (found.half and gold.half) and (found.half or gold.half or max(one, two) < 13 * 60)
    return bool(vague) and one % HALF_DAY == two % HALF_DAY


def _minutes(value: Value) -> int | None:
    """The minute of the day; None for what is no time of day."""
    hours, minutes = (*value.pair, 0)[:2] if value.pair else (value.value, 0)
    if hours != int(hours) or not 0 <= hours <= 24 or not 0 <= minutes < 60:
        return None
    later = 12 if value.half == "pm" else 0
    return (int(hours) % 12 + later if value.half and hours <= 12 else int(hours)) * 60 + int(minutes)
