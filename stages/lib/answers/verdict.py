r"""The verdict by rule: the final answer of a response against the gold one.

*right*: the surest rule that finds something reads one value, and it is the gold answer's.
*wrong*: it reads one other value, and the gold one is not stated by another strong candidate; where the rule is weak
(a conclusion, bold, an equation, the last number), the gold value is nowhere among the response's numbers.
*unsure*: all else. A wrong verdict costs more than none.

Values are compared exactly. Units that change into one another do so (240 minutes are the 4 hours asked for; 39 days
are not 6 weeks); a unit counts only where both sides have one, the gold answer's being its own or the question's.
A percent sign is such a unit, so 25 % is 25 where a percentage is the answer; 0.25 or a quarter is then unsure.
What is no plain number (``2\sqrt{3}``) goes to math-verify in a process of its own (``expressions``).
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Literal

from stages.lib.answers.expressions import same_expression
from stages.lib.answers.numbers import Quantity, quantities_in, quantity_at
from stages.lib.answers.reading import Reading, Response, is_ratio, numbers_in
from stages.lib.answers.spelling import normalise
from stages.lib.answers.stating import distinct, is_plain
from stages.lib.answers.units import PERCENT, UNITS, Unit, mentioned_units
from stages.lib.answers.wording import CORRECTS, DENIED_AFTER, DENIED_BEFORE

SURE = ("boxed", "hashes", "answer_line")
MATHEMATICS = re.compile(r"\\[a-z]+|[\^√π]|\d\s?[+*×÷]\s?\d|[+*/^=(]\s?[a-z]\b|\b[a-z]\s?[+*/^=)-]|\d[a-z]\b")
DOLLAR = UNITS["dollar"]
SMALL_MONEY = re.compile(r"[Cc]ent|[¢分角毛]")
NEGATIVE_WORDS = re.compile(r"零下|以下|下面|低于|负|欠|亏|\b(?:below|under|minus|negative|loss|lost|owes?|less)\b")
NUMERAL = re.compile(r"[\d二三四五六七八九十百]")
PLAIN_GOLD = re.compile(r"-?(?:\d{1,15}|\d{1,3}(?:,\d{3}){1,4})")
CHANGES = frozenset({1, 12, 16, 60, 100, 1000, 3600, 86_400, 604_800} | {unit.factor for unit in UNITS.values()})
HALF_DAY = 12 * 60


@dataclass(frozen=True)
class Verdict:
    """``verdict`` on the ``prediction`` (as found; None where none was) and its ``value``, by a ``rule``."""

    verdict: Literal["right", "wrong", "unsure"]
    prediction: str | None
    rule: str
    value: Fraction | None = None


@dataclass(frozen=True)
class Gold:
    """The gold answer: a quantity, or else an expression for math-verify; neither where it is no mathematics."""

    quantity: Quantity | None
    expression: str | None


def rule_verdict(question: str, response: str, answer: str) -> Verdict:
    """Judge a response against the gold ``answer``; unsure where either cannot be read for certain."""
    parts = Response(response, question)
    reading, gold = parts.read(), read_gold(answer)
    predicted = reading.quantities[0] if reading.quantities else None
    return Verdict(
        _decide(parts, reading, gold),
        predicted.text if predicted else reading.expression,
        reading.rule,
        reading.quantity.value if reading.quantity else None,
    )


def read_gold(answer: str) -> Gold:
    """A gold answer's quantity or expression; it is data, so it is written in digits or in numerals."""
    text = answer.rpartition("####")[2].strip()
    if PLAIN_GOLD.fullmatch(text):
        return Gold(Quantity(text, Fraction(int(text.replace(",", "")))), None)
    text = normalise(text)
    text = text.strip("$") if text.endswith("$") else text
    if is_plain(text):
        found = distinct(quantities_in(text))
        if not found and not text.isascii():
            spelled = quantity_at(text)
            found = (spelled,) if spelled else ()
        return Gold(found[0] if len(found) == 1 else None, None)
    return Gold(None, text if MATHEMATICS.search(text) else None)


def _decide(parts: Response, reading: Reading, gold: Gold) -> Literal["right", "wrong", "unsure"]:
    if reading.expression or gold.expression:
        same = _same_expression(reading, gold)
        return "unsure" if same is None else "right" if same else "wrong"
    if reading.quantity is None or gold.quantity is None or _leaves_a_sum(parts, reading, gold.quantity):
        return "unsure"
    same = agrees(reading.quantity, gold.quantity, parts)
    if same:
        doubtful = _taken_back(parts, reading, gold.quantity) or _is_denied(parts, reading)
        return "unsure" if doubtful else "right"
    if reading.rule not in SURE and reading.rule != "phrase" and _concluded_before(parts, reading, gold.quantity):
        return "right"
    if same is None or _stated_elsewhere(parts, reading, gold.quantity):
        return "unsure"
    otherwise = reading.rule not in SURE and _may_be_said_otherwise(reading.quantity, gold.quantity, parts)
    return "unsure" if otherwise else "wrong"


def _concluded_before(parts: Response, reading: Reading, gold: Quantity) -> bool:
    """Whether the gold answer was an emphatic conclusion, and what comes after neither concludes nor builds on it."""
    results = [result for result in parts.results if result.end <= reading.end]  # none that is an aside
    stated = [index for index, result in enumerate(results) if result.emphatic and _is(result, gold, parts)]
    if not stated:
        return False
    later = results[stated[-1] + 1 :]
    rest = parts.body[results[stated[-1]].end :]
    builds_on = any(agrees(quantity, gold, parts) is not False for quantity in quantities_in(rest))
    return not builds_on and all(result.rule not in ("conclusion", "bold") for result in later)


def _is(reading: Reading, gold: Quantity, parts: Response) -> bool:
    return reading.quantity is not None and agrees(reading.quantity, gold, parts) is True


def _leaves_a_sum(parts: Response, reading: Reading, gold: Quantity) -> bool:
    """Whether the gold answer is the sum of a response's two or three numbers, which it only lists (Tom: 5, Ann: 7)."""
    if reading.rule != "last_number":
        return False
    values = [quantity.value for quantity in islice(parts.numbers(), 4)]
    return 1 < len(values) < 4 and sum(values) == gold.value


def _same_expression(reading: Reading, gold: Gold) -> bool | None:
    """By math-verify; None where one side is missing."""
    wanted = gold.expression or (str(gold.quantity.value) if gold.quantity else "")
    found = reading.expression or (reading.quantity.text if reading.quantity else "")
    return same_expression(wanted, found) if wanted and found else None


def agrees(found: Quantity, gold: Quantity, parts: Response) -> bool | None:
    """Whether a quantity is the gold one; None where that hangs on a unit that nobody named."""
    if "pair" in (found.kind, gold.kind) or (found.half and gold.half):
        return _pairs_agree(found, gold, parts.question)
    if found.unit is None or found.unit == gold.unit:
        same = found.value == gold.value or _same_but_for_the_word(found, gold, parts.question)
        return _share(found, gold, parts) if same is False else same
    if found.value == gold.value and found.unit == DOLLAR and not gold.unit and not SMALL_MONEY.search(parts.question):
        return True  # by far the most common case, told without looking for the unit that is asked for
    return _agrees_in_units(found, found.unit, gold, parts)


def _share(found: Quantity, gold: Quantity, parts: Response) -> Literal[False] | None:
    """Whether 1/4 or 0.25 is what a percentage, 25, was asked for: None, for its author may have meant it or not."""
    if found.unit or not gold.value or found.value * 100 != gold.value:
        return False
    return None if parts.asked() == PERCENT else False


def _may_be_said_otherwise(found: Quantity, gold: Quantity, parts: Response) -> bool:
    """A minus put in words that nobody reads, or numbers made smaller for a child (50,000 as 50 boxes)."""
    if gold.value < 0 and found.value == -gold.value:
        return bool(NEGATIVE_WORDS.search(parts.whole))
    return found.value != 0 and gold.value in (found.value * 1000, found.value * 10_000)


def _agrees_in_units(found: Quantity, unit: Unit, gold: Quantity, parts: Response) -> bool | None:
    """The found quantity has a unit, the gold one another or none."""
    equal = found.value == gold.value
    wanted = gold.unit or parts.asked()
    if wanted and wanted.dimension == unit.dimension:
        same = equal if unit == wanted else found.value * unit.factor == gold.value * wanted.factor
        return same or (None if equal else False)
    if PERCENT in (unit, wanted):
        return equal
    if equal:
        return True if unit.dimension != "count" or unit in mentioned_units(parts.question) else None
    return _changes_into(found, gold, parts.question) or _same_but_for_the_word(found, gold, parts.question)


def _same_but_for_the_word(found: Quantity, gold: Quantity, question: str) -> bool | None:
    """$192 million is 192 where the question counts in millions; else a million apart, which may be meant or not."""
    if found.scale == gold.scale or found.value / found.scale != gold.value / gold.scale:
        return False
    words = {10**3: "thousand|千", 10**4: "万", 10**6: "million|百万", 10**8: "亿", 10**9: "billion", 100: "hundred|百"}
    named = words.get(max(found.scale, gold.scale))
    return True if named and re.search(named, question.lower()) else None


def _changes_into(found: Quantity, gold: Quantity, question: str) -> bool | None:
    """The gold answer has no unit: any of the question's may be meant, and pieces always are."""
    assert found.unit
    smallest = found.value * found.unit.factor
    if found.unit.dimension == "count" or not gold.value:
        return smallest == gold.value
    times = smallest / gold.value
    if times not in CHANGES:
        return False
    named = {each.factor for each in mentioned_units(question) if each.dimension == found.unit.dimension}
    return True if times in named else None


def _pairs_agree(found: Quantity, gold: Quantity, question: str) -> bool | None:
    """Ratios by their quotient, times of day by the minute; 10:30 is 22:30 too where no half is said."""
    if found.kind == gold.kind and found.text == gold.text:
        return not (found.half and gold.half and found.half != gold.half)
    if is_ratio(question) or (found.value == gold.value and not (found.half or gold.half)):
        return found.value == gold.value
    times = [_minutes(quantity) for quantity in (found, gold)]
    if None in times:
        return None if found.value != gold.value and found.kind != gold.kind else found.value == gold.value
    first, second = (time for time in times if time is not None)
    if first == second:
        return True
    vague = not (found.half and gold.half) and not any(time >= 13 * 60 for time in (first, second) if not found.half)
    return vague and first % HALF_DAY == second % HALF_DAY


def _minutes(quantity: Quantity) -> int | None:
    hours, _, minutes = quantity.text.partition(":")
    if not hours.isdigit() or not (minutes or "0").isdigit() or int(hours) > 24 or (minutes and len(minutes) != 2):
        return None
    whole = int(hours)
    if quantity.half:
        whole = whole % 12 + (12 if quantity.half == "pm" else 0) if whole <= 12 else whole
    return whole * 60 + int(minutes or 0)


def _taken_back(parts: Response, reading: Reading, gold: Quantity) -> bool:
    """Whether what follows the answer comes to something else: a correction, or a conclusion after the phrase."""
    if reading.rule in ("hashes", "answer_line", "last_number", "bold", "equation", "conclusion"):
        return False
    rest = parts.body[reading.end :]
    if not NUMERAL.search(rest):
        return False
    corrected = bool(CORRECTS.search(rest))
    for index in range(len(parts.sentences) - 1, -1, -1):
        if parts.sentences[index].end <= reading.end + 1:
            return False
        result = parts.result(index)
        if result and result.quantity and (corrected or (reading.rule == "phrase" and result.concludes)):
            return agrees(result.quantity, gold, parts) is False
    return False


def _is_denied(parts: Response, reading: Reading) -> bool:
    """Whether the number stands there to be denied: it is not 18; 18 is wrong."""
    if reading.rule in SURE or reading.quantity is None:
        return False
    sentence = next((each.text for each in parts.sentences if each.end >= reading.end), "")
    before, _, after = sentence.rpartition(reading.quantity.text)
    return bool(DENIED_BEFORE.search(before) or DENIED_AFTER.match(after))


def _stated_elsewhere(parts: Response, reading: Reading, gold: Quantity) -> bool:
    """Whether another strong candidate states the gold answer; after a weak rule, whether any number does."""
    stated = [quantity for phrase, _ in parts.statements for quantity in phrase.quantities + phrase.also]
    stated += reading.also
    if reading.rule == "phrase":
        last = [result for result in parts.results if result.end >= reading.end] or parts.results[-1:]
        stated += [quantity for result in last for quantity in result.quantities]
    elif reading.rule not in SURE:
        stated += [quantity for result in _rivals(parts) for quantity in result.quantities]
        stated += [] if _is_confirmed(parts, reading, gold) else parts.numbers()
    return any(agrees(quantity, gold, parts) is not False for quantity in stated)


def _rivals(parts: Response) -> list[Reading]:
    """The results that conclude or stand in bold."""
    return [result for result in parts.results if result.rule in ("conclusion", "bold")]


def _is_confirmed(parts: Response, reading: Reading, gold: Quantity) -> bool:
    """Whether a conclusion repeats a result (43 - 3 = 40, so **40** are left), and the gold answer is not behind."""
    found = reading.quantity
    if not found or not (reading.concludes or reading.rule == "bold"):
        return False
    before = [result.quantity for result in parts.results if result.end < reading.end][-1:]
    repeats = any(quantity and quantity.value == found.value for quantity in before)
    if reading.emphatic and repeats:
        return True
    sentence = next((each.text for each in parts.sentences if each.end == reading.end), "")
    equals = re.search(rf"[=≈][\s*$]{{0,4}}{re.escape(found.text)}(?![\d.,]*\d)", sentence)
    if not (equals or repeats):
        return False
    return all(agrees(quantity, gold, parts) is False for quantity in numbers_in(parts.body[reading.end :]))
