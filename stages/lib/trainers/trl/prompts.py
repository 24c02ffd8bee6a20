"""Check that training and evaluation agree: each row starts with the tokens of its prompt in evaluation.

check_prompts(job, conversations, tokenizer)    → the tokens of each row; TrainingError for the first that differs
"""

from typing import Any

from stages.lib.chat_template import prompt_ids, row_ids
from stages.lib.training import Conversation, Job, TrainingError


def check_prompts(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[list[int]]:
    """The tokens of the rows; TrainingError if one does not start with its prompt, or lacks part of its answer."""
    messages = [conversation.messages() for conversation in conversations]
    rows = row_ids(tokenizer, messages)
    prompts = prompt_ids(tokenizer, [turns[:-1] for turns in messages])
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        if row[: len(prompt)] != prompt:
            same = next(i for i, token in enumerate(prompt) if row[i : i + 1] != [token])
            raise _differs(job, conversations, place, f"{tokenizer.decode(prompt[same:])!r:.60}")
    for conversation, turns in zip(conversations, messages, strict=True):
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        if conversation.assistant.strip() not in text:
            raise TrainingError(
                f"{job.student}: its chat template leaves out part of the answer ({conversation.assistant[:40]!r}…). "
                "Choose other convert.markers, or another student."
            )
    return rows


def _differs(job: Job, conversations: list[Conversation], place: int, at: str) -> TrainingError:
    question = conversations[place].user
    return TrainingError(
        f"train: {job.name}: the tokens of evaluation's prompt and of the trained row differ from {at} on, for the "
        f"question {question[:40]!r}…. Choose other convert.markers, or another student."
    )
