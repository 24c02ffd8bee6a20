r"""Find where a response states a value as its answer, and how strongly.

    Response("**Final Answer:** There are **36 beans**.\nLet's check: 64 + 36 = 100.", question).answer_statement()
    → Statement(strength=FINAL, rule="final", values=(36,), …)

The strengths, the strongest first:

    EXPLICIT    a box, ``####`` or a last line ``A: 18``
    FINAL       a labelled *final* answer
    LABEL       "the answer is", 答案
    RESULT      a sentence that concludes, has its number in bold or restates the question
    EQUATION    the result of an equation
    MENTION     any other number

Each value of a sentence has a weight (``_weights``). Where several have the highest weight, the statement has several
values, and it is open which one is meant.

What a tutor adds after a result is not part of the solution: a check, an example, a practice question, another time or
another case. Where a solution is marked (``<answer>``, ``<|begin_of_solution|>``, ``</think>``), only that is read.
"""

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

from stages.lib.answers.lexicon import Lexicon, Unit, lexicon
from stages.lib.answers.values import MEASURE, Text, Value, fold

LONGEST = 20_000  # characters that are read, from the end: five times the longest tutor's answer
MOST = 40  # boxes, and values of a sentence, that are read, from the end
SOLUTION = re.compile(r"(?P<marked><\|begin_of_solution\|>|<answer>)|</think>|<\|end_of_thought\|>")
SOLUTION_END = re.compile(r"<\|end_of_solution\|>|</answer>")
SENTENCE = re.compile(r"[^\n。!?.;]*(?:\.(?![\s*\"”)])[^\n。!?.;]*)*(?:[。!?;]+[*_)”\"』」]*|\.[*_)\"”]*)?|\n")
HASHES = re.compile(  # in the last line, or with a number and little else
    r"####(?!#)[ \t*]*(?=[-$¥€£\s\\]{0,4}(?:\.?\d|frac))([^\n]{1,200}(?=\s*\Z)"
    r"|[-$¥€£ *\\]{0,4}[\d,./{}]+(?: \d{3})*[ *]*(?:\\?%|[a-z]{1,12}|[一-鿿]{1,3})?[.。* ]*(?=\n|\Z))"
)
A_LINE = re.compile(r"(?m:^)[^\S\n]*\**a\**\s?:\**[^\S\n]*(\S[^\n]*)\s*\Z")
INNER = r"[^{}]*(?:\{[^{}]*\}[^{}]*)*"
BOXED = re.compile(
    rf"\\f?boxed\s{{0,3}}(?:(?P<bare>-?\d[\d.,]*)|\{{(?P<held>[^{{}}]*(?:\{{{INNER}\}}[^{{}}]*)*)(?:\}}|\Z))"
)
BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*|<b>([^<\n]{1,300})</b>")
EQUALS = re.compile(
    r"[=≈⇒→](?!=)|\\(?:approx|implies|rightarrow)(?![a-z])|等于|的?值[为是]|(?<!\w)(?:equals|makes)(?!\w)"
)
OPERATOR = re.compile(
    r"[²³]|[\s*$)}]{0,4}(?:\\(?:times|div|cdot|sqrt|pi)|[+×÷≈^√]|\*\s?\d|/\s?\(?\$?\d|-\s?\(?\$?\d|x\s?\d|=\s)"
)
AT_ONCE = re.compile(
    r"(?:[\s*_:\"'“”(（\[{≈~>】」$-]|\\[(\[,;: !]|\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{|<\w{1,6}>){0,16}"
)
CLAUSE = re.compile(r"[,;](?!\d{3})|(?<=[\w*)])\s(?=(?:and|but|which|while|so)\s)|其中|加上")
HAS_RESULT = re.compile(r"[=≈]\s{0,3}[*$\\(\[]{0,4}-?[$¥€£]?\.?\d|\*\*[^*\n]{0,60}\d|\\boxed")
DIGIT = re.compile(r"\d|[½⅓⅔¼¾]|\\[dtc]?frac|[一二两三四五六七八九十百半]")
HEADING = re.compile(r"\s*(?:#|(?m:\*\*[^*\n]+\*\*[:\s]*$|[^\n]{0,60}:[* ]*$))")
WORD_LEFT = re.compile(r"(?:and|the|of|和)\Z")
NEXT_LINES = re.compile(  # the items of a list, or a line
    r"(?:\s*(?:[-•+·▪►✅*]\s+)?[^\d\n=≈]{1,40}:[\s*$]*-?\d[^\n]*)+|[\s*_#>:-]*[^\n]*"
)
LATEX = re.compile(r"\$([^$\n]{1,200})\$|\\\((.{1,200}?)\\\)|\\\[(.{1,200}?)\\\]", re.DOTALL)
# more than numbers, words and units: math-verify compares it
NOT_PLAIN = re.compile(
    r"\\(?!text|mathrm|textbf|mathbf|[()\[\],;:! %$#&]|circ"
    r"|[dtc]?frac\s*(?:\{\s*-?[\d.,]+\s*\}|\d)\s*(?:\{\s*[\d.,]+\s*\}|\d))"
    r"|[√π×÷+_!±]|\^(?!\s*\{?\s*\\circ)|(?<![$€£¥\d.,])[\d.,]*\d[a-z](?![a-z])|\d[a-jln-z](?![a-z])|[a-z]\d|\)\s?\("
    r"|\d\s?\(|-\s?\d+\s?-|\(\s*-?[\d.]+\s*,"
)


class Strength(IntEnum):
    """How strongly a value is stated as the answer."""

    MENTION = 0
    EQUATION = 1
    RESULT = 2
    LABEL = 3
    FINAL = 4
    EXPLICIT = 5


class Span(NamedTuple):
    """A place in the text."""

    start: int
    end: int


class Statement(NamedTuple):
    """A statement: its ``values`` (several: open which one is meant) or an ``expression``.

    ``rule`` names the rule that found it. ``also`` holds the other values of the same sentence.
    """

    strength: Strength
    rule: str
    values: tuple[Value, ...]
    start: int
    end: int
    expression: str | None = None
    also: tuple[Value, ...] = ()

    @property
    def value(self) -> Value | None:
        """The one value; None where it is open which one is meant."""
        return self.values[0] if len(self.values) == 1 else None


class Question:
    """What a question asks for, and the values that it gives."""

    def __init__(self, text: str, words: Lexicon) -> None:
        self.text = fold(text)
        self.words = words

    @cached_property
    def asked(self) -> Unit | None:
        """The unit that the question asks for last; None where it names none."""
        return self.words.units.get(_last_group(self.words.asked, self.text))

    @cached_property
    def mentioned(self) -> frozenset[Unit]:
        """The units that it mentions."""
        return frozenset(self.words.units[name] for name in self.words.any_unit.findall(self.text))

    @cached_property
    def counted(self) -> str:
        """The word after the last "how many", without a plural's s; empty where there is none."""
        return _last_group(self.words.counted, self.text).removesuffix("s")

    @cached_property
    def given_values(self) -> frozenset[Fraction]:
        """The values that it gives."""
        numbers = Text(self.text, self.words)
        every = numbers.values(0, len(self.text)) + numbers.worded(0, len(self.text))
        return frozenset(value.value for value in every)

    @cached_property
    def topics(self) -> frozenset[str]:
        """What its last sentence is about."""
        measure = {self.counted} & MEASURE
        parts = (topics(part, self.words) - measure for part in re.split(r"[.?!。;,\n]+", self.text)[::-1])
        return next((part for part in parts if part), frozenset())


question_of = lru_cache(maxsize=256)(Question)


class Response:
    """A response with its parts, each computed at its first use. Positions are those of the folded text."""

    def __init__(self, response: str, question: str, language: str = "en") -> None:
        self.cut = max(0, len(response) - LONGEST)
        self.words = lexicon(language, response.isascii() and question.isascii())
        self.question = question_of(question[-LONGEST:], self.words)
        whole = fold(response[self.cut :])
        if self.words.ratio.search(self.question.text):
            whole = re.sub(r"(?<=\d)(?: to |\s?[比:]\s?)(?=\d)", lambda found: "\x00" * len(found.group()), whole)
        self.numbers = Text(whole, self.words)
        self.text = self.numbers.text
        self.start, self.end = marked_solution(whole)
        self._statements: dict[Span, Statement | None] = {}

    @cached_property
    def sentences(self) -> list[Span]:
        """Sentences and single newlines, in order; together they are the solution."""
        found = (Span(*match.span()) for match in SENTENCE.finditer(self.text, self.start, self.end))
        return [span for span in found if span.end > span.start]

    @cached_property
    def body(self) -> list[Span]:
        """The sentences of the solution itself."""
        return list(_body(self))

    @cached_property
    def bold(self) -> list[Span]:
        """What stands in bold."""
        marked = "**" in self.text or "<b>" in self.text
        found = BOLD.finditer(self.text, self.start, self.end) if marked else ()
        return [Span(*match.span(match.lastindex or 0)) for match in found]

    @cached_property
    def explicit(self) -> list[Statement]:
        """Boxes (only the solution's own, where it has any), or else the last ``####`` or last line ``A:``."""
        boxes = list(_boxes(self)) if "boxed" in self.text else []
        if len(boxes) > 1:
            boxes = [box for box in boxes if any(span.start <= box.start < span.end for span in self.body)] or boxes
        last = max(self.start, self.end - 400)
        for rule, form, start in () if boxes else (("hashes", HASHES, self.start), ("answer_line", A_LINE, last)):
            for match in list(form.finditer(self.text, start, self.end))[-1:]:
                values, also = stated_values(self, Span(*match.span(1)), at_once=True)
                return [Statement(Strength.EXPLICIT, rule, values, *match.span(1), match[1].strip(" .*"), also)]
        return boxes

    @cached_property
    def stated(self) -> list[Statement]:
        """What the solution's sentences state, in order."""
        return [statement for span in self.body if (statement := self.statement(span))]

    @cached_property
    def stated_anywhere(self) -> list[Statement]:
        """What any sentence states, sentences outside the solution included."""
        return [*self.explicit, *(statement for span in self.sentences if (statement := self.statement(span)))]

    def statement(self, span: Span) -> Statement | None:
        """What a sentence states, read once."""
        if span not in self._statements:
            self._statements[span] = _statement(self, span)
        return self._statements[span]

    def find(self, pattern: "re.Pattern[str]", span: Span) -> "re.Match[str] | None":
        """The last match of a pattern in a sentence."""
        return next(iter(list(pattern.finditer(self.text, *span))[::-1]), None)

    def answer_statement(self) -> Statement | None:
        """The statement that counts as the response's answer."""
        if self.explicit:
            return self.explicit[-1]
        for strengths in ((Strength.FINAL,), (Strength.LABEL, Strength.RESULT), (Strength.EQUATION,)):
            chosen = [index for index, each in enumerate(self.stated) if each.strength in strengths]
            if chosen:
                return self._corrected(chosen[-1])
        # a mention counts only where the text was not cut off: it ends with a mark, or after a few words
        text = self.text[self.start : self.end].strip()
        cut_off = text.endswith((",", "、")) or (text[-1:].isalnum() and (len(text) > 40 or WORD_LEFT.search(text)))
        return self.stated[-1] if self.stated and not cut_off else None

    def restates(self, start: int, end: int) -> bool:
        """Whether a piece of text repeats words of what the question asks."""
        asked = self.question.topics
        return len(topics(self.text[start:end], self.words) & asked) * 2 >= len(asked) > 0

    def emphasis(self, each: Statement) -> int:
        """How strongly a result is marked as the answer: 5 for a label; else one point each for words that conclude,
        bold, the question's own words, and the unit or the thing that the question asks for."""
        if each.strength == Strength.LABEL:
            return 5
        concludes = self.words.concludes.search(self.text, each.start, each.end) is not None
        asked = any(_is_counted(self, value) or _is_in_asked_unit(self, value) for value in each.values)
        return concludes + _is_bold(self, each.values) + self.restates(each.start, each.end) + asked

    def strongest_result(self) -> Statement | None:
        """The last of the results with the highest emphasis; None where a later statement builds on it."""
        results = [each for each in self.stated if each.strength == Strength.RESULT]
        result = max(reversed(results), key=self.emphasis, default=None)
        value = result and result.value
        if not (result and value) or self.emphasis(result) < 3:
            return None
        later = [each for each in self.stated if each.start > result.start and each.strength]
        builds_on = any(same_value(each, value) for statement in later for each in statement.also)
        return None if builds_on else result

    def _corrected(self, index: int) -> Statement:
        """The last statement after a correction. Without one, an equation that continues the result, such as
        48 + 24 = 72 after "So in May it is **24**."; else the statement itself."""
        result, later = self.stated[index], self.stated[index + 1 :]
        corrects = self.words.corrects.search(self.text, result.end, self.end)
        if corrects and later and later[-1].end > corrects.end():
            return later[-1]
        if result.strength == Strength.RESULT and not self.restates(result.start, result.end):
            for each in later:
                if each.strength == Strength.EQUATION and self._continues(result.value, each):
                    result = each
        return result

    def _continues(self, value: Value | None, later: Statement) -> bool:
        """Whether an equation computes a new value from this one."""
        new = later.value
        if not (value and new) or same_value(value, new) or new.value in self.question.given_values:
            return False
        return any(same_value(each, value) for each in later.also)


def _last_group(pattern: "re.Pattern[str]", text: str) -> str:
    """What the last match's group holds; empty where there is none."""
    return next((found[found.lastindex] for found in reversed(list(pattern.finditer(text))) if found.lastindex), "")


def topics(text: str, words: Lexicon) -> frozenset[str]:
    """What a text is about: the prefixes of its words and its Chinese characters, without the common ones."""
    return frozenset(word.removesuffix("s")[:5] for word in re.findall(r"[a-z]{2,}|[一-鿿]", text)) - words.common


def marked_solution(text: str) -> tuple[int, int]:
    """Where the marked solution begins and ends; else what follows the reasoning; else the whole text."""
    starts = list(SOLUTION.finditer(text)) if "<" in text else []
    if starts:
        end = SOLUTION_END.search(text, starts[-1].end())
        return starts[-1].end(), end.start() if end and starts[-1].lastgroup else len(text)
    return 0, len(text)


def solution(response: str) -> str:
    """The part of a response that is read: the marked solution, or what follows the reasoning, or all of it."""
    start, end = marked_solution(response[-LONGEST:])
    return response[-LONGEST:][start:end]


def _body(parts: Response) -> Iterator[Span]:
    """The sentences up to the practice questions, without checks, examples and other cases after a first result."""
    text, spans = parts.text, parts.sentences
    solved = concluded = skipping = heading = False
    for index, span in enumerate(spans):
        if text[span.start] == "\n":  # a section with a heading ends at the next one, another at a blank line
            blank = text.startswith("\n", span.end)
            if not heading if blank else heading and HEADING.match(text, span.end, parts.end):
                skipping = False
            continue
        kind = _opening(parts, span, concluded) if solved else ""
        if kind == "practice" or (kind == "maybe_practice" and _ends_solution(parts, index)):
            return
        if kind in ("check", "example", "maybe_practice"):
            skipping, heading = True, HEADING.match(text, span.start, parts.end) is not None
        if not skipping and kind != "aside":
            yield span
        concluded = concluded or _concludes(parts, span)
        solved = solved or concluded or HAS_RESULT.search(text, *span) is not None


def _opening(parts: Response, span: Span, concluded: bool) -> str:
    """What a sentence opens that is not part of the solution; empty where it opens nothing."""
    if concluded and parts.text.startswith("(", span.start) and parts.text[span.start - 1] == "\n":
        return "example"  # a remark
    found = parts.words.opens.match(parts.text, *span)
    kind = (found.lastgroup or "") if found else ""
    if kind in ("maybe_practice", "case"):
        asks = "?" in parts.text[span.start : parts.end].partition("\n")[0]
        return "maybe_practice" if asks else "aside" if concluded else ""
    if kind in ("later", "rest"):
        asks_for = parts.words.asks_later if kind == "later" else parts.words.asks_rest
        return "" if asks_for.search(parts.question.text[-160:]) else "aside"
    return kind


def _concludes(parts: Response, span: Span) -> bool:
    found = parts.words.concludes.search(parts.text, *span) or parts.words.label.search(parts.text, *span)
    return bool(found and DIGIT.search(parts.text, found.start(), span.end) and not _is_question(parts, span))


def _is_question(parts: Response, span: Span) -> bool:
    """Whether it asks for a number instead of stating one (是 10 吗? but not: 一共 72 个, 对吗?)."""
    tail = parts.text[max(span.start, span.end - 60) : span.end].rstrip(' *_)”"』」😊🤔✨🎉~')
    return tail.endswith("?") and not parts.words.tag.search(tail[-24:])


def _ends_solution(parts: Response, index: int) -> bool:
    """Whether a question that may be practice ends the solution: no conclusion comes after its paragraph."""
    end = parts.text.find("\n\n", parts.sentences[index].start)
    return end < 0 or not any(_concludes(parts, span) for span in parts.sentences[index:] if span.start > end)


def _boxes(parts: Response) -> Iterator[Statement]:
    """The last boxes. A plain box has a value, any other an expression; of x = 5 the part after the sign is read."""
    for match in list(BOXED.finditer(parts.text, parts.start, parts.end))[-MOST:]:
        start, end = match.span(match.lastgroup or 0)
        held = parts.text[start:end]
        if held.count("=") == 1 and not re.search("[,;]", held):
            start += held.index("=") + 1
        content = parts.text[start:end].strip(" \n$")
        values = () if NOT_PLAIN.search(content) else distinct(parts.numbers.values(start, end))
        expression = None if len(values) == 1 else content.rstrip(".*")
        yield Statement(Strength.EXPLICIT, "boxed", values, start, end, expression)


def _statement(parts: Response, span: Span) -> Statement | None:
    """What one sentence states; None where it holds no value, asks, or denies."""
    label = parts.find(parts.words.label, span)
    if label:
        return _labelled(parts, span, label)
    if parts.text[span.start] == "\n" or _is_question(parts, span):
        return None
    values, also = stated_values(parts, span)
    if not values:
        return None
    if parts.words.concludes.search(parts.text, *span):
        rule = "conclusion"
    else:
        rule = "bold" if _is_bold(parts, values + also) else "restated" if parts.restates(*span) else ""
    strength = Strength.RESULT if rule else Strength.EQUATION if EQUALS.search(parts.text, *span) else Strength.MENTION
    return Statement(strength, rule or strength.name.lower(), values, *span, None, also)


def _labelled(parts: Response, span: Span, label: "re.Match[str]") -> Statement | None:
    text, start, end = parts.text, label.end(), span.end
    if label["denied"] or _is_question(parts, Span(label.start(), end)):
        return None
    if not text[start:end].strip(" *_:#.!。】\n"):  # a heading: its answer is in the next line, or a list
        found = NEXT_LINES.match(text, end, parts.end)
        end = found.end() if found else end
    if not DIGIT.search(text, start, end):  # Answer: Ms. Lee has 3.
        end = start + len(text[start : parts.end].partition("\n")[0])
    values, also = stated_values(parts, Span(start, end), at_once=True)
    latex, rest = LATEX.search(text, start, end), re.sub(r"</?\w{1,12}>", "", text[start:end]).strip(" *_.。:\n")
    expression = latex[latex.lastindex or 0].strip() if latex else rest if len(rest) <= 60 else ""
    if latex and _gap(parts, Span(start, end)) > latex.start() and NOT_PLAIN.search(expression.rpartition("=")[2]):
        values = ()
    if not values and not expression:
        return None
    strength, rule = (Strength.FINAL, "final") if label["final"] else (Strength.LABEL, "label")
    return Statement(strength, rule, values, start, end, expression, also)


def stated_values(parts: Response, span: Span, at_once: bool = False) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """The value that a piece of text states, or several where it is open which one; then all its other values."""
    every = parts.numbers.values(*span)[-MOST:]
    chosen = every[-1:]
    starts = at_once and bool(every) and _gap(parts, span) >= every[0].start
    if starts and OPERATOR.match(parts.text, every[0].stop) and not EQUALS.search(parts.text, *span):
        return (), every  # still to be computed: the answer is 20 + 3
    if len(distinct(every)) > 1:
        weights = _weights(parts, span, every, starts)
        chosen = distinct(value for value, weight in zip(every, weights, strict=True) if weight == max(weights))
        if len(chosen) == 1:
            chosen = _with_alternatives(parts, every, every.index(chosen[0]))
    chosen = tuple(value for value in chosen if not _is_denied(parts, value, span))
    return chosen, tuple(value for value in every if value not in chosen)


def _weights(parts: Response, span: Span, every: tuple[Value, ...], starts: bool) -> list[float]:
    """How likely each of a sentence's values is the one that is meant; ``starts``: the text starts with the first."""
    text, words, question = parts.text, parts.words, parts.question
    so = words.so.search(text, *span)
    totals = {_gap(parts, Span(found.end(), span.end)) for found in words.total.finditer(text, *span)}
    equals = [(sign.end(), _gap(parts, Span(sign.end(), span.end))) for sign in EQUALS.finditer(text, *span)]
    result = next((each for at, gap in reversed(equals) for each in every if at <= each.start <= gap), None)
    clauses = [span.start, *(match.start() for match in CLAUSE.finditer(text, *span)), span.end]
    first = starts and not _is_context(parts, every[0])
    first = first and (
        every[0].value not in question.given_values or all(each.value in question.given_values for each in every)
    )
    weights = []
    for index, value in enumerate(every):
        clause = Span(max(at for at in clauses if at <= value.start), min(at for at in clauses if at > value.start))
        said = topics(text[slice(*clause)], words) & question.topics
        weights.append(
            8 * (first and index == 0)
            + 6 * (value is result and not _in_parentheses(text, span, value.start))
            + (7 + index / 10) * _is_bold(parts, (value,))
            + 3 * bool(so and value.start >= so.end())
            + 4 * (value.start in totals)
            + 3 * _is_in_asked_unit(parts, value)
            + 2 * _is_counted(parts, value)
            + 7 * len(said) / (len(question.topics) or 1)
            + 3 * (value.value not in question.given_values)
            - 2 * _is_context(parts, value)
            - 10 * (OPERATOR.match(text, value.stop, span.end) is not None)
        )
    return weights


def _gap(parts: Response, span: Span) -> int:
    """Where a value would begin that follows immediately: after marks and a word such as "about"."""
    found = AT_ONCE.match(parts.text, *span)
    position = found.end() if found else span.start
    about = parts.words.about.match(parts.text, position, span.end)
    return _gap(parts, Span(about.end(), span.end)) if about and about.end() > position else position


def _with_alternatives(parts: Response, every: tuple[Value, ...], index: int) -> tuple[Value, ...]:
    """A value and its neighbours that may be meant as well: joined by "or" or a dash; after it also by "and"."""
    found = [every[index]]
    for before in every[:index][::-1]:
        between = parts.text[before.stop : found[0].start].strip(" *$")
        if between not in ("", "-", "~", "至", "到", "to") and not parts.words.hedge.fullmatch(between):
            break
        found.insert(0, before)
    for value in every[index + 1 :]:
        between = parts.text[found[-1].stop : value.start]
        if len(between) > 40 or not parts.words.joins.search(between) or _is_context(parts, value):
            break
        found.append(value)
    return distinct(found)


def _in_parentheses(text: str, span: Span, at: int) -> bool:
    opened = text.rfind("(", span.start + 1, at)
    return opened > 0 and text[opened - 1] != "\\" and ")" not in text[opened:at] and ")" in text[at : span.end]


def _is_bold(parts: Response, values: Iterable[Value]) -> bool:
    return any(bold.start <= value.start < bold.end for value in values for bold in parts.bold)


def _is_in_asked_unit(parts: Response, value: Value) -> bool:
    return parts.question.asked is not None and value.unit == parts.question.asked


def _is_counted(parts: Response, value: Value) -> bool:
    """Whether a value is followed by what the question counts: 25 comics."""
    behind = parts.text[value.end : value.end + 40].lstrip(" *_").partition("\n")[0]
    return parts.question.counted != "" and 0 <= behind.find(parts.question.counted) < 12


def _is_context(parts: Response, value: Value) -> bool:
    """Whether a value is only context: in 2 months, 3 of 5, 7 days a week."""
    before = parts.words.context_before.search(parts.text, max(0, value.start - 16), value.start)
    return bool(before or parts.words.context_after.match(parts.text, value.end))


def _is_denied(parts: Response, value: Value, span: Span) -> bool:
    """Whether the sentence denies a value: it is not 18; 18 is wrong."""
    before = parts.words.denied_before.search(parts.text, max(span.start, value.start - 24), value.start)
    return bool(before or parts.words.denied_after.match(parts.text, value.stop, span.end))


def distinct(values: Iterable[Value]) -> tuple[Value, ...]:
    """The values without repeats (240 minutes = 4 hours); the last of equal ones is kept."""
    kept: list[Value] = []
    for value in values:
        kept = [other for other in kept if not same_value(other, value)] + [value]
    return tuple(kept)


def same_value(first: Value, second: Value) -> bool:
    """Whether two values are equal, in the same unit or in units that convert into each other."""
    one, two = first.unit, second.unit
    if bool(first.pair) != bool(second.pair):
        return False
    if one and two and one.dimension == two.dimension:
        return first.value * one.factor == second.value * two.factor
    return first.value == second.value
