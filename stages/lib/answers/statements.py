r"""Where a response states a value as its answer, and how strongly.

    Response("**Final Answer:** There are **36 beans**.\nLet's check: 64 + 36 = 100.", question).counting()
    → Statement(strength=FINAL, rule="final", values=(36,), …)

From the strongest: a box, ``####`` or a last line ``A: 18`` (EXPLICIT) · a labelled *final* answer (FINAL) · "the
answer is", 答案 (LABEL) · a sentence that concludes, has its number in bold or restates the question (RESULT) · what an
equation comes to (EQUATION) · a mere mention (MENTION). A statement of several values leaves open which is meant: each
value of a sentence has a weight (``_weights``), and equal ones leave it open.

What a tutor adds once there is a result is no part of the solution: a check, an example, a practice question, another
time or case. Where a solution is marked (``<answer>``, ``<|begin_of_solution|>``, ``</think>``) only that is read.
"""

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from stages.lib.answers.lexicon import Lexicon, Unit, lexicon
from stages.lib.answers.values import MEASURE, Text, Value, fold

LONGEST = 20_000  # characters from the end that are read: five times the longest lesson
MOST = 40  # boxes, and values of a sentence, from the end that are read
SOLUTION = re.compile(r"<\|begin_of_solution\|>|<answer>")
SOLUTION_END = re.compile(r"<\|end_of_solution\|>|</answer>")
THOUGHT_END = re.compile(r"</think>|<\|end_of_thought\|>")
SENTENCE = re.compile(r"[^\n。!?.;]*(?:\.(?![\s*\"”)])[^\n。!?.;]*)*(?:[。!?;]+[*_)”\"』」]*|\.[*_)\"”]*)?|\n")
HASHES = re.compile(r"####(?!#)[ \t*]*(?=[-$¥€£\s\\]{0,4}(?:\.?\d|frac))([^\n]{1,200})")
SHORT = re.compile(r"[-$¥€£\s*\\]{0,4}[\d,./{}]+(?: \d{3})*[\s*]*(?:\\?%|[a-z]{1,12}|[一-鿿]{1,3})?[.。*]*")
A_LINE = re.compile(r"(?m:^)[^\S\n]*\**a\**\s?:\**[^\S\n]*(\S[^\n]*)\s*\Z")
BOXED = re.compile(r"\\f?boxed\s{0,3}(?:(?P<bare>-?\d[\d.,]*)|(?=\{))")
BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*|<b>([^<\n]{1,300})</b>")
EQUALS = re.compile(
    r"[=≈⇒→](?!=)|\\(?:approx|implies|rightarrow)(?![a-z])|等于|的?值[为是]|(?<!\w)(?:equals|makes)(?!\w)"
)
AFTER_EQUALS = re.compile(r"(?:[\s*$(≈~>]|\\[(\[ ]|\\(?:boxed|text|mathbf)\{)*")
OPERATOR = re.compile(
    r"[²³]|[\s*$)}]{0,4}(?:\\(?:times|div|cdot|sqrt|pi)|[+×÷≈^√]|\*\s?\d|/\s?\(?\$?\d|-\s?\(?\$?\d|x\s?\d|=\s)"
)
AT_ONCE = re.compile(
    r"(?:[\s*_:\"'“”(（\[{≈~>】」$-]|\\[(\[,;: !]|\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{|<\w{1,6}>){0,16}"
)
CLAUSE = re.compile(r"[,;](?!\d{3})|(?<=[\w*)])\s(?=(?:and|but|which|while|so)\s)|其中|加上")
HAS_RESULT = re.compile(r"[=≈]\s{0,3}[*$\\(\[]{0,4}-?[$¥€£]?\.?\d|\*\*[^*\n]{0,60}\d|\\boxed")
DIGIT = re.compile(r"\d|[½⅓⅔¼¾]|\\[dtc]?frac|[一二两三四五六七八九十百半]")
HEADING = re.compile(r"\s*(?:#|\*\*[^*\n]+\*\*[:\s]*$|[^\n]{0,60}:[*\s]*$)")
WORD_LEFT = re.compile(r"(?:and|the|of|和)\Z")
LISTED = re.compile(r"\s*(?:[-•+·▪►✅*]\s+)?[^\d\n=≈]{1,40}[:][\s*$]*-?\d")
LATEX = re.compile(r"\$([^$\n]{1,200})\$|\\\((.{1,200}?)\\\)|\\\[(.{1,200}?)\\\]", re.DOTALL)
# what is more than numbers, words and units: to be worked out by math-verify
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
    """The values that are stated (several: left open which), or an ``expression``; ``rule`` says by what it was known.

    ``also`` are the other values of the same sentence.
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
        """The one value; None where it is left open."""
        return self.values[0] if len(self.values) == 1 else None


class Response:
    """A response with its parts, each worked out when it is first asked for. Places are those of the folded text."""

    def __init__(self, response: str, question: str, language: str = "en") -> None:
        self.cut = max(0, len(response) - LONGEST)
        self._question = question[-LONGEST:]
        self.words = lexicon(language, response.isascii() and question.isascii())
        whole = fold(response[self.cut :])
        if self.words.ratio.search(self.question):
            whole = re.sub(r"(?<=\d)(?: to |\s?[比:]\s?)(?=\d)", lambda found: "\x00" * len(found.group()), whole)
        self.numbers = Text(whole, self.words)
        self.text = self.numbers.text
        self.start, self.end = marked_solution(whole)

    @cached_property
    def question(self) -> str:
        """The question, folded."""
        return fold(self._question)

    @cached_property
    def asked(self) -> Unit | None:
        """The unit that the question's last ask names; None where it names none."""
        name = None
        for found in self.words.asked.finditer(self.question):
            name = next((group for group in found.groups() if group), None)
        return self.words.units.get(name or "")

    @cached_property
    def mentioned(self) -> frozenset[Unit]:
        """The units that the question speaks of."""
        return frozenset(self.words.units[name] for name in self.words.any_unit.findall(self.question))

    @cached_property
    def counted(self) -> str:
        """The word behind the question's last "how many", without a plural's s; empty where there is none."""
        found = [group for each in self.words.counted.finditer(self.question) for group in each.groups() if group]
        return found[-1].removesuffix("s") if found else ""

    @cached_property
    def givens(self) -> frozenset[Fraction]:
        """The values that the question gives."""
        text = Text(self.question, self.words)
        every = text.values(0, len(text.text)) + text.worded(0, len(text.text))
        return frozenset(value.value for value in every)

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
        """Boxes (those of the solution itself, where it has any), or else ``####`` or a last line ``A:``."""
        boxes = list(_boxes(self))
        if len(boxes) > 1:
            boxes = [box for box in boxes if any(span.start <= box.start < span.end for span in self.body)] or boxes
        return boxes or list(_hashes(self)) or list(_answer_line(self))

    @cached_property
    def stated(self) -> list[Statement]:
        """What the solution's sentences state, in order."""
        return [statement for span in self.body if (statement := _statement(self, span))]

    @cached_property
    def stated_anywhere(self) -> list[Statement]:
        """What is stated in any sentence, those outside the solution too."""
        return [*self.explicit, *(statement for span in self.sentences if (statement := _statement(self, span)))]

    def find(self, pattern: "re.Pattern[str]", span: Span) -> "re.Match[str] | None":
        """The last match of a pattern in a sentence."""
        matches = list(pattern.finditer(self.text, *span))
        return matches[-1] if matches else None

    def counting(self) -> Statement | None:
        """The statement that counts as the response's answer."""
        if self.explicit:
            return self.explicit[-1]
        for strengths in ((Strength.FINAL,), (Strength.LABEL, Strength.RESULT), (Strength.EQUATION,)):
            chosen = [index for index, each in enumerate(self.stated) if each.strength in strengths]
            if chosen:
                return self._corrected(chosen[-1])
        return self.stated[-1] if self.stated and self._is_whole() else None

    @cached_property
    def asking(self) -> frozenset[str]:
        """What the question's last sentence is about: its longer words' beginnings, its Chinese signs."""
        measure = {self.counted} & MEASURE
        parts = (_topics(part, self.words) - measure for part in re.split(r"[.?!。;,\n]+", self.question)[::-1])
        return next((part for part in parts if part), frozenset())

    def restates(self, start: int, end: int) -> bool:
        """Whether a piece of text speaks of what the question asks, in its words."""
        return len(_topics(self.text[start:end], self.words) & self.asking) * 2 >= len(self.asking) > 0

    def emphasis(self, each: Statement) -> int:
        """How much speaks for a result as the answer: a label; else words that conclude, bold, the question's own
        words, and the unit or thing that it asks for."""
        if each.strength == Strength.LABEL:
            return 5
        concludes = self.words.concludes.search(self.text, each.start, each.end) is not None
        bold = any(span.start <= value.start < span.end for span in self.bold for value in each.values)
        return (
            concludes
            + bold
            + self.restates(each.start, each.end)
            + any(_is_asked(self, value) for value in each.values)
        )

    def most_emphatic(self) -> Statement | None:
        """The last of the results with most emphasis, where nothing later builds on it."""
        results = [index for index, each in enumerate(self.stated) if each.strength == Strength.RESULT]
        index = max(results, key=lambda index: (self.emphasis(self.stated[index]), index), default=-1)
        result, value = (self.stated[index], self.stated[index].value) if index >= 0 else (None, None)
        if result is None or value is None or self.emphasis(result) < 3:
            return None
        later = self.stated[index + 1 :]
        builds_on = any(alike(each, value) for statement in later if statement.strength for each in statement.also)
        corrects = self.words.corrects.search(self.text, result.end, self.end)
        return None if builds_on or corrects else result

    def _corrected(self, index: int) -> Statement:
        """What is stated after a correction, if anything is; else what goes on with a result, as 48 + 24 = 72 after
        "So in May it is **24**."; else the statement itself."""
        result = self.stated[index]
        corrects = self.words.corrects.search(self.text, result.end, self.end)
        corrected = [each for each in self.stated[index + 1 :] if corrects and each.end > corrects.end()]
        if corrected:
            return corrected[-1]
        if result.strength == Strength.RESULT and not self.restates(result.start, result.end):
            for later in self.stated[index + 1 :]:
                one, two = result.value, later.value
                goes_on = one and two and later.strength == Strength.EQUATION and not alike(one, two)
                if (
                    one
                    and two
                    and goes_on
                    and two.value not in self.givens
                    and any(alike(value, one) for value in later.also)
                ):
                    result = later
        return result

    def _is_whole(self) -> bool:
        """Whether a text seems to end where its author ended it: with a mark, or after a few words."""
        text = self.text[self.start : self.end].strip()
        return not (text[-1:].isalnum() or text.endswith((",", "、"))) or (
            len(text) <= 40 and not WORD_LEFT.search(text)
        )


def _topics(text: str, words: Lexicon) -> frozenset[str]:
    """What a text is about: the beginnings of its words, its Chinese signs; those that say nothing left out."""
    return frozenset(word.removesuffix("s")[:5] for word in re.findall(r"[a-z]{2,}|[一-鿿]", text)) - words.common


def marked_solution(text: str) -> tuple[int, int]:
    """Where the marked solution lies, or what follows the thought, or all."""
    if "<" not in text:
        return 0, len(text)
    starts = list(SOLUTION.finditer(text))
    if starts:
        end = SOLUTION_END.search(text, starts[-1].end())
        return starts[-1].end(), end.start() if end else len(text)
    ends = list(THOUGHT_END.finditer(text))
    return (ends[-1].end() if ends else 0), len(text)


def solution(response: str) -> str:
    """The text of a response that is read: the marked solution, or what follows the thought, or all of it."""
    start, end = marked_solution(response[-LONGEST:])
    return response[-LONGEST:][start:end]


def _body(parts: Response) -> Iterator[Span]:
    """The sentences up to the practice questions, without checks, examples and other cases after a first result."""
    text, words, spans = parts.text, parts.words, parts.sentences
    concluding = {index for index, span in enumerate(spans) if _concludes(parts, span)}
    last_conclusion = max(concluding, default=-1)
    solved, concluded, skipping, heading = False, False, "", False
    for index, span in enumerate(spans):
        if text[span.start] == "\n":
            if skipping == "paragraph" and _section_ends(parts, index, heading):
                skipping = ""
            continue
        kind = _opening(parts, index, concluded) if solved else ""
        label = words.label.search(text, *span) if skipping or kind else None
        if label and label["final"]:
            skipping = kind = ""
        elif kind == "practice" or (kind == "maybe_practice" and _ends_the_lesson(parts, index, last_conclusion)):
            skipping = "end"
        elif kind in ("check", "example", "maybe_practice") and skipping != "end":
            skipping, heading = "paragraph", HEADING.match(text, *span) is not None
        if not skipping and kind != "aside":
            yield span
        concluded = concluded or index in concluding
        solved = solved or index in concluding or HAS_RESULT.search(text, *span) is not None


def _opening(parts: Response, index: int, concluded: bool) -> str:
    """What a sentence opens that is no part of the solution; empty where it opens nothing."""
    span = parts.sentences[index]
    if concluded and parts.text.startswith("(", span.start) and parts.text[span.start - 1] == "\n":
        return "example"  # a remark
    found = parts.words.opens.match(parts.text, *span)
    kind = (found.lastgroup or "") if found else ""
    if kind in ("maybe_practice", "case"):
        return "maybe_practice" if _asks(parts, index) else "aside" if concluded else ""
    if kind in ("later", "rest"):
        return "" if getattr(parts.words, f"asks_{kind}").search(parts.question[-160:]) else "aside"
    return kind


def _concludes(parts: Response, span: Span) -> bool:
    found = parts.words.concludes.search(parts.text, *span) or parts.words.label.search(parts.text, *span)
    return bool(found and DIGIT.search(parts.text, found.start(), span.end) and not _is_question(parts, span))


def _section_ends(parts: Response, index: int, heading: bool) -> bool:
    """A section with a heading ends at the next heading, another at a blank line that does not follow a colon."""
    text, spans = parts.text, parts.sentences
    if index + 1 == len(spans) or text[spans[index + 1].start] != "\n":
        return heading and index + 1 < len(spans) and HEADING.match(text, *spans[index + 1]) is not None
    return not heading and text[: spans[index].start].rstrip(" *_")[-1:] != ":"


def _is_question(parts: Response, span: Span) -> bool:
    """Whether it asks for a number instead of stating one (是 10 吗? but not: 一共 72 个, 对吗?)."""
    tail = parts.text[max(span.start, span.end - 60) : span.end].rstrip(' *_)”"』」😊🤔✨🎉~')
    return tail.endswith("?") and not parts.words.tag.search(tail[-24:])


def _asks(parts: Response, index: int) -> bool:
    """Whether a question is put in this sentence or the rest of its line."""
    line = parts.text[parts.sentences[index].start : parts.end].partition("\n")[0]
    return "?" in line


def _ends_the_lesson(parts: Response, index: int, last_conclusion: int) -> bool:
    """A question that may be practice ends the lesson where no conclusion comes after its paragraph."""
    spans, end = parts.sentences, index
    while end < len(spans) and not (parts.text[spans[end].start] == "\n" and _section_ends(parts, end, False)):
        end += 1
    return last_conclusion < end


def _boxes(parts: Response) -> Iterator[Statement]:
    """The last boxes; braces are counted, so that they may nest."""
    text = parts.text
    for match in list(BOXED.finditer(text, parts.start, parts.end))[-MOST:] if "boxed" in text else ():
        if match["bare"]:
            yield _exact(parts, "boxed", Span(*match.span("bare")))
            continue
        depth, line_end = 0, text.find("\n", match.end())
        for end in range(match.end(), min(parts.end, match.end() + 2000)):
            depth += (text[end] == "{") - (text[end] == "}")
            if depth == 0:
                break
        else:
            end = line_end if line_end >= 0 else parts.end
        equals = text.rfind("=", match.end(), end)
        single = text.count("=", match.end(), end) == 1 and not re.search("[,;]", text[match.end() : end])
        yield _exact(parts, "boxed", Span(equals + 1 if single else match.end() + 1, end))


def _exact(parts: Response, rule: str, span: Span) -> Statement:
    """What a box or ``####`` holds: values where it is plain, else an expression."""
    content = parts.text[span.start : span.end].strip().strip("$ ")
    values = () if NOT_PLAIN.search(content) else parts.numbers.values(*span)
    values = distinct(values)
    return Statement(Strength.EXPLICIT, rule, values, *span, None if len(values) == 1 else content.rstrip(".*"))


def _hashes(parts: Response) -> Iterator[Statement]:
    last_line = parts.text.rstrip().rfind("\n") + 1
    found = list(HASHES.finditer(parts.text, parts.start, parts.end)) if "####" in parts.text else []
    for match in found[::-1]:
        if match.start() >= last_line or SHORT.fullmatch(match[1].strip(" *")):
            statement = _exact(parts, "hashes", Span(*match.span(1)))
            values = asserted(parts, Span(*match.span(1)), at_once=True)[0]
            yield statement._replace(values=values, expression=None) if len(statement.values) > 1 else statement
            return


def _answer_line(parts: Response) -> Iterator[Statement]:
    match = A_LINE.search(parts.text, max(parts.start, parts.end - 400), parts.end)
    if match:
        span = Span(*match.span(1))
        values, also = asserted(parts, span, at_once=True)
        yield Statement(Strength.EXPLICIT, "answer_line", values, *span, None, also)


def _statement(parts: Response, span: Span) -> Statement | None:
    """What one sentence states; None where it holds no value, asks, or denies."""
    label = parts.find(parts.words.label, span)
    if label:
        return _labelled(parts, span, label)
    if parts.text[span.start] == "\n" or _is_question(parts, span):
        return None
    values, also = asserted(parts, span)
    if not values:
        return None
    rule = "conclusion" if parts.words.concludes.search(parts.text, *span) else "bold" if _bold(parts, span) else ""
    rule = rule or ("restated" if parts.restates(*span) and not _is_question(parts, span) else "")
    if rule:
        return Statement(Strength.RESULT, rule, values, *span, None, also)
    strength = Strength.EQUATION if EQUALS.search(parts.text, *span) else Strength.MENTION
    return Statement(strength, strength.name.lower(), values, *span, None, also)


def _labelled(parts: Response, span: Span, label: "re.Match[str]") -> Statement | None:
    text, start, end = parts.text, label.end(), span.end
    if label["denied"] or _is_question(parts, Span(label.start(), end)):
        return None
    end = _with_next_lines(text, start, end, parts.end)
    if not DIGIT.search(text, start, end):  # Answer: Ms. Lee has 3.
        end = start + len(text[start : parts.end].partition("\n")[0])
    values, also = asserted(parts, Span(start, end), at_once=True)
    latex, rest = LATEX.search(text, start, end), re.sub(r"</?\w{1,12}>", "", text[start:end]).strip(" *_.。:\n")
    expression = (
        next(group for group in latex.groups() if group).strip() if latex else rest if len(rest) <= 60 else None
    )
    if not values and not expression:
        return None
    if (
        latex
        and _gap(parts, Span(start, end)) > latex.start()
        and expression
        and NOT_PLAIN.search(expression.rpartition("=")[2])
    ):
        values = ()
    strength = Strength.FINAL if label["final"] else Strength.LABEL
    return Statement(strength, "final" if label["final"] else "label", values, start, end, expression, also)


def _with_next_lines(text: str, start: int, end: int, stop: int) -> int:
    """Where a label's statement ends: in its line, or in the next where it is a heading; a list after its items."""
    if text[start:end].strip(" *_:#.!。】\n"):
        return end
    found = re.compile(r"[\s*_#>:-]*[^\n]*").match(text, end, stop)
    end = found.end() if found else end
    line = text.rfind("\n", start, end) + 1
    while LISTED.match(text, line, stop):
        following = re.compile(r"\s*(?=\S)").match(text, end, stop)
        if not following or not LISTED.match(text, following.end(), stop):
            break
        line = following.end()
        end = text.find("\n", line) if text.find("\n", line) > 0 else stop
    return min(end, stop)


def asserted(parts: Response, span: Span, at_once: bool = False) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """The value that a piece of text comes to, or several where it leaves that open; and all others that it holds."""
    every = parts.numbers.values(*span)[-MOST:]
    chosen = every[-1:]
    if at_once and every and _is_expression(parts, span, every[0]):
        return (), every
    if len(distinct(every)) > 1:
        weights = _weights(parts, span, every, at_once)
        chosen = distinct(value for value, weight in zip(every, weights, strict=True) if weight == max(weights))
        if len(chosen) == 1:
            chosen = _with_alternatives(parts, every, every.index(chosen[0]))
    chosen = tuple(value for value in chosen if not _is_denied(parts, value, span))
    return chosen, tuple(value for value in every if value not in chosen)


def _weights(parts: Response, span: Span, every: tuple[Value, ...], at_once: bool) -> list[float]:
    """How much speaks for each of a sentence's values as the one that is meant."""
    text, words = parts.text, parts.words
    so = words.so.search(text, *span)
    totals = {_gap(parts, Span(found.end(), span.end)) for found in words.total.finditer(text, *span)}
    equals = [sign.span() for sign in EQUALS.finditer(text, *span)]
    results = [(at, _gap(parts, Span(end, span.end))) for at, end in equals]
    result = next((value for _, gap in reversed(results) for value in every if value.start <= gap < value.end), None)
    clauses = [span.start, *(match.start() for match in CLAUSE.finditer(text, *span)), span.end]
    weights = []
    for index, value in enumerate(every):
        clause = Span(max(at for at in clauses if at <= value.start), min(at for at in clauses if at > value.start))
        said = _topics(text[slice(*clause)], words) & parts.asking
        first = at_once and value is every[0] and not _is_scene(parts, value) and _gap(parts, span) >= value.start
        first = first and (value.value not in parts.givens or all(each.value in parts.givens for each in every))
        aside = _is_scene(parts, value)
        weights.append(
            8 * first
            + 6 * (value is result and not _in_parentheses(text, span, value.start))
            + (7 + index / 10) * any(bold.start <= value.start < bold.end for bold in parts.bold)
            + 3 * bool(so and value.start >= so.end())
            + 4 * (value.start in totals)
            + 3 * (parts.asked is not None and value.unit == parts.asked)
            + 2 * _is_counted(parts, value)
            + 7 * len(said) / (len(parts.asking) or 1)
            + 3 * (value.value not in parts.givens)
            - 2 * aside
            - 10 * (OPERATOR.match(text, value.stop, span.end) is not None)
        )
    return weights


def _is_expression(parts: Response, span: Span, first: Value) -> bool:
    """Whether what stands at once is to be worked out: the answer is 20 + 3."""
    at_once = _gap(parts, span) >= first.start and OPERATOR.match(parts.text, first.stop)
    return bool(at_once) and not EQUALS.search(parts.text, *span)


def _gap(parts: Response, span: Span) -> int:
    """Where a value would stand that follows at once: behind marks, and a word such as "about"."""
    found = AT_ONCE.match(parts.text, *span)
    position = found.end() if found else span.start
    about = parts.words.about.match(parts.text, position, span.end)
    return _gap(parts, Span(about.end(), span.end)) if about and about.end() > position else position


def _with_alternatives(parts: Response, every: tuple[Value, ...], index: int) -> tuple[Value, ...]:
    """A value, and those beside it that may be meant as well: joined by "or" or a dash; behind it by "and", too."""
    found = [every[index]]
    for before in every[:index][::-1]:
        between = parts.text[before.stop : found[0].start]
        if not re.fullmatch(r"[\s*$]*(?:[-~至到]|to)?[\s*$]*", between) and not parts.words.hedge.fullmatch(
            between.strip(" *$")
        ):
            break
        found.insert(0, before)
    for value in every[index + 1 :]:
        between = parts.text[found[-1].stop : value.start]
        if len(between) > 40 or not parts.words.joins.search(between) or _is_scene(parts, value):
            break
        found.append(value)
    return distinct(found)


def _in_parentheses(text: str, span: Span, at: int) -> bool:
    opened = text.rfind("(", span.start, at)
    return (
        opened > span.start and text[opened - 1] != "\\" and ")" not in text[opened:at] and ")" in text[at : span.end]
    )


def _bold(parts: Response, span: Span) -> bool:
    values = parts.numbers.values(*span)
    return any(bold.start <= value.start < bold.end for bold in parts.bold for value in values)


def _is_asked(parts: Response, value: Value) -> bool:
    return (parts.asked is not None and value.unit == parts.asked) or _is_counted(parts, value)


def _is_counted(parts: Response, value: Value) -> bool:
    """Whether what the question counts stands behind a value: 25 comics."""
    behind = parts.text[value.end : value.end + 40].lstrip(" *_").partition("\n")[0]
    return parts.counted != "" and 0 <= behind.find(parts.counted) < 12


def _is_scene(parts: Response, value: Value) -> bool:
    """Whether a value only sets the scene: in 2 months, 3 of 5, 7 days a week."""
    before = parts.words.scene_before.search(parts.text, max(0, value.start - 16), value.start)
    return bool(before or parts.words.scene_after.match(parts.text, value.end))


def _is_denied(parts: Response, value: Value, span: Span) -> bool:
    """Whether a value stands there to be denied: it is not 18; 18 is wrong."""
    before = parts.words.denied_before.search(parts.text, max(span.start, value.start - 24), value.start)
    return bool(before or parts.words.denied_after.match(parts.text, value.stop, span.end))


def distinct(values: Iterable[Value]) -> tuple[Value, ...]:
    """The values without those that say the same as another (240 minutes = 4 hours); the last is kept."""
    kept: list[Value] = []
    for value in values:
        kept = [other for other in kept if not alike(other, value)] + [value]
    return tuple(kept)


def alike(first: Value, second: Value) -> bool:
    """The same value, in the same unit or in one that changes into it."""
    one, two = first.unit, second.unit
    if bool(first.pair) != bool(second.pair):
        return False
    if one and two and one.dimension == two.dimension:
        return first.value * one.factor == second.value * two.factor
    return first.value == second.value
