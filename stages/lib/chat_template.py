"""Chat templates: where the system text goes, and one text for the prompt of evaluation and of training.

Evaluation renders a prompt (system text, question, ``add_generation_prompt``), training a row (the same and an answer).
A published template may make unlike texts of the two: it opens ``<think>`` in the prompt alone, puts an empty thought
before an answer or takes a thought out of it, leaves the system text out of one of them or writes today's date.
``align`` then replaces it by one made of its own pieces, with which the prompt is the beginning of the row:

    <s>  system  middle  question  opening  answer  end         (before a next question: between, in place of end)

A template that agrees with itself stays as it is. The tokens of each row are compared by ``prompt_ids``.
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
# texts that no template knows, to find them again in what it writes
SYSTEM, QUESTION, ANSWER, NEXT = "Qzsystemzq", "Qzquestionzq", "Qzanswerzq", "Qznextzq"
DAYS = ("01 Jan 2025", "24 Dec 2031")  # templates of Llama 3 write the day of the call; the first for good
MAY_BE_CONTROL = re.compile(r"[<\[|｜]")  # in every token of control that was ever seen
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
    """The constant texts of a template; ``with_system`` stands before a system text, ``head`` where there is none.

    ``user_stop`` ends a question that nothing is to follow; ``lead`` are blanks before an answer that no prompt has.
    """

    head: str
    with_system: str
    middle: str
    opening: str
    user_stop: str
    lead: str
    end: str
    between: str


def align(tokenizer: Any, markers: Markers, system_prompt: SystemPrompt, with_system: bool) -> bool:
    """Give the tokenizer a chat template by which a prompt is the beginning of its row; whether it got another one.

    StudentError where the template has no place for the system text and params do not put it into the user's turn, or
    where no template can be made of its pieces.
    """
    in_user_turn = system_prompt == "in_user_turn" and with_system
    if not in_user_turn:
        if with_system:
            check_system(tokenizer, [_turn("system", SYSTEM), _turn("user", QUESTION)])
        if agrees(tokenizer, markers, with_system):
            return False
    pieces = _pieces(tokenizer, markers, with_system and not in_user_turn)
    tokenizer.chat_template = _written(pieces, in_user_turn)
    if not agrees(tokenizer, markers, with_system):
        raise _unreadable(tokenizer, "the template made of its pieces writes other texts")
    return True


def check_system(tokenizer: Any, prompt: Messages) -> None:
    """StudentError where the chat template refuses the prompt's system text, or leaves it out without a word."""
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


def agrees(tokenizer: Any, markers: Markers, with_system: bool) -> bool:
    """Whether a row is its prompt, then the answer and an end, on any day; nothing but blanks before the answer."""
    answer = _marked(markers)
    prompt = [_turn("system", SYSTEM)] * with_system + [_turn("user", QUESTION)]
    try:
        asked = {rendered(tokenizer, prompt, opened=True, day=day) for day in DAYS}
        row = rendered(tokenizer, [*prompt, _turn("assistant", answer)])
    except _errors():
        return False
    (text,) = asked if len(asked) == 1 else ("",)
    return bool(text) and row.startswith(text) and row[len(text) :].lstrip().startswith(answer)


def prompt_ids(tokenizer: Any, prompts: Iterable[Messages]) -> list[list[int]]:
    """The tokens of prompts as each backend of evaluation asks with them: no special ones but the template's."""
    texts = [rendered(tokenizer, prompt, opened=True) for prompt in prompts]
    return _ids(tokenizer, texts)


def row_ids(tokenizer: Any, rows: Iterable[Messages]) -> list[list[int]]:
    """The tokens of whole conversations as they are trained."""
    return _ids(tokenizer, [rendered(tokenizer, row) for row in rows])


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def rendered(tokenizer: Any, messages: Messages, opened: bool = False, day: str | None = None) -> str:
    """What the chat template writes; ``opened``: with the beginning of an answer. ``day`` stands in for today."""
    template = tokenizer.get_chat_template()
    if day and "strftime_now" in template:
        template = f"{{%- macro strftime_now(format) -%}}{day}{{%- endmacro -%}}{template}"
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=opened
    )
    return text


def control_tokens(tokenizer: Any, markers: Markers) -> list[str]:
    """The texts that the tokenizer takes for tokens of control, longest first, and not for the letters that they are.

    All special tokens, and those added ones that the chat template writes around a turn; none of convert's markers.
    """
    added = list(tokenizer.added_tokens_decoder.values())
    frame = _frame(tokenizer)
    found = {str(token) for token in added if token.special or str(token) in frame}
    texts = {text for text in found if text.strip()} - set(markers.model_dump().values())
    return sorted(texts, key=lambda text: (-len(text), text))


class ControlTokens:
    """The control tokens of a student, whose tokenizer is loaded for the first text that may hold one."""

    def __init__(self, student: Student, markers: Markers) -> None:
        self._student = student
        self._markers = markers

    @cached_property
    def tokens(self) -> list[str]:
        """As ``control_tokens`` finds them."""
        return control_tokens(student_tokenizer(self._student), self._markers)

    def stand_in(self, text: str) -> bool:
        """Whether one of them stands in a text."""
        return bool(MAY_BE_CONTROL.search(text)) and any(token in text for token in self.tokens)


def _frame(tokenizer: Any) -> str:
    """All that the chat template writes around a question and an answer."""
    turns = [_turn("user", QUESTION), _turn("assistant", ANSWER)]
    try:
        return rendered(tokenizer, turns) + rendered(tokenizer, turns[:1], opened=True)
    except _errors():
        return ""


def _pieces(tokenizer: Any, markers: Markers, with_system: bool) -> Pieces:
    """What the template writes around known texts; StudentError where they are not found in it."""
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
    """The texts around the known ones, each of which must stand there once and in this order."""
    parts = []
    for each in known:
        before, found, text = text.partition(each)
        if not found:
            raise _unreadable(tokenizer, "it leaves out a turn")
        parts.append(before)
    return [*parts, text]


def _opening(tokenizer: Any, asked: str, answered: str, markers: Markers) -> tuple[str, str]:
    """What stands before an answer in a prompt and in a row, and blanks that the row alone has before it.

    Nothing of a thought: that is the answer's own.
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
    """The template (Jinja) of these pieces."""
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
    """What a chat template raises: its own refusals, and those of Jinja and Python on what it did not expect."""
    from jinja2.exceptions import TemplateError

    return (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)


def _unreadable(tokenizer: Any, why: str) -> StudentError:
    return StudentError(
        f"{tokenizer.name_or_path}: its chat template writes prompts and trained rows differently, and none could be "
        f"made of it that does not ({why:.100}). Choose another student, or give it another chat template."
    )
