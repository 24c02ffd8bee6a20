"""The article's file of bought answers, ``r1_distill.txt``: to the store and back, so that nobody pays twice.

One JSON object a line, all but ASCII escaped:

    {"question": "…", "reasoning": "…", "answer": "…"}

A row does not say who was asked what, so both ways the teacher and the prompt are those of params.yaml now
(``distill.teacher``, ``distill.prompt``), and the sample is the first. A body made from a row says so in a field
``imported_from`` and states no usage: what it cost is not known.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.params import Distill, prompt_text
from stages.lib.replies.reading import Answer, BodyError, read_body
from stages.lib.rows import writing
from stages.lib.rows.question import Question
from stages.lib.store.answer_file import AnswerFile, StoreError
from stages.lib.store_tools.record import Record
from stages.lib.teacher.asking import chat_request, identity_of
from stages.lib.teacher.draws import answer_that_counts

LAYOUT = "r1_distill.txt"


class Row(BaseModel):
    """One bought answer. ``answer`` is all that the teacher wrote after its reasoning."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    question: str
    reasoning: str | None
    answer: str | None


def is_r1_distill(path: Path) -> bool:
    """Whether a file's first line is a row of this layout."""
    with path.open("rb") as lines:
        try:
            Row.model_validate_json(lines.readline())
        except ValidationError:
            return False
    return True


def read_r1_distill(path: Path, distill: Distill, skipped: Counter[str]) -> Iterator[Record]:
    """The records of a file's rows; ``skipped`` counts the rows without a usable answer, by reason."""
    request = _requests(distill)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = Row.model_validate_json(line)
            except ValidationError as error:
                raise StoreError(
                    f"{path}:{number}: not a row of {LAYOUT} (question, reasoning, answer). Mend or remove that line."
                ) from error
            body = _body(row, distill.teacher.model)
            answer = _read(body.encode())
            if isinstance(answer, str):
                skipped[answer] += 1
            else:
                yield Record.of(request(row.question), body)


def write_r1_distill(
    path: Path, questions: Iterable[Question], distill: Distill, answers: AnswerFile
) -> tuple[int, Counter[str]]:
    """Write a row for each question that was answered; how many, and why others are not there."""
    request, written, skipped = _requests(distill), 0, Counter[str]()
    with writing(path) as file:
        for question in questions:
            answer = _answer(request(question.question), answers)
            if isinstance(answer, str):
                skipped[answer] += 1
            else:
                row = {"question": question.question, "reasoning": answer.reasoning, "answer": answer.response}
                file.write(json.dumps(row).encode() + b"\n")
                written += 1
        if not written:
            raise StoreError(
                f"{path}: not written: the store has no answer of use to these questions under the distill.prompt and "
                "distill.teacher of params.yaml. Set them as they were when the answers were bought."
            )
    return written, skipped


def _answer(request: dict[str, Any], answers: AnswerFile) -> Answer | str:
    """The stored answer, or why there is none of use."""
    try:
        answer = answer_that_counts(request, answers)
    except KeyError:
        return "not_answered"
    except BodyError as error:
        return str(error)
    return answer.failure or answer


def _read(body: bytes) -> Answer | str:
    try:
        answer = read_body(body)
    except BodyError as error:
        return str(error)
    return answer.failure or answer


def _requests(distill: Distill) -> Callable[[str], dict[str, Any]]:
    """From a question to what ``distill`` sends for it; a question that is the whole prompt already is sent so."""
    prompt = prompt_text(distill.prompt)
    before, _, after = prompt.partition("{question}")
    identity = identity_of(distill.teacher)

    def request(question: str) -> dict[str, Any]:
        whole = bool(before) and question.startswith(before) and question.endswith(after)
        content = question if whole else prompt.replace("{question}", question)
        return chat_request(identity, distill.teacher, content, sample=0)

    return request


def _body(row: Row, model: str) -> str:
    message = {"role": "assistant", "content": row.answer, "reasoning_content": row.reasoning}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return orjson.dumps({"model": model, "choices": [choice], "imported_from": LAYOUT}).decode()
