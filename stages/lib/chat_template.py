"""Chat templates: where the system text goes, and the same prompt text in evaluation and in training.

Evaluation renders a prompt (system text, question, ``add_generation_prompt``). Training renders a row (the same and an
answer). With some published templates, the prompt is not the beginning of the row. Such a template

- opens ``<think>`` only in the prompt;
- adds an empty thought to an answer, or removes the thought from it;
- leaves the system text out of one of the two;
- or writes today's date.

``align`` replaces it by one that is built from its own constant texts, so that the prompt is the beginning of the row:

    <s>  system  middle  question  opening  answer  end         (``between`` instead of ``end`` before a next question)

A template that is consistent is not changed. In a row of several turns, each answer's prompt is the beginning of the
row. ``prompt_ids`` gives the tokens for the check of each row.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from stages.lib.params import Markers, Student, SystemPrompt
from stages.lib.students import StudentError, student_tokenizer

Messages = list[dict[str, str]]

SEPARATOR = "\n\n"  # between the system text and the question where both are the user's turn
# texts that occur in no template, to locate them in its output
SYSTEM, QUESTION, ANSWER, NEXT = "Qzsystemzq", "Qzquestionzq", "Qzanswerzq", "Qznextzq"
DAYS = ("01 Jan 2025", "24 Dec 2031")  # Llama 3's templates write today's date; the first day replaces it permanently
MAY_BE_CONTROL = re.compile(r"[<\[|｜]")  # every known control token has one of these
THOUGHT = r"</?(?:think|thinking|thought|reasoning)>|\[/?THINK\]"

_TEMPLATE = (
    "{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}\n"
    "{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages -%}\n"
    "{{- HEAD -}}\n"
    "{%- for turn in turns -%}\n"
    "{%- if turn['role'] != 'assistant' -%}\n"
    "{{- turn['content'] ~ (OPENING if add_generation_prompt or not loop.last else USER_STOP) -}}\n"
    "{%- else -%}\n"
    "{{- LEAD ~ turn['content'] ~ (END if loop.last else BETWEEN) -}}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}\n"
)


@dataclass(frozen=True)
class Pieces:
    """The constant texts of a template: ``with_system`` precedes a system text, ``head`` is used without one.

    ``user_stop`` ends a question that nothing follows; ``lead`` is white space before an answer that prompts lack.
    """

    head: str
    with_system: str
    middle: str
    opening: str
    user_stop: str
    lead: str
    end: str
    between: str


def align(
    tokenizer: Any, markers: Markers, system_prompt: SystemPrompt, with_system: bool, with_history: bool = False
) -> bool:
    """Give the tokenizer a chat template whose prompts are the beginning of their rows; True if it was replaced.

    ``with_system`` and ``with_history``: whether some row has a system text, and earlier turns.

    StudentError if the template has no place for the system text and params do not put it into the user's turn, or if
    no consistent template can be built.
    """
    in_user_turn = system_prompt == "in_user_turn" and with_system
    if not in_user_turn:
        if with_system:
            check_system(tokenizer, [_turn("system", SYSTEM), _turn("user", QUESTION)])
        if agrees(tokenizer, markers, with_system, with_history):
            return False
    pieces = _pieces(tokenizer, markers, with_system and not in_user_turn)
    tokenizer.chat_template = _written(pieces, in_user_turn)
    if not agrees(tokenizer, markers, with_system, with_history):
        raise _unreadable(tokenizer, "the template built from its texts is not consistent either")
    return True


def check_system(tokenizer: Any, prompt: Messages) -> None:
    """StudentError if the chat template refuses the prompt's system text, or silently leaves it out."""
    try:
        text = rendered(tokenizer, prompt, opened=True)
    except _errors() as error:
        said = str(error) or type(error).__name__
    else:
        if prompt[0]["content"].strip() in text:
            return
        said = "it leaves it out"
    raise StudentError(
        f"{tokenizer.name_or_path}: its chat template has no place for a system text ({said:.100}). "
        "Set train.system_prompt: in_user_turn."
    )


def in_user_turn(messages: Sequence[dict[str, str]]) -> Messages:
    """The same messages with the system text before the first question."""
    if not messages or messages[0]["role"] != "system":
        return [*messages]
    system, question, *others = messages
    text = system["content"] + SEPARATOR + question["content"] if system["content"] else question["content"]
    return [{**question, "content": text}, *others]


def agrees(tokenizer: Any, markers: Markers, with_system: bool, with_history: bool = False) -> bool:
    """Whether a row is its prompt, white space, the answer and an end, independent of the date.

    ``with_history``: and whether this holds for both answers of a row with two, the earlier one without a thought, and
    for that one alone.
    """
    answer = _turn("assistant", _marked(markers))
    first = [_turn("system", SYSTEM)] * with_system + [_turn("user", QUESTION)]
    earlier = _turn("assistant", ANSWER)
    later = [*first, earlier, _turn("user", NEXT)]
    try:
        if not _continues(tokenizer, first, answer, rendered(tokenizer, [*first, answer])):
            return False
        if not with_history:
            return True
        whole = rendered(tokenizer, [*later, answer])
        return (
            _continues(tokenizer, first, earlier, rendered(tokenizer, [*first, earlier]))
            and _continues(tokenizer, first, earlier, whole)
            and _continues(tokenizer, later, answer, whole)
        )
    except _errors():
        return False


def _continues(tokenizer: Any, prompt: Messages, answer: dict[str, str], row: str) -> bool:
    """Whether a row begins with the opened prompt, white space and the answer."""
    asked = {rendered(tokenizer, prompt, opened=True, day=day) for day in DAYS}
    (text,) = asked if len(asked) == 1 else ("",)
    return bool(text) and row.startswith(text) and row[len(text) :].lstrip().startswith(answer["content"])


def prompt_ids(tokenizer: Any, prompts: Iterable[Messages]) -> list[list[int]]:
    """The tokens of prompts, as all backends of evaluation send them: no special tokens but the template's."""
    texts = [rendered(tokenizer, prompt, opened=True) for prompt in prompts]
    return _ids(tokenizer, texts)


def row_ids(tokenizer: Any, rows: Iterable[Messages]) -> list[list[int]]:
    """The tokens of complete conversations, as in training."""
    return _ids(tokenizer, [rendered(tokenizer, row) for row in rows])


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:  # some tokenizers refuse none
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def rendered(tokenizer: Any, messages: Messages, opened: bool = False, day: str | None = None) -> str:
    """The output of the chat template; ``opened`` adds the beginning of an answer. ``day`` replaces today's date."""
    template = tokenizer.get_chat_template()
    if day and "strftime_now" in template:
        template = f"{{%- macro strftime_now(format) -%}}{day}{{%- endmacro -%}}{template}"
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=opened
    )
    return text


def control_tokens(tokenizer: Any, markers: Markers) -> list[str]:
    """The texts that the tokenizer reads as control tokens, not as plain text; longest first.

    They are all special tokens, and the added tokens that the chat template writes around a turn, without convert's
    markers.
    """
    added = list(tokenizer.added_tokens_decoder.values())
    frame = _frame(tokenizer)
    found = {str(token) for token in added if token.special or str(token) in frame}
    texts = {text for text in found if text.strip()} - set(markers.model_dump().values())
    return sorted(texts, key=lambda text: (-len(text), text))


class ControlTokens:
    """The control tokens of a student. The tokenizer is loaded for the first text that may contain one."""

    def __init__(self, student: Student, markers: Markers) -> None:
        self._student = student
        self._markers = markers

    @cached_property
    def tokens(self) -> list[str]:
        """The result of ``control_tokens``."""
        return control_tokens(student_tokenizer(self._student), self._markers)

    def found_in(self, text: str) -> bool:
        """Whether a text contains one of them."""
        return bool(MAY_BE_CONTROL.search(text)) and any(token in text for token in self.tokens)


def _frame(tokenizer: Any) -> str:
    """All that the chat template writes around a question and an answer."""
    turns = [_turn("user", QUESTION), _turn("assistant", ANSWER)]
    try:
        return rendered(tokenizer, turns) + rendered(tokenizer, turns[:1], opened=True)
    except _errors():
        return ""


def _pieces(tokenizer: Any, markers: Markers, with_system: bool) -> Pieces:
    """What the template writes around known texts; StudentError if its output lacks one of them."""
    user, answer = _turn("user", QUESTION), _turn("assistant", ANSWER)
    conversations = {
        "opened": ([user], True),
        "asked": ([user], False),
        "answered": ([user, answer], False),
        "next": ([user, answer, _turn("user", NEXT)], True),
        "system": ([_turn("system", SYSTEM), user] if with_system else [user], True),
    }
    try:
        texts = {
            name: rendered(tokenizer, messages, opened=opened, day=DAYS[0])
            for name, (messages, opened) in conversations.items()
        }
    except _errors() as error:
        raise _unreadable(tokenizer, str(error)) from error
    head, opening = _split(tokenizer, texts["opened"], QUESTION)
    _, user_stop = _split(tokenizer, texts["asked"], QUESTION)
    _, before, end = _split(tokenizer, texts["answered"], QUESTION, ANSWER)
    _, between, _ = _split(tokenizer, texts["next"], ANSWER, NEXT)
    with_text, middle = head, ""
    if with_system:
        with_text, middle, _ = _split(tokenizer, texts["system"], SYSTEM, QUESTION)
    opening, lead = _opening(tokenizer, opening, before, markers)
    return Pieces(head, with_text, middle, opening, user_stop, lead, end, between)


def _split(tokenizer: Any, text: str, *known: str) -> list[str]:
    """The parts of a text around the known texts, which must occur in this order."""
    parts = []
    for each in known:
        before, found, text = text.partition(each)
        if not found:
            raise _unreadable(tokenizer, "it leaves out a turn")
        parts.append(before)
    return [*parts, text]


def _opening(tokenizer: Any, asked: str, answered: str, markers: Markers) -> tuple[str, str]:
    """The text before an answer in both prompt and row, and the white space that only the row has there.

    Tags of a thought are left out: they belong to the answer.
    """
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(asked, answered, strict=False))
    common = "".join(letter for letter, _ in pairs)
    added = [re.escape(str(token)) for token in tokenizer.added_tokens_decoder.values()]
    tags = "|".join([THOUGHT, *map(re.escape, markers.model_dump().values())])
    for whole in re.finditer("|".join([*added, tags]), asked):
        if whole.start() < len(common) < whole.end():
            common = common[: whole.start()]
    opening = re.sub(rf"(?:(?:{tags})\s*)+$", "", common)
    lead = answered[len(opening) :]
    return opening, lead if opening == asked and not lead.strip() else ""


def _written(pieces: Pieces, in_user_turn: bool) -> str:
    """The Jinja template for these pieces."""
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in vars(pieces).items()}
    separator = json.dumps(SEPARATOR)
    if in_user_turn:
        head = f"{quoted['head']} ~ (system ~ {separator} if system else '')"
    else:
        head = f"({quoted['with_system']} ~ system ~ {quoted['middle']} if system else {quoted['head']})"
    texts = {"HEAD": head} | {name.upper(): text for name, text in quoted.items() if name != "head"}
    return re.sub("[A-Z_]{3,}", lambda found: texts[found[0]], _TEMPLATE)


def _marked(markers: Markers) -> str:
    """An answer as convert writes it."""
    thought = f"{markers.begin_of_thought}\n\n{ANSWER}{markers.end_of_thought}"
    return f"{thought}\n\n{markers.begin_of_solution}\n\n{ANSWER}{markers.end_of_solution}"


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _errors() -> tuple[type[Exception], ...]:
    """What rendering a chat template raises: its own errors, and those of Jinja and Python on unexpected messages."""
    from jinja2.exceptions import TemplateError

    return (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)


def _unreadable(tokenizer: Any, why: str) -> StudentError:
    return StudentError(
        f"{tokenizer.name_or_path}: its chat template writes different texts for prompts and trained rows, and cannot "
        f"be corrected ({why:.100}). Choose another student, or give it another chat template."
    )
