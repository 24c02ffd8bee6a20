"""Conversations of others' datasets: two forms, thoughts, and what is no conversation of a user and an assistant."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.lib.tables.messages import Message, MessagesError, read_messages

FASTCHAT = Path(__file__).parent / "data" / "fastchat" / "conversations.jsonl"
USER, ANSWER = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}


def published() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FASTCHAT.read_text(encoding="utf-8").splitlines()]


def test_sharegpt_and_openai_forms_are_the_same_conversation() -> None:
    roles = {"human": "user", "gpt": "assistant"}
    for row in published():
        turns = row["conversations"]
        messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in turns]
        found = read_messages(turns)
        assert found == read_messages(messages) == read_messages(json.dumps(messages))
        assert [(turn.role, turn.content) for turn in found.turns] == [(m["role"], m["content"]) for m in messages]
        assert found.system is None


def test_the_question_is_the_users_last_turn_and_what_follows_it_is_left_out() -> None:
    history, question = read_messages(published()[2]["conversations"]).before_last_question()
    assert question == "Goodbye"
    assert [turn.content[:14] for turn in history] == [
        "What is up?",
        "Hello! How can",
        "Who are you?",
        "You can call m",
    ]
    assert read_messages([USER]).before_last_question() == ((), "1 + 1?")


def test_a_system_turn_at_the_start_is_the_system_text() -> None:
    for role in ("system", "developer"):
        found = read_messages([{"role": role, "content": "Be brief."}, USER, ANSWER])
        assert (found.system, len(found.turns)) == ("Be brief.", 2)


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "2", "reasoning_content": "1 and 1"},
        {"role": "assistant", "content": "<think>\n1 and 1\n</think>\n\n2"},
        {"role": "assistant", "content": "1 and 1</think>2"},
        {
            "from": "assistant",
            "value": "<|begin_of_thought|>\n\n1 and 1\n\n<|end_of_thought|>\n\n"
            "<|begin_of_solution|>\n\n2\n\n<|end_of_solution|>",
        },
    ],
    ids=["DeepSeek's field", "tags of Qwen3", "the opening tag in the prompt, as of R1", "OpenThoughts"],
)
def test_a_thought_is_split_off_an_answer(answer: dict[str, str]) -> None:
    assert read_messages([USER, answer]).turns[1] == Message("assistant", "2", "1 and 1")


def test_text_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "1"}, {"type": "text", "text": "+ 1?"}]
    assert read_messages([{"role": "user", "content": parts}]).turns == (Message("user", "1\n+ 1?"),)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1 + 1?", "not_messages"),
        ({"role": "user", "content": "1 + 1?"}, "not_messages"),
        (["1 + 1?"], "not_messages"),
        ([{"text": "1 + 1?"}], "not_messages"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "not_messages"),
        ([USER, USER], "turns_do_not_alternate"),
        ([ANSWER, USER], "turns_do_not_alternate"),
        ([USER, ANSWER, {"role": "system", "content": "Be brief."}, USER], "turns_do_not_alternate"),
        ([USER, {"role": "assistant", "content": " "}], "empty_turn"),
        ([{"role": "user", "content": None}], "empty_turn"),
        ([USER, {"role": "assistant", "content": "<think>1 and 1</think>"}], "empty_turn"),
        ([{"role": "critic", "content": "No."}], "unknown_role"),
        ([USER, {"role": "tool", "content": "2"}], "tool_turn"),
        ([USER, {"from": "function_call", "value": "{}"}], "tool_turn"),
        ([USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "tool_turn"),
        ([USER, {"from": "observation", "value": "2"}], "tool_turn"),
    ],
)
def test_what_is_no_conversation_has_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(MessagesError, match=reason):
        read_messages(value)


@pytest.mark.parametrize("value", [None, [], "", "[]"])
def test_no_turns_are_no_error_but_no_question(value: Any) -> None:
    assert read_messages(value).turns == ()
    with pytest.raises(MessagesError, match="no_user_turn"):
        read_messages(value).before_last_question()
