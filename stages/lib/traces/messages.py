"""A question and its answer in a list of messages, as chat APIs and ShareGPT write them (tables/messages.py).

[{"role": "system", "content": "…"}, {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "…"}]
[{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "<think>…</think>2"}]
"""

from dataclasses import dataclass
from typing import Any

from stages.lib.tables.columns import Unusable, text_from
from stages.lib.tables.messages import spoken


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; ``reasoning`` is empty where the answer's text holds it."""

    system: str
    question: str
    reasoning: str
    text: str


def exchange_in(messages: Any) -> Exchange:
    """The only exchange of the messages; Unusable where there are more of them, another speaker, or none."""
    turns = spoken(messages)
    if not turns:
        raise Unusable("no_messages")
    system = turns.pop(0).text if turns[0].role == "system" else ""
    if [turn.role for turn in turns] != ["user", "assistant"]:
        raise Unusable("not_one_exchange")
    question, answer = turns
    return Exchange(
        system=system,
        question=text_from(question.text, "question"),
        reasoning=answer.thought,
        text=text_from(answer.text, "response"),
    )
