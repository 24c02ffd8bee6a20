r"""Finding the final answer in a response: the rules, from the surest to the weakest.

    read("51 + 22 = 73. The answer is 73.")  → Reading("phrase", (73,), …)

| rule | reads | gives way where |
|---|---|---|
| ``boxed`` | ``\boxed{…}`` | boxes differ, and none is announced as the final one |
| ``hashes`` | ``#### N`` as the last line, or with nothing but a unit behind it | it is a heading |
| ``answer_line`` | a last line ``A: N`` | – |
| ``phrase`` | "the answer is N", "答案是 N"; the last, if it corrects or follows steps | it is rejected, or asked |
| ``conclusion`` | the last sentence with a result, if it concludes ("所以…一共 N", "So … N") | it leaves open which |
| ``bold`` | the same, if its number is in bold | |
| ``equation`` | the same, if it is what an equation comes to | |
| ``last_number`` | the last number, where there is no result at all | it is one of several parts |

Where a solution is marked (``<answer>``, ``<|begin_of_solution|>``) only that is read, and first what a tutor adds
after the answer is cut off (``endings``). A last result that tells of another time or case gives way to the conclusion
before it (``asides``); the last of several labelled values leaves open which is meant. A reading of several values is
no reading: unsure is better than wrong.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from stages.lib.answers.asides import closes, is_aside
from stages.lib.answers.endings import body_sentences, is_question
from stages.lib.answers.numbers import Quantity, quantities_in, spelled_at, spelled_in
from stages.lib.answers.spelling import normalise
from stages.lib.answers.stating import EQUALS, Asked, at_once, bold_quantities, distinct, is_plain, meant
from stages.lib.answers.units import Unit, asked_unit
from stages.lib.answers.wording import (
    ANNOUNCED_FINAL,
    BUT,
    BUT_WRONG,
    CONCLUDES,
    CORRECTS,
    DENIES,
    FINAL,
    HEADED,
    HEDGE,
    HYPOTHETICAL,
    PHRASE,
    REJECTED,
    REJECTS_BEFORE,
    TOTAL,
    is_listed,
)
from stages.lib.answers.words import IN_WORDS

LONGEST = 20_000  # characters from the end that are read: five times the longest lesson
MOST = 40  # boxes, and statements of the answer, from the end that are read
SOLUTION = re.compile(r"<\|begin_of_solution\|>|<answer>")
SOLUTION_END = re.compile(r"<\|end_of_solution\|>|</answer>")
THOUGHT_END = re.compile(r"</think>|<\|end_of_thought\|>")
LABELS: list[tuple[str, re.Pattern[str]]] = [  # numbers that only count steps; tried where the text has the words
    (word, re.compile(pattern))
    for word, pattern in (
        ("**", r"(?m:^)[^\S\n]*\*\*\d{1,2}[.、)]\*\*(?=[^\S\n]*\S)"),
        ("(", r"[(](?:\d|[一二三四五六])[)](?=\s?[^\s\d])"),
        ("第", r"第\s?(?:\d{1,2}|[一二三四五六七八九十]{1,3})\s?(?:步|题|问|部分|种方法|个问题|小问)"),
        ("步骤", r"步骤\s?(?:\d{1,2}|[一二三四五六七八九十])"),
        ("方法", r"方法\s?(?:\d|[一二三四五])"),
        ("step", r"\bstep\s?#?\d{1,2}\b"),
        ("part", r"\bpart\s?#?\d{1,2}\b"),
        ("method", r"\bmethod\s?#?\d{1,2}\b"),
        ("option", r"\boption\s?#?\d{1,2}\b"),
        ("approach", r"\bapproach\s?#?\d{1,2}\b"),
        ("way", r"\bway\s?#?\d{1,2}\b"),
        ("question", r"\bquestion\s?#?\d{1,2}\b"),
        ("\u20e3", r"\d\ufe0f?\u20e3"),
        ("<<", r"<<[^<>\n]{0,200}>>"),
    )
]
MAY_HOLD_NUMBER = re.compile(r"[\d二两三四五六七八九十百半]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten)\b")
A_LABEL = re.compile(r"\s*\**a\**\s?[:：]\**\s*(?=\S)")
MARKS_BEFORE = re.compile(r"^(?:[\s*_:：(\[]|\$(?!-?\s?[\d.]))+")
SPACED_MINUS = re.compile(r"^-\s(?=[$\d])")
BLANK = re.compile(r"[\s*_:：$>\[\]\\()|-]{0,40}(?=[^\s*_:：$>\[\]\\()|-])")
REST = re.compile(r"[^\n。！？!?]{0,400}?(?=[\n。！？!?]|\.(?:\s|\*|$|\")|\Z)")
ASKS = re.compile(r"\s*吗?[?？]")
NOT_THAT = re.compile(r"\W*(?:不对|不是)")
EQUATION = re.compile(r"[=≈⇒→][\s*$(\[\\]{0,6}[-\d.$¥半一二三四五六七八九十两]")
LIST_NUMBER = re.compile(r"(?m:^)[#>*+| \t-]{0,20}\d{1,2}(?:[、)](?=[^\S\n]*[^\s\d])|\.(?=[^\S\n]+\S|[^\s\d.*,)%]))")
HAS_LIST_NUMBER = re.compile(r"[#>*+| \t\n-]\d{1,2}[、).]")  # tried first, for it is found or not at once
SENTENCE_ENDS = re.compile(r"[\n。！？!?]|\. ")
TAGS = re.compile(r"</?(?:b|strong)>|__(?=\S)")
RATIO = re.compile("[Rr]atio|比例|之比|比是|几比几")
RATIO_WORD = re.compile(r"(?<=\d)\s?(?:to|:|：|比)\s?(?=\d)")


class Sentence(NamedTuple):
    """A sentence, or a line's rest, with its end in the body."""

    end: int
    text: str


class Reading(NamedTuple):
    """What a rule read: one quantity is an answer, several are none; ``expression`` is text that is no plain number."""

    rule: str
    quantities: tuple[Quantity, ...] = ()
    expression: str | None = None
    end: int = 0  # where in the body it stood
    emphatic: bool = False  # a conclusion in bold, or of a total
    concludes: bool = False  # in so many words: so, therefore, in total
    also: tuple[Quantity, ...] = ()  # other numbers that may be meant: of the same statement, of an aside after it

    @property
    def quantity(self) -> Quantity | None:
        """The answer; None where it is open or unread."""
        return self.quantities[0] if len(self.quantities) == 1 and not self.expression else None


class Response:
    """A response with its parts, each worked out when a rule first asks for it."""

    def __init__(self, response: str, question: str) -> None:
        self.question = question
        self._results: dict[int, Reading | None] = {}
        text = prepare(solution(response))
        self.whole = RATIO_WORD.sub(":", text) if is_ratio(question) else text

    @cached_property
    def _parts(self) -> list[str]:
        return body_sentences(self.whole)

    @cached_property
    def body(self) -> str:
        """Without what follows the answer."""
        return "".join(self._parts)

    def asked(self) -> Unit | None:
        """The unit that the question asks for; looked for only where a sentence leaves open which number is meant."""
        return self._asked

    @cached_property
    def _asked(self) -> Unit | None:
        return asked_unit(self.question)

    @cached_property
    def sentences(self) -> list[Sentence]:
        """The body's sentences without its newlines."""
        ends = list(accumulate(map(len, self._parts)))
        return [Sentence(end, part) for end, part in zip(ends, self._parts, strict=True) if part != "\n"]

    @cached_property
    def statements(self) -> list[tuple[Reading, bool]]:
        """Every "the answer is …" of the body that is neither denied nor asked, and whether it is taken back."""
        return list(_phrases(self))

    @property
    def phrases(self) -> list[Reading]:
        """The statements that stand."""
        return [reading for reading, taken_back in self.statements if not taken_back]

    @cached_property
    def results(self) -> list[Reading]:
        """Every sentence with a result, in order."""
        return [reading for index in range(len(self.sentences)) if (reading := self.result(index))]

    def result(self, index: int) -> Reading | None:
        """The result that a sentence states."""
        if index not in self._results:
            self._results[index] = _result(self, index)
        return self._results[index]

    def read(self) -> Reading:
        """By the first rule that finds something."""
        for rule in (_boxed, _hashes, _answer_line, _phrase, _last_result, _last_number):
            reading = rule(self)
            if reading:
                return reading
        return Reading("none")

    def numbers(self) -> Iterator[Quantity]:
        """Every number anywhere in the response, practice questions included."""
        return numbers_in(self.whole)


def read(response: str, question: str = "") -> Reading:
    """The final answer of a response."""
    return Response(response, question).read()


def numbers_in(text: str) -> Iterator[Quantity]:
    """Every number of a text, in digits or in words."""
    yield from quantities_in(text)
    yield from spelled_in(text)
    for match in IN_WORDS.finditer(text):
        quantity = spelled_at(text, match.start())
        if quantity:
            yield quantity


def is_ratio(question: str) -> bool:
    """Whether a question asks for a ratio, so that "3 to 4" is one."""
    return ("atio" in question or "比" in question) and RATIO.search(question) is not None


def solution(response: str) -> str:
    """The marked solution, or what follows the thought, or all of it; of a very long text the end."""
    response = response[-LONGEST:] if len(response) > LONGEST else response
    if "<" not in response:
        return response
    starts = list(SOLUTION.finditer(response))
    if starts:
        after = response[starts[-1].end() :]
        return SOLUTION_END.split(after, maxsplit=1)[0]
    return THOUGHT_END.split(response)[-1]


def prepare(text: str) -> str:
    """One spelling, and no numbers that only count steps."""
    text = text.lower()
    if text[:1].isdigit() or HAS_LIST_NUMBER.search(text):
        text = LIST_NUMBER.sub(" ", text)
    for word, label in LABELS:
        if word in text:
            text = label.sub(" ", text)
    if "<" in text or "__" in text:
        text = TAGS.sub("**", text)
    return normalise(text)


def _boxed(response: Response) -> Reading | None:
    if "\\boxed" not in response.whole:
        return None
    text = response.body
    boxes = list(_boxes(text))
    readings = [_read_box(content, end, response.asked) for content, _, end in boxes]
    if not readings:
        return None
    last = readings[-1]
    if len(readings) == 1 or len({content.strip() for content, _, _ in boxes}) == 1:
        return last
    before = text[max(0, boxes[-1][1] - 120) : boxes[-1][1]]
    announced = FINAL.search(before[before.rfind("\n") + 1 :]) or CORRECTS.search(text[boxes[-2][2] : boxes[-1][1]])
    if announced:
        return last
    together = distinct(quantity for reading in readings for quantity in reading.quantities)
    return Reading("boxed", together, last.expression, last.end)


def _boxes(text: str) -> Iterator[tuple[str, int, int]]:
    """(content, start, end) of the last boxes; braces are counted, so that they may nest."""
    for match in list(re.finditer(r"\\f?boxed\s{0,3}", text))[-MOST:]:
        if not text.startswith("{", match.end()):
            bare = re.compile(r"-?\d[\d.,]*").match(text, match.end())
            if bare:
                yield bare.group(), match.start(), bare.end()
            continue
        depth = 0
        for position in range(match.end(), min(len(text), match.end() + 2000)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                yield text[match.end() + 1 : position], match.start(), position + 1
                break


def _read_box(content: str, end: int, asked: Asked) -> Reading:
    content = content.strip().strip("$").strip()
    sides = re.split(r"=", content)
    value = sides[-1].strip() if len(sides) == 2 and not re.search(r"[,，;]", content) else content
    value = value.strip(" *")
    if not is_plain(value):
        return Reading("boxed", (), value, end)
    found = quantities_in(value)
    if len(sides) > 2 and re.search(r"[,，;]", content):  # x = 5, y = 6
        return Reading("boxed", distinct(found), None, end)
    if not found or found[0].start > 2:
        stated = meant(value, asked) if found else at_once(value, asked)
    else:
        stated = at_once(value, asked)
    return Reading("boxed", stated, None, end)


def _last_line(text: str) -> tuple[str, int]:
    stripped = text.rstrip()
    start = stripped.rfind("\n") + 1
    return stripped[start:], start


def _hashes(response: Response) -> Reading | None:
    if "####" not in response.whole:
        return None
    text = response.body
    last_start = _last_line(text)[1]
    for match in reversed(list(re.finditer(r"####(?!#)[ \t*]*([^\n]{0,200})", text))):
        content = match[1].strip(" *")
        bare = re.fullmatch(r"[-$¥€£\s*]{0,4}[\d,.]+(?: \d{3})*[\s*]*(?:%|[a-z]{1,12}|[一-鿿]{1,3})?[.。*]*", content)
        if content and (match.start() >= last_start or bare) and re.match(r"[-$¥€£\s]{0,4}\.?\d", content):
            if not is_plain(content):
                return Reading("hashes", (), content, match.end())
            return Reading("hashes", at_once(content, response.asked), None, match.end())
    return None


def _answer_line(response: Response) -> Reading | None:
    line, start = _last_line(response.whole)
    match = A_LABEL.match(line)
    if not match:
        return None
    rest = line[match.end() :].strip(" *")
    stated = at_once(rest, response.asked)
    return Reading("answer_line", stated, None if stated else _expression(rest), start + len(line))


def _phrase(response: Response) -> Reading | None:
    readings = response.phrases
    if not readings:
        return None
    last = readings[-1]
    values = distinct(quantity for reading in readings for quantity in reading.quantities)
    if len(values) <= 1 or len(readings) == 1:
        return last
    text = response.body
    between = text[readings[-2].end : last.end]
    in_steps = len(HEADED.findall(text)) >= len(readings)
    if CORRECTS.search(between) or ANNOUNCED_FINAL.search(text[max(0, last.end - 80) : last.end]) or in_steps:
        return last
    return Reading("phrase", values, None, last.end)


def _phrases(response: Response) -> Iterator[tuple[Reading, bool]]:
    """Every statement of the answer, and whether the next words take it back; none that is only mentioned."""
    text = response.body
    if "answer" not in text and "答" not in text:
        return
    for match in list(PHRASE.finditer(text))[-MOST:]:
        piece, end = _piece(text, match.end())
        if _is_rejected(text, match.start()) or _is_denied(text, piece, end):
            continue
        but = BUT.search(piece)
        piece = but[1] if but else MARKS_BEFORE.sub("", piece)
        piece = SPACED_MINUS.sub("-", piece) if "\n" not in text[match.end() : end - len(piece)] else piece
        stated = at_once(piece, response.asked)
        expression = None if stated else _expression(piece)
        if stated or expression:
            also = () if EQUALS.search(piece) else tuple(quantities_in(piece))
            yield Reading("phrase", stated, expression, end, also=also), _is_taken_back(text, end)


def _is_rejected(text: str, start: int) -> bool:
    """Whether the sentence before a phrase speaks of a wrong answer, or somebody else's."""
    before = text[max(0, start - 60) : start]
    return REJECTED.search(before) is not None and REJECTED.search(SENTENCE_ENDS.split(before)[-1]) is not None


def _is_taken_back(text: str, end: int) -> bool:
    following = text[end : end + 60].lstrip("。.!！?？ \n*")
    return bool(REJECTS_BEFORE.match(following))


def _expression(piece: str) -> str | None:
    """The mathematics that a piece consists of, for math-verify; None for words and for plain numbers."""
    text = piece.strip().strip("$").rstrip(".,。，*").strip().strip("$").strip()
    words = re.search(r"(?<!\\)\b[a-z]{3,}|[一-鿿]", text)
    return text if text and not words and not is_plain(text) else None


def _piece(text: str, start: int) -> tuple[str, int]:
    """The rest of the sentence after "the answer is", or of the next line that has something on it."""
    blank = BLANK.match(text, start)
    if blank and "\n" in blank.group():
        start += blank.group().rfind("\n") + 1
    end = REST.match(text, start)
    stop = end.end() if end else min(len(text), start + 400)
    return text[start:stop], stop


def _is_denied(text: str, piece: str, end: int) -> bool:
    """Asked (答案是 10 吗？) or denied (the answer is not 10)."""
    if ASKS.match(text[end : end + 8]) and not re.search(r"[对是]吗?$|right$|correct$", piece):
        return True
    if DENIES.match(piece) and not re.search("而是|but", piece):
        return True
    return bool(BUT_WRONG.search(piece))


def _result(response: Response, index: int) -> Reading | None:
    """The result that a sentence states: by a conclusion, in bold, or after an equals sign."""
    sentence = response.sentences[index]
    text = sentence.text
    if is_question(sentence.text) or not MAY_HOLD_NUMBER.search(text):
        return None
    following = response.sentences[index + 1].text if index + 1 < len(response.sentences) else ""
    if REJECTS_BEFORE.match(following) or NOT_THAT.match(text):
        return None
    has_equation = EQUATION.search(text) is not None
    has_bold = "**" in text and bool(bold_quantities(text))
    concludes = CONCLUDES.search(text)
    if not (has_equation or has_bold or concludes) or (not has_equation and HYPOTHETICAL.match(text)):
        return None
    stated = meant(text, response.asked)
    if not stated:
        return None
    if concludes and FINAL.search(text):
        emphatic = has_bold or bool(TOTAL.search(text))
        return Reading("conclusion", stated, None, sentence.end, emphatic, concludes=True)
    rule = "bold" if has_bold else "equation" if has_equation else "conclusion"
    return Reading(rule, stated, None, sentence.end)


def _last_result(response: Response) -> Reading | None:
    """The last sentence with a result; one before it where that one only adds an aside."""
    aside = step = None
    for index in range(len(response.sentences) - 1, -1, -1):
        reading = response.result(index)
        if not reading:
            continue
        if aside is None:
            last = _narrowed(response, index, _with_its_list(response, index, reading))
            if not _is_aside(response, index, reading):
                return last
            aside = last
        elif not is_aside(response.sentences[index].text, response.question):
            if reading.concludes or reading.rule == "bold":
                return _narrowed(response, index, reading)._replace(also=aside.quantities)
            step = step or reading
    return aside and aside._replace(concludes=False, also=step.quantities if step else ())


def _is_aside(response: Response, index: int, reading: Reading) -> bool:
    """Whether a sentence speaks of another case than the question, or comes after the lesson and concludes nothing."""
    if is_aside(response.sentences[index].text, response.question):
        return True
    return not reading.concludes and any(closes(sentence.text) for sentence in response.sentences[:index])


def _with_its_list(response: Response, index: int, reading: Reading) -> Reading:
    """The last of several labelled values (Ann: **48**, Tom: **32**) leaves open which of them is the answer."""
    sentences = response.sentences
    if index == 0 or not is_listed(sentences[index].text) or not is_listed(sentences[index - 1].text):
        return reading
    above = meant(response.sentences[index - 1].text, response.asked)
    return reading._replace(quantities=distinct(above + reading.quantities)) if above else reading


def _narrowed(response: Response, index: int, reading: Reading) -> Reading:
    """Where a sentence leaves open which of its numbers is meant, the result just before it may tell."""
    if len(reading.quantities) < 2 or HEDGE.search(response.sentences[index].text):
        return reading
    before = next((found for i in range(index - 1, -1, -1) if (found := response.result(i))), None)
    same = [each for each in reading.quantities if before and before.quantity and each.value == before.quantity.value]
    return (
        reading._replace(quantities=tuple(same)) if len(same) == 1 and before and before.rule == "equation" else reading
    )


def _last_number(response: Response) -> Reading | None:
    for sentence in reversed(response.sentences):
        if is_question(sentence.text):
            continue
        found = quantities_in(sentence.text)
        if found:
            stated = meant(sentence.text, response.asked)
            if len(stated) > 1 and re.search(r"\bfrom\b|从", sentence.text):
                stated = stated[-1:]
            index = response.sentences.index(sentence)
            return _with_its_list(response, index, Reading("last_number", stated, None, sentence.end))
    return None
