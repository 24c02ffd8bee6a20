"""A row of a table as traces: its question, and each answer with the reasoning, or why it cannot be used.

TraceSchema("s1k", "s1K-1.1/train", columns, gold=None, model="deepseek-r1")
read_row({"question": "1 + 1?", "generations": ["<think>…</think>2", "<think>…"]}, Place(4, "a.jsonl:5"), schema)
# [Distilled(id="s1k-4", sample=0, …), LeftOutTrace(id="s1k-4", sample=1, reason="cut_off", …)]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.lib.params import MessagesColumns, SeparateColumns, TaggedColumns, TraceColumns
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import Turn
from stages.lib.tables.columns import Unusable, text_from, text_in, text_of, value_at
from stages.lib.tables.gold import READERS
from stages.lib.tables.messages import read_messages, spoken
from stages.lib.traces.rows import LeftOutTrace
from stages.lib.traces.texts import parted


@dataclass(frozen=True)
class TraceSchema:
    """How a table is read. ``name`` makes the ids of its rows (``s1k-0``), ``source`` says where they are from."""

    name: str
    source: str
    columns: TraceColumns
    gold: str | None
    model: str


@dataclass(frozen=True)
class Place:
    """A row's number, from 0, and its place in its file or dataset."""

    row: int
    text: str


@dataclass(frozen=True)
class _Said:
    """One answer: the reasoning of a column of its own, the text, and whether the table's authors call it right."""

    sample: int
    reasoning: Any
    text: Any
    correct: bool = True


def read_row(row: Mapping[str, Any], place: Place, schema: TraceSchema) -> list[Distilled | LeftOutTrace]:
    """The answers in a row, in their order; one that is left out where there is no question."""
    name = f"{schema.name}-{place.row}"
    try:
        if schema.columns.id:
            name = text_in(row, schema.columns.id, "id")
        asked, answers = _asked_and_answers(row, schema.columns)
    except Unusable as reason:
        return [left_out(place, str(reason), name, 0, "")]
    solution = value_at(row, schema.columns.solution) if schema.columns.solution else None
    common = {
        "id": name,
        **asked,
        "answer": _gold(row, schema),
        "solution": solution if isinstance(solution, str) and solution.strip() else None,
        "source": schema.source,
    }
    return [_trace(row, place, schema, common, said) for said in answers]


def left_out(place: Place, reason: str, name: str, sample: int, question: str, **more: Any) -> LeftOutTrace:
    """A row for the file of those left out; ``more`` are its other fields, as far as they are known."""
    fields: dict[str, Any] = {"reasoning": "", "response": "", "same_as": None, "benchmark_hits": []} | more
    return LeftOutTrace(
        id=name, sample=sample, row=place.row, place=place.text, reason=reason, question=question, **fields
    )


def _asked_and_answers(row: Mapping[str, Any], columns: TraceColumns) -> tuple[dict[str, Any], list[_Said]]:
    """The fields of the question, and the answers."""
    if isinstance(columns, SeparateColumns):
        said = _Said(0, value_at(row, columns.reasoning), value_at(row, columns.response))
        return {"question": text_in(row, columns.question, "question")}, [said]
    if isinstance(columns, TaggedColumns):
        question = text_in(row, columns.question, "question")
        value = value_at(row, columns.text)
        texts = value if isinstance(value, list) and value else [value or None]
        return {"question": question}, [
            _Said(sample, "", text, _correct(row, sample, columns.correct)) for sample, text in enumerate(texts)
        ]
    return _last_exchange(row, columns)


def _last_exchange(row: Mapping[str, Any], columns: MessagesColumns) -> tuple[dict[str, Any], list[_Said]]:
    """The last question of a conversation, after the turns before it, and its answer."""
    messages = value_at(row, columns.messages)
    dialogue = read_messages(messages)
    if not dialogue.turns:
        raise Unusable("no_question")
    if dialogue.turns[-1].role == "user":
        raise Unusable("no_response")
    *earlier, question, _ = dialogue.turns
    answer = spoken(messages)[-1]  # with its tags, which say whether it was cut off
    system = dialogue.system or text_of(row.get("system")) or ""
    asked = {
        "question": question.content,
        "history": [Turn(role=turn.role, content=turn.content) for turn in earlier] or None,
        "system": system if columns.system == "kept" and system.strip() else None,
    }
    return asked, [_Said(0, answer.thought, answer.text)]


def _correct(row: Mapping[str, Any], sample: int, columns: list[str]) -> bool:
    """Whether one of the columns calls the answer true, in a list with a value for each answer or in one value."""
    return not columns or any(_of_sample(value_at(row, column), sample) is True for column in columns)


def _of_sample(value: Any, sample: int) -> Any:
    if isinstance(value, list):
        return value[sample] if sample < len(value) else None
    return value


def _trace(
    row: Mapping[str, Any], place: Place, schema: TraceSchema, common: dict[str, Any], said: _Said
) -> Distilled | LeftOutTrace:
    columns, raw = schema.columns, {"reasoning": text_of(said.reasoning) or "", "response": text_of(said.text) or ""}
    try:
        if not said.correct:
            raise Unusable("not_correct")
        if isinstance(columns, SeparateColumns):
            text_from(said.reasoning, "reasoning")
        reasoning, response = parted(raw["reasoning"], text_from(said.text, "response"))
    except Unusable as reason:
        return left_out(place, str(reason), common["id"], said.sample, common["question"], **raw)
    model = text_of(_of_sample(value_at(row, columns.model), said.sample)) if columns.model else None
    return Distilled(
        **common,
        sample=said.sample,
        reasoning=reasoning,
        response=response,
        finish_reason="unknown",
        model=model or schema.model,
        usage={},
    )


def _gold(row: Mapping[str, Any], schema: TraceSchema) -> str | None:
    """The gold answer; None where the row has none that can be read."""
    text = text_of(value_at(row, schema.columns.answer)) if schema.columns.answer else None
    return READERS[schema.gold](text) if text and schema.gold else None
