"""Convert the article's file of bought answers, ``r1_distill.txt``, to records of the store and back.

One JSON object per line, with all characters outside ASCII escaped:

    {"question": "…", "reasoning": "…", "answer": "…"}

A row names neither the teacher nor the prompt. In both directions they are taken from params.yaml (``distill.teacher``,
``distill.prompt``), and the sample is the first one. A body made from a row has a field ``imported_from`` and no usage,
because its cost is not known.
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
    request = _requests(distill, identity_of(distill.teacher))
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = Row.model_validate_json(line)
            except ValidationError as error:
                raise StoreError(
                    f"{path}:{number}: not a row of {LAYOUT} (question, reasoning, answer). Fix or remove that line."
                ) from error
            body = _body(row, distill.teacher.model)
            answer = _read(body.encode())
            if isinstance(answer, str):
                skipped[answer] += 1
            else:
                yield Record.of(request(row.question), body)


def write_r1_distill(
    path: Path, questions: Iterable[Question], distill: Distill, identity: str, answers: AnswerFile
) -> tuple[int, Counter[str]]:
    """Write a row for each answered question; return their number, and the reasons why others are missing.

    ``identity`` is that of the teacher in the store's keys.
    """
    request, written, skipped = _requests(distill, identity), 0, Counter[str]()
    with writing(path) as file:
        for question in questions:
            alone = not (question.history or question.system)  # the file has no place for either
            answer = _answer(request(question.question), answers) if alone else "in_a_conversation"
            if isinstance(answer, str):
                skipped[answer] += 1
            else:
                row = {"question": question.question, "reasoning": answer.reasoning, "answer": answer.response}
                file.write(json.dumps(row).encode() + b"\n")
                written += 1
        if not written:
            raise StoreError(
                f"{path}: not written: the store has no usable answer to these questions with the distill.prompt and "
                "distill.teacher of params.yaml. Set them as they were when the answers were bought."
            )
    return written, skipped


def _answer(request: dict[str, Any], answers: AnswerFile) -> Answer | str:
    """The stored answer, or the reason why there is no usable one."""
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


def _requests(distill: Distill, identity: str) -> Callable[[str], dict[str, Any]]:
    """A function from a question to the request of ``distill``; a question that is a whole prompt stays unchanged."""
    prompt = prompt_text(distill.prompt)
    before, _, after = prompt.partition("{question}")

    def request(question: str) -> dict[str, Any]:
        whole = bool(before) and question.startswith(before) and question.endswith(after)
        content = question if whole else prompt.replace("{question}", question)
        return chat_request(identity, distill.teacher, content, sample=0)

    return request


def _body(row: Row, model: str) -> str:
    message = {"role": "assistant", "content": row.answer, "reasoning_content": row.reasoning}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return orjson.dumps({"model": model, "choices": [choice], "imported_from": LAYOUT}).decode()
