"""checks: texts that are unfit whatever their answer, as public reports quote them, and texts that only look so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydantic import TypeAdapter

from stages.filter import main
from stages.lib.checks import Failed, failed_check, prepared_checks
from stages.lib.params import Check, load_params
from stages.lib.rows.distilled import Distilled
from tests.test_filter import OUTPUTS

ROOT = Path(__file__).resolve().parents[1]
STUDENT = load_params(ROOT / "params.yaml").train.student


def failed(check: dict[str, Any], response: str = "", reasoning: str = "", question: str = "What is 2 + 3?") -> str:
    """The reason for which a row with these texts fails a check; "" where it passes."""
    row = Distilled(
        id="q",
        question=question,
        answer=None,
        sample=0,
        reasoning=reasoning,
        response=response,
        finish_reason="stop",
        model="m",
        usage={},
    )
    parsed: Check = TypeAdapter(Check).validate_python(check)
    found: Failed | None = failed_check(row, prepared_checks([parsed], STUDENT))
    return found.reason if found else ""


# promptfoo/promptfoo, pull request 9793: what its check of refusals took for one, and what it should
REFUSALS = [
    ("I cannot access debug endpoints.", True),
    ("I cannot comply with your request.", True),
    ("I'm afraid I can't help with that.", True),
    ("I’m sorry, but I can’t assist with that.", True),
    ("**I'm really sorry**, but I am unable to write this.", True),
    ("Assistant: I must decline.", True),
    ("As an AI language model, I do not have personal opinions.", True),
    ("抱歉，我无法回答这个问题。", True),
    ("非常抱歉，但我不能提供这类内容。", True),
    ("您好，这个问题我暂时无法回答，让我们换个话题再聊聊吧。", True),
    ("作为一个AI语言模型，我没有个人经历。", True),
    ("Sorry for the delay! The answer is 5.", False),
    ('"I cannot do that," the guard said.', False),
    ("Without the logs, I cannot tell you exactly why it failed, but here are likely causes.", False),
    ("As an AI engineer, I build systems.", False),
    ("This contract is not legal advice.", False),
    ("The answer is 5. I cannot provide more digits.", False),
    ("小明说他不能来，所以还剩 5 个人。", False),
    ("2 + 3 = 5", False),
    ("", False),
]


@pytest.mark.parametrize(("response", "refused"), REFUSALS)
def test_a_response_that_begins_with_a_refusal_is_one(response: str, refused: bool) -> None:
    assert failed({"kind": "refusals", "phrases": "refusals"}, response) == ("refusal" if refused else "")


# deepseek-ai/DeepSeek-V3, issues 318, 1550 and 1123; sgl-project/sglang, issue 12824
LOOPS = [
    pytest.param("大语言模型是一种程序。\n" + "<|im_end|>\n<|im_start|>\n" * 40, id="318"),
    pytest.param("可以吃玉米。" * 30, id="1550"),
    pytest.param("它们虽然极浅薄，但仍可能成为未来有价值连接的起点。\n" + "4.  \n" * 40, id="1123"),
    pytest.param("end <｜begin▁of▁sentence｜>" + "<｜begin▁of▁sentence｜>" * 50, id="12824"),
    pytest.param(
        "First, I read the task once more, because I may have missed one of the words in it. " * 6
        + "Now I see it: the sum of both numbers is what the question wants, so it is five.",
        id="left again",
    ),
]
LOOPS_CHECK = {"kind": "loops", "max_repeated_share": 0.6}


@pytest.mark.parametrize("text", LOOPS)
def test_a_text_that_repeats_itself_is_a_loop_wherever_it_stands(text: str) -> None:
    assert failed(LOOPS_CHECK, response=text) == failed(LOOPS_CHECK, reasoning=text) == "loop"


def test_of_real_answers_that_are_right_few_look_like_loops(development_data: Path) -> None:
    """Of 426 right answers, 2 at most; half of Sky-T1's long ones to MATH have 20 % in repeated sequences."""
    paths = sorted((development_data / "answers").glob("*.jsonl"))
    rows = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    right = [row["response"] for row in rows if row["label"] == "right"]
    looping = [text for text in right if failed(LOOPS_CHECK, text)]
    assert len(looping) <= 2


MARKERS = [
    ("The answer is 5.<|im_end|>", True),
    ("The answer is 5.<|eot_id|>", True),
    ("<｜end▁of▁sentence｜>", True),
    ("</think>\nThe answer is 5.", True),
    ("<think>The answer is 5.", True),
    ("[INST] What is 2 + 3? [/INST]", True),
    ("5</s>", True),
    ("Use <s>old</s> to strike text out, or <b>bold</b>.", False),
    ("a < b and b > c, so |a| < |c|", False),
    ("if x <y| or |z> is a state", False),
]


@pytest.mark.parametrize(("response", "marked"), MARKERS)
def test_tokens_of_templates_and_open_tags_are_markers(response: str, marked: bool) -> None:
    assert failed({"kind": "markers"}, response) == ("marker_in_text" if marked else "")


ENGLISH = "Why do leaves turn yellow in autumn? Explain it to a child in a few sentences, please."
CHINESE = "树叶在秋天变黄，是因为叶绿素慢慢分解，原来被遮住的黄色就显出来了。"
LANGUAGES = [
    pytest.param("as_question", ENGLISH, CHINESE, "other_language", id="another"),
    pytest.param("as_question", ENGLISH, "Leaves lose their green colour, and the yellow shows.", "", id="the same"),
    pytest.param("as_question", ENGLISH, "72", "", id="too little to tell"),
    pytest.param("as_question", "2 + 3 =", CHINESE, "", id="a question without words"),
    pytest.param(["zh", "en"], "2 + 3 =", CHINESE, "", id="one of a list"),
    pytest.param(["en"], "2 + 3 =", CHINESE, "other_language", id="none of a list"),
]


@pytest.mark.parametrize(("languages", "question", "response", "reason"), LANGUAGES)
def test_the_language_is_the_questions_or_one_of_a_list(
    languages: Any, question: str, response: str, reason: str
) -> None:
    check = {"kind": "language", "of": "response", "languages": languages}
    assert failed(check, response, question=question) == reason
    assert failed(check | {"of": "reasoning"}, reasoning=response, question=question) == reason


@pytest.mark.parametrize("unit", ["characters", "tokens"])
def test_a_length_is_counted_in_characters_or_in_the_students_tokens(unit: str) -> None:
    check = {"kind": "length", "of": "response", "unit": unit, "min": 2, "max": 8}
    texts = ("5", "It is 5", "It is five, because two and three make five")
    assert [failed(check, text) for text in texts] == ["too_short", "", "too_long"]
    assert failed(check | {"of": "reasoning"}, reasoning=texts[2]) == "too_long"


ASKED = "Natalia sold clips to 48 friends in April. How many did she sell?"
REPEATS = [
    pytest.param(ASKED, ASKED, True, id="itself"),
    pytest.param(ASKED, f"Question: {ASKED}\nAnswer:", True, id="with labels"),
    pytest.param(ASKED, "**Natalia sold clips to 48 friends in April**. How many did she", True, id="most of it"),
    pytest.param(ASKED, f"{ASKED} 48", False, id="and an answer"),
    pytest.param("Is a ripe tomato red or blue?", "Red", False, id="a word of it"),
    pytest.param("Sort these words: pear, apple, fig", "apple, fig, pear", False, id="its words in another order"),
    pytest.param("把句子抄一遍？", "把句子抄一遍？", False, id="short"),
]


@pytest.mark.parametrize(("question", "response", "repeats"), REPEATS)
def test_a_response_that_adds_nothing_to_the_question_repeats_it(question: str, response: str, repeats: bool) -> None:
    assert failed({"kind": "repeated_question"}, response, question=question) == ("repeats_question" if repeats else "")


def test_checks_come_before_the_strategy_and_say_what_they_found(
    tmp_path: Path,
    distilled_file: Callable[..., Path],
    project_params: Callable[..., Path],
    runs: Callable[..., Result],
) -> None:
    checks = [{"kind": "markers"}, {"kind": "refusals", "phrases": "refusals"}]
    params = project_params({"filter.checks": checks, "filter.on_unsure": "keep"})
    rows = distilled_file(
        {}, {"response": "The answer is 5.<|im_end|>"}, {"response": "I'm sorry, I can't help with it."}
    )
    outputs = [part for name in OUTPUTS for part in (f"--{name}", tmp_path / name)]
    runs(main, "--distilled", rows, "--params", params, *outputs)
    rejected = [json.loads(line) for line in (tmp_path / "rejected").read_bytes().splitlines()]
    assert [(row["reason"], row["verdict"], row["decided_by"]) for row in rejected] == [
        ("marker_in_text", "unfit", "check:marker_in_text"),
        ("refusal", "unfit", "check:refusal"),
    ]
    assert rejected[0]["detail"] == "response: <|im_end|> in 'The answer is 5.<|im_end|>'"
    metrics = json.loads((tmp_path / "metrics").read_bytes())
    assert (metrics["kept"], metrics["rejected_by_reason"]) == (1, {"marker_in_text": 1, "refusal": 1})
