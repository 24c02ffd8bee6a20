"""Conversations as others publish them: OpenAI's messages (role, content) and ShareGPT's turns (from, value).

    read_messages([{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "<think>…</think>2"}])
    # Dialogue(system=None, turns=(Message("user", "1 + 1?"), Message("assistant", "2", "…")))

A thought is split off an answer, from its own field or from its tags: the chat templates of Qwen3 and DeepSeek-R1 show
earlier answers without theirs. The reasons of MessagesError:

    not_messages             neither form: no list (nor the JSON text of one), or a turn without a role and a text
    unknown_role             a role that none of the two forms has
    tool_turn                a call of a tool or its result, which no student here is trained on
    empty_turn               a turn without text, or an answer with nothing after its thought
    turns_do_not_alternate   not user, assistant, user, …; a system text is allowed at the start only
    no_user_turn             no turn of the user, so no question
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from stages.lib.replies.thoughts import split_thought
from stages.lib.tables.columns import Unusable

FORMS = (("role", "content"), ("from", "value"))
Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # the fields beside the content that hold a thought
SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")  # Sky-T1's, OpenThoughts' and the article's


class MessagesError(Unusable):
    """A value that is no conversation of a user and an assistant; its text is the reason."""


@dataclass(frozen=True)
class Message:
    """What the user asked, or what the assistant answered and its thought (None where it has none)."""

    role: Literal["user", "assistant"]
    content: str
    reasoning: str | None = None


@dataclass(frozen=True)
class Dialogue:
    """A system text (None where there is none), and the turns: user, assistant, user, …"""

    system: str | None
    turns: tuple[Message, ...]

    def before_last_question(self) -> tuple[tuple[Message, ...], str]:
        """The turns before the user's last one, and its text; what follows it is left out."""
        asked = [place for place, turn in enumerate(self.turns) if turn.role == "user"]
        if not asked:
            raise MessagesError("no_user_turn")
        return self.turns[: asked[-1]], self.turns[asked[-1]].content


@dataclass(frozen=True)
class Spoken:
    """A turn as it stands: its text, and the thought in a field beside it (both may be empty)."""

    role: Role
    text: str
    thought: str


def read_messages(value: Any) -> Dialogue:
    """The conversation in a column; MessagesError where there is none that can be used. None and [] have no turns."""
    turns = spoken(value)
    system = turns.pop(0).text if turns and turns[0].role == "system" else None
    if [turn.role for turn in turns] != [("user", "assistant")[place % 2] for place in range(len(turns))]:
        raise MessagesError("turns_do_not_alternate")
    return Dialogue(system if system and system.strip() else None, tuple(map(_message, turns)))


def spoken(value: Any) -> list[Spoken]:
    """The turns in a column as they stand; MessagesError where a value is none, or is a tool's."""
    return [_spoken(each) for each in _listed(value)]


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, str):  # a column of CSV, and of some Parquet files
        try:
            value = orjson.loads(value) if value.strip() else None
        except orjson.JSONDecodeError as error:
            raise MessagesError("not_messages") from error
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise MessagesError("not_messages")
    return value


def _spoken(value: Any) -> Spoken:
    form = next((form for form in FORMS if isinstance(value, Mapping) and value.get(form[0]) is not None), None)
    if form is None:
        raise MessagesError("not_messages")
    name = str(value[form[0]]).strip().lower()
    if name in TOOL_ROLES or value.get("tool_calls") or value.get("function_call"):
        raise MessagesError("tool_turn")
    if name not in ROLES:
        raise MessagesError("unknown_role")
    thought = next((text for key in THOUGHTS if isinstance(text := value.get(key), str) and text.strip()), "")
    return Spoken(ROLES[name], _text(value.get(form[1])), thought)


def _message(turn: Spoken) -> Message:
    """A turn with its thought split off; a turn of the system between others is refused before."""
    text, thought = turn.text, None
    if turn.role == "assistant":
        thought, text = split_thought(turn.thought, text)
        text = SOLUTION.sub("", text).strip()
    if not text.strip():
        raise MessagesError("empty_turn")
    return Message("assistant" if turn.role == "assistant" else "user", text, thought or None)


def _text(content: Any) -> str:
    """The text of a turn; OpenAI's may be a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else [None]
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise MessagesError("not_messages")
    return "\n".join(str(text) for text in texts)
