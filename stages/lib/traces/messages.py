"""A question and its answer in a list of messages, as chat APIs and ShareGPT write them.

[{"role": "system", "content": "…"}, {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "…"}]
[{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "<think>…</think>2"}]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.lib.tables.columns import Unusable, text_from, text_of

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant"}
REASONING = ("reasoning_content", "reasoning", "thinking")  # an assistant's keys beside its content


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; ``reasoning`` is empty where the answer's text holds it."""

    system: str
    question: str
    reasoning: str
    text: str


def exchange_in(messages: Any) -> Exchange:
    """The only exchange of the messages; Unusable where there are more of them, another speaker, or none."""
    if not isinstance(messages, list) or not messages or not all(isinstance(each, Mapping) for each in messages):
        raise Unusable("no_messages")
    turns = [*messages]
    system = turns.pop(0) if _speaker(turns[0]) in ("system", "developer") else {}
    if [ROLES.get(_speaker(turn)) for turn in turns] != ["user", "assistant"]:
        raise Unusable("not_one_exchange")
    question, answer = turns
    reasoning = next((text for key in REASONING if isinstance(text := answer.get(key), str) and text.strip()), "")
    return Exchange(
        system=text_of(_content(system)) or "",
        question=text_from(_content(question), "question"),
        reasoning=reasoning,
        text=text_from(_content(answer), "response"),
    )


def _speaker(turn: Mapping[str, Any]) -> str:
    return str(turn.get("role") or turn.get("from") or "").lower()


def _content(turn: Mapping[str, Any]) -> Any:
    return turn["content"] if "content" in turn else turn.get("value")
