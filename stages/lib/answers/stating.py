"""What one piece of text states: the number of a sentence that is meant, or all that may be.

    meant("She sold 48 + 24 = **72** clips in 2 months")   → (72,)
    meant("Tom has 5 apples and Ann has 7")                → (5, 7): two values, so no answer
    at_once("5 or 6")  → (5, 6)        at_once("18 dollars, 7 days a week")  → (18,)

Several *different* values mean that the text leaves it open; the same value twice (240 minutes = 4 hours) is one.
"""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache

from stages.lib.answers.asides import turns_aside
from stages.lib.answers.numbers import (
    MEASURE,
    Quantity,
    each_quantity,
    moved,
    quantities_in,
    quantity_at,
    spelled_in,
    worded_in,
)
from stages.lib.answers.units import Unit
from stages.lib.answers.wording import (
    AFTER_SCENE,
    BEFORE_SCENE,
    CLAUSE,
    CONNECTOR,
    ENDS,
    HEDGE,
    IDIOM,
    LABELLED,
    LATER_TOTAL,
    SIDE_BY_SIDE,
    TOTAL,
    VERB,
)

Asked = Callable[[], Unit | None]  # the unit that the question asks for

BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*")
EQUALS = re.compile(r"[=≈⇒→]")
PLACE = re.compile(r"(\d{1,3})(?:st|nd|rd|th)\b")
OPERATOR = re.compile(r"[\s*$)]{0,4}(?:[+×÷=≈^!√]|\*\s?\d|[-/]\s?\(?\$?\d|x\s?\d|-\s)")
NOT_PLAIN = re.compile(r"\\(?!text|[()\[\],;:! %$#&])|[\^√π×÷+_!]|\d[a-z](?![a-z])|[a-z]\d|\)\s?\(|\d\s?\(|-\s?\d+\s?-")


@lru_cache(maxsize=256)
def bold_quantities(text: str) -> tuple[Quantity, ...]:
    """The quantities within bold spans; a heading in bold (a question, a label with a colon) is none."""
    found: list[Quantity] = []
    for span in BOLD.finditer(text):
        content = span[1]
        if content.rstrip().endswith(("?", "？", ":", "：")):
            continue
        inside = quantities_in(text[span.start(1) : span.end() + 16])  # its unit may stand outside
        inside = tuple(quantity for quantity in inside if quantity.start < len(content))
        found += inside or spelled_in(content) or worded_in(content)
    return tuple(found)


def at_once(piece: str, asked: Asked = lambda: None) -> tuple[Quantity, ...]:
    """What a text states that should begin with the answer ("the answer is …"); every value it wavers between."""
    first = quantity_at(piece)
    if first is None:
        return meant(piece, asked)
    rest = piece[first.end :]
    if _sets_the_scene(piece, first):
        return meant(piece, asked)
    if OPERATOR.match(rest):
        return _after_equals(piece, asked) if EQUALS.search(rest) else ()
    return distinct(_with_alternatives(piece, first))


def _sets_the_scene(piece: str, first: Quantity) -> bool:
    """Whether the answer comes later, though a number comes first: 两个月一共 72 个, 5 out of 8 slices is 5/8."""
    later = [quantity for quantity in quantities_in(piece) if quantity.start >= first.end]
    if not later:
        return False
    spelled = not any(sign.isdigit() for sign in first.text)
    total = TOTAL.search(piece, first.end, later[-1].start)
    scene = AFTER_SCENE.match(piece[first.end : first.end + 16]) and not OPERATOR.match(piece[first.end :])
    return bool(total or scene or (spelled and not _joined(piece, first, later[0])))


def _joined(text: str, first: Quantity, second: Quantity) -> bool:
    between = text[first.end : second.start]
    return len(between) <= 60 and bool(CONNECTOR.search(between)) and not CLAUSE.search(between)


def meant(sentence: str, asked: Asked = lambda: None) -> tuple[Quantity, ...]:
    """The value that a sentence comes to, by the surest of its signs; several where they leave it open."""
    equation = _after_equals(sentence, asked) if EQUALS.search(sentence) else ()
    if equation:
        return equation
    found = tuple(bold_quantities(sentence) or quantities_in(sentence) or spelled_in(sentence) or worded_in(sentence))
    values = distinct(found)
    if len(values) <= 1 or HEDGE.search(sentence) or _is_split(sentence, found):
        return values
    return next((narrowed for narrowed in _narrowings(sentence, found, asked) if len(narrowed) == 1), values)


def _is_split(sentence: str, found: tuple[Quantity, ...]) -> bool:
    """Whether an aside divides the quantities, so that neither is surely meant: 现在12岁，四年前她是8岁."""
    start = turns_aside(sentence)
    return start is not None and found[0].start < start < found[-1].start


def is_plain(piece: str) -> bool:
    """Whether a piece of LaTeX holds numbers, words and units only: nothing that has to be worked out."""
    return not NOT_PLAIN.search(piece)


def distinct(quantities: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """The quantities without those that say the same as another (240 minutes = 4 hours); the last is kept."""
    kept: list[Quantity] = []
    for quantity in quantities:
        kept = [other for other in kept if not alike(other, quantity)] + [quantity]
    return tuple(kept)


def alike(first: Quantity, second: Quantity) -> bool:
    """The same value, in the same unit or in one that changes into it."""
    if first.kind != second.kind:
        return False
    if first.unit and second.unit and first.unit.dimension == second.unit.dimension:
        return first.value * first.unit.factor == second.value * second.unit.factor
    if (first.unit and second.unit is None) or (second.unit and first.unit is None):
        counted = first.unit or second.unit
        if counted and counted.dimension == "count":  # 3 dozen, that is 36
            return counted_value(first) == counted_value(second)
    return first.value == second.value


def counted_value(quantity: Quantity) -> Fraction:
    """The value, dozens as single pieces."""
    return (
        quantity.value * quantity.unit.factor
        if quantity.unit and quantity.unit.dimension == "count"
        else quantity.value
    )


def _after_equals(sentence: str, asked: Asked) -> tuple[Quantity, ...]:
    """The right-hand side of the last equation that has a number there."""
    for sign in reversed(list(EQUALS.finditer(sentence))):
        start = sign.end()
        while start < len(sentence) and sentence[start] in " \t*$(≈=~>":
            start += 1
        place = PLACE.match(sentence, start)
        if place:  # 5th + 1 = 6th
            return (Quantity(place[1], Fraction(int(place[1])), None, *place.span(1)),)
        quantity = quantity_at(sentence, start)
        if quantity is None or not sentence[start:].strip(" *$"):
            continue
        rest = sentence[quantity.end :]
        if OPERATOR.match(rest) and not rest.lstrip(" *$)").startswith("("):
            return ()
        restated = CLAUSE.search(rest) or LATER_TOTAL.search(rest)
        later = meant(rest[restated.end() :], asked) if restated else ()
        return later or distinct(_with_alternatives(sentence, quantity))
    return ()


def _with_alternatives(piece: str, first: Quantity) -> list[Quantity]:
    """The first quantity and those joined to it by "or", "and", a comma or a dash."""
    found = [first]
    for quantity in each_quantity(piece[first.end :]):
        other = moved(quantity, first.end)
        if not _joined(piece, found[-1], other) or _is_scene(piece, other.start, other.end):
            break
        found.append(other)
    return found


def _narrowings(sentence: str, found: tuple[Quantity, ...], asked: Asked) -> Iterable[tuple[Quantity, ...]]:
    """Ways to tell the number that is meant from those that set the scene, the surest first."""
    before_last = sentence[max(0, found[-1].start - 8) : found[-1].start]
    ends = ENDS.match(sentence[found[-1].end :])
    if ends and LABELLED.search(before_last):
        yield found[-1:]
    for marker in (TOTAL, CLAUSE):
        last = max((match.end() for match in marker.finditer(sentence)), default=None)
        if last is not None:
            after = tuple(quantity for quantity in found if quantity.start >= last)
            if after and _is_of_another_kind(sentence, after[-1], found, asked):
                return
            if after:
                yield distinct(_with_alternatives(sentence, after[0])) if marker is TOTAL else distinct(after)
    wanted = asked()
    if wanted:
        yield distinct(quantity for quantity in found if quantity.unit == wanted)
    if len(found) > 1 and _parts(sentence, found[-2], found[-1]):
        return
    if ends and VERB.search(before_last):
        yield found[-1:]
    foreground = tuple(quantity for quantity in found if not _is_scene(sentence, quantity.start, quantity.end))
    yield distinct(foreground)
    if wanted:
        yield distinct(
            quantity for quantity in foreground if quantity.unit and quantity.unit.dimension == wanted.dimension
        )


def _is_of_another_kind(sentence: str, last: Quantity, found: tuple[Quantity, ...], asked: Asked) -> bool:
    """Whether the question asks for the unit of another number: 能吃6天，还剩4片, asked for days."""
    if last.unit or sentence[last.end : last.end + 1] not in MEASURE or last.end >= len(sentence):
        return False
    wanted = asked()
    return wanted is not None and any(quantity.unit == wanted for quantity in found)


def _parts(text: str, first: Quantity, second: Quantity) -> bool:
    """Two numbers side by side, neither of them the answer alone: 5 个红的和 15 个蓝的, 5 or 6."""
    between = text[first.end : second.start]
    joined = SIDE_BY_SIDE.search(between)
    return bool(joined) and len(between) <= 40 and not IDIOM.match(text[second.end : second.end + 30])


def _is_scene(text: str, start: int, end: int) -> bool:
    number_end = start
    while number_end < end and (text[number_end].isdigit() or text[number_end] in " .,-$"):
        number_end += 1
    return bool(
        IDIOM.match(text[number_end : number_end + 30])
        or BEFORE_SCENE.search(text[max(0, start - 16) : start])
        or AFTER_SCENE.match(text[number_end : number_end + 16])
    )
