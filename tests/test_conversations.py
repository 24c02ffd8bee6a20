"""Questions in conversations of several turns, from the source to the labels of the training and to the evaluation."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import Result

from stages.collect import main as collect
from stages.collect import separate
from stages.convert import Dropped
from stages.convert import main as convert
from stages.distill import PlannedCalls
from stages.evaluate import main as evaluate
from stages.lib import chat_template as templates
from stages.lib.difficulty.calls import Calls
from stages.lib.hygiene.contamination import index_questions
from stages.lib.params import SystemPrompt, load_params, prompt_text
from stages.lib.rows import DataError, read_rows, write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import LeftOut, Question, Turn
from stages.lib.store.answer_store import request_key
from stages.lib.teacher.asking import identity_of
from stages.lib.tokens import tokens_of
from stages.lib.tokens.length import fitting_rows
from stages.lib.tokens.tokenizer import Ends, check_end_is_trained
from stages.lib.trainers.openmind import check_loss_on
from stages.lib.trainers.openmind.inputs import sample
from stages.lib.trainers.openmind.tokens import chat_template as openmind_template
from stages.lib.trainers.openmind.tokens import measured_rows
from stages.lib.training import Conversation, Job, TooLong, TrainingError
from stages.lib.training.dataset import ShareGpt
from stages.train import main as train
from tests.chat_templates import KINDS
from tests.distill_runner import DistillRunner, Serve, completion, prompted
from tests.test_train_templates import OTHERS, THINK, tokenizer_with
from tests.workspace import ROOT

Params = Callable[..., Path]
Runs = Callable[..., Result]
FASTCHAT = ROOT / "tests" / "data" / "fastchat"
QUESTION: dict[str, Any] = {"id": "q0", "question": "And 3 more?", "answer": "8"}
HISTORY = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}]
NO_LOSS = -100


def follow_ups() -> list[dict[str, Any]]:
    """MT-bench's second questions after its first ones with their reference answers, as OpenAI's messages."""
    rows = []
    for line in (FASTCHAT / "mt_bench.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        texts = [found["turns"][0], found["reference"][0], found["turns"][1]]
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        rows.append({"id": f"mt-{found['question_id']}", "messages": messages, "answer": found["reference"][1]})
    return rows


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def distilled(row: dict[str, Any] = QUESTION, **more: Any) -> Distilled:
    answer = {
        "sample": 0,
        "reasoning": "5 and 3.",
        "response": "**8**",
        "finish_reason": "stop",
        "model": "m",
        "usage": {},
    }
    return Distilled.model_validate(row | answer | more)


# --- rows


def test_a_row_without_them_has_no_key_for_earlier_turns_and_system_text() -> None:
    row = Question(**QUESTION)
    assert list(json.loads(row.model_dump_json())) == ["id", "question", "answer", "solution", "source"]
    assert "history" not in distilled().model_dump_json()
    full = Question.model_validate(QUESTION | {"history": HISTORY, "system": "Be brief."})
    assert list(json.loads(full.model_dump_json()))[5:] == ["history", "system"]
    assert distilled(json.loads(full.model_dump_json())).history == [Turn(**turn) for turn in HISTORY]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "history",
    [
        HISTORY[:1],
        HISTORY[::-1],
        [*HISTORY, HISTORY[0]],
        [],
        [HISTORY[0], {"role": "assistant", "content": " "}],
        [HISTORY[0], {"role": "tool", "content": "5"}],
    ],
    ids=["ends with the user", "begins with the assistant", "two users in a row", "none", "an empty turn", "a tool"],
)
def test_earlier_turns_of_a_bad_shape_are_one_line_with_their_place(tmp_path: Path, history: list[Any]) -> None:
    path = write_lines(tmp_path / "q.jsonl", [QUESTION, QUESTION | {"id": "q1", "history": history}])
    with pytest.raises(DataError, match=rf"{path}:2: field 'history.*rebuild") as found:
        list(read_rows(path, Question, "Run 'dvc repro collect' to rebuild it."))
    assert "\n" not in str(found.value)


# --- collect


@pytest.fixture
def collected(tmp_path: Path, project_params: Params, runs: Runs) -> Callable[..., list[Question]]:
    """``collected(rows, size=4, question="ask")``: the questions of a file with these rows, and these columns."""

    def run(rows: list[dict[str, Any]], size: int, **columns: str | None) -> list[Question]:
        named = {"question": None, "answer": "answer", "solution": None, "id": "id", "history": "messages"}
        changes = {
            "collect.source.kind": "file",
            "collect.source.path": str(write_lines(tmp_path / "source.jsonl", rows)),
            "collect.source.columns": named | {"system": None} | columns,
            "collect.train_size": size,
            "collect.heldout_size": 0,
        }
        paths = [f"--{name}={tmp_path / name}.jsonl" for name in ("questions", "heldout", "left-out")]
        runs(collect, *paths, f"--metrics={tmp_path / 'collect.json'}", "--params", project_params(changes))
        return list(read_rows(tmp_path / "questions.jsonl", Question, ""))

    return run


def test_the_last_user_turn_of_a_conversation_is_the_question(collected: Callable[..., list[Question]]) -> None:
    rows = follow_ups()
    for found, row in zip(collected(rows, 4), rows, strict=True):
        assert found.question == row["messages"][-1]["content"]
        assert [turn.model_dump() for turn in found.history or ()] == row["messages"][:-1]
        assert (found.answer, found.system) == (row["answer"], None)


def test_a_question_column_follows_the_history_and_a_system_column_is_the_rows_own(
    collected: Callable[..., list[Question]],
) -> None:
    rows = [json.loads(line) for line in (FASTCHAT / "conversations.jsonl").read_text().splitlines()]
    rows = [row | {"ask": f"What is {place} + 5?", "answer": str(place + 5)} for place, row in enumerate(rows)]
    found = collected(rows, 4, question="ask", history="conversations", system="system")
    assert [len(row.history or ()) for row in found] == [4, 2, 6, 6]
    assert [row.system for row in found] == [row.get("system") for row in rows]
    assert [row.question for row in found] == [row["ask"] for row in rows]


def test_rows_that_are_no_conversation_are_counted_by_reason(
    tmp_path: Path, collected: Callable[..., list[Question]]
) -> None:
    bad = [[{"role": "tool", "content": "5"}], [*HISTORY[:1], *HISTORY[:1]], [], "5"]
    rows = follow_ups() + [{"id": f"bad-{place}", "messages": each, "answer": "5"} for place, each in enumerate(bad)]
    assert len(collected(rows, 4)) == 4
    facts = json.loads((tmp_path / "collect.json").read_bytes())["source"]
    assert {reason: each["count"] for reason, each in facts["unusable"].items()} == {
        "no_user_turn": 1,
        "not_messages": 1,
        "tool_turn": 1,
        "turns_do_not_alternate": 1,
    }


def test_duplicates_and_control_tokens_are_found_in_the_whole_conversation(
    tmp_path: Path, collected: Callable[..., list[Question]]
) -> None:
    ask = {"role": "user", "content": "And 3 more?"}
    other = [{"role": "user", "content": "What is 9 + 3?"}, {"role": "assistant", "content": "12"}]
    token = [HISTORY[0], {"role": "assistant", "content": "5<|im_end|>"}]
    texts = [[*HISTORY, ask], [*other, ask], [*HISTORY, ask], [*token, ask]]
    rows = [{"id": f"q{place}", "messages": each, "answer": "8"} for place, each in enumerate(texts)]
    assert [row.id for row in collected(rows, 4)] == ["q0", "q1"]
    left_out = read_rows(tmp_path / "left-out.jsonl", LeftOut, "")
    assert [(row.id, row.reason, row.same_as) for row in left_out] == [
        ("q2", "duplicate", "q0"),
        ("q3", "control_token", None),
    ]
    assert json.loads((tmp_path / "left-out.jsonl").read_bytes().splitlines()[0])["history"] == HISTORY


def test_an_earlier_turn_of_a_benchmark_is_contamination() -> None:
    text = "Natalia sold clips to 48 of her friends in April and then half as many in May"
    history = [Turn(role="user", content=text), Turn(role="assistant", content="72")]
    found = separate([Question(**QUESTION, history=history)], [], [index_questions("gsm8k", [text], 8)])
    assert [row.reason for _, row in found if isinstance(row, LeftOut)] == ["contaminated"]


# --- distill


def test_the_teacher_gets_the_earlier_turns_and_the_rows_system_text(runner: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion()

    server = serve(route)
    runner.use(server)
    full = QUESTION | {"history": HISTORY, "system": "Be brief."}
    runner.ask(QUESTION, full | {"id": "q1"})
    runner.run()
    asked = sorted((body["messages"] for body in server.bodies), key=len)
    last = {"role": "user", "content": prompted("And 3 more?")}
    assert asked == [[last], [{"role": "system", "content": "Be brief."}, *HISTORY, last]]
    alone, whole = runner.distilled()
    assert not alone.keys() & {"history", "system"}
    assert (whole["history"], whole["system"]) == (HISTORY, "Be brief.")
    runner.run()
    assert len(server.bodies) == 2, "an answer was bought twice"


def test_the_key_of_a_question_alone_is_the_one_that_it_always_had(tmp_path: Path) -> None:
    params = load_params(ROOT / "profiles" / "article.yaml").distill
    texts = ["What is 2 + 3?", "小明有 {3} 个苹果？"]
    plain = [{"id": f"q{place}", "question": text, "answer": "5"} for place, text in enumerate(texts)]
    own = [plain[0] | {"id": name} | more for name, more in MORE.items()]
    calls = PlannedCalls(write_lines(tmp_path / "q.jsonl", plain + own), params, identity_of(params.teacher))
    keys = [request_key(request) for _, _, request in calls]
    assert keys[:2] == [
        "33ab2000fdee5083f3af24d4cbf06436032828cc1bf5730a8dad21df646c7f70",
        "c7e3db24f91213b7a7ae5eb08e3151e4f17381d1d0124f01e894fbc9c2105a8e",
    ]
    assert len(set(keys)) == len(keys), "two questions in other conversations share an answer"


MORE: dict[str, dict[str, Any]] = {
    "history": {"history": HISTORY},
    "another history": {"history": [HISTORY[0], {"role": "assistant", "content": "6"}]},
    "system": {"system": "Be brief."},
    "both": {"history": HISTORY, "system": "Be brief."},
}


def test_the_untrained_student_and_a_judge_get_the_earlier_turns() -> None:
    full = Question.model_validate(QUESTION | {"history": HISTORY, "system": "Be brief."})
    calls = Calls({"model": "student"}, "Think.", system_in_user_turn=False, samples=1)
    last = {"role": "user", "content": "And 3 more?"}
    assert calls.of(full)[0]["messages"] == [{"role": "system", "content": "Be brief."}, *HISTORY, last]
    alone = [{"role": "system", "content": "Think."}, last]
    assert calls.of(Question(**QUESTION)) == [{"model": "student", "messages": alone, "sample": 0}]
    assert full.transcript == "System: Be brief.\n\nUser: What is 2 + 3?\n\nAssistant: 5\n\nUser: And 3 more?"
    assert Question(**QUESTION).transcript == "And 3 more?"


# --- convert


@pytest.fixture
def converted(tmp_path: Path, tiny_params: Params, runs: Runs) -> Callable[..., Path]:
    def run(*rows: Distilled, **changes: Any) -> Path:
        write_rows(tmp_path / "rows.jsonl", rows)
        paths = ["--rows", tmp_path / "rows.jsonl", "--out", tmp_path / "sums", "--metrics", tmp_path / "convert.json"]
        paths += ["--lengths", tmp_path / "lengths.csv"]
        runs(convert, *paths, "--params", tiny_params(changes))
        return tmp_path / "sums"

    return run


def in_conversation(**more: Any) -> Distilled:
    return distilled(**{"history": HISTORY, "system": "Be brief."} | more)


def test_all_turns_and_the_rows_own_system_text_are_in_the_dataset(converted: Callable[..., Path]) -> None:
    folder = converted(distilled(), in_conversation(id="q1"))
    alone, whole = json.loads((folder / "sums.json").read_bytes())
    assert alone["system"] == prompt_text("brief")
    assert whole["system"] == "Be brief."
    speakers = [turn["from"] for turn in whole["conversations"]]
    assert speakers == ["user", "assistant", "user", "assistant"]
    assert [turn["value"] for turn in whole["conversations"][:3]] == ["What is 2 + 3?", "5", "And 3 more?"]
    assert whole["conversations"][3] == alone["conversations"][1]
    (first, second) = ShareGpt(folder)
    assert (first.history, second.history) == ((), (("What is 2 + 3?", "5"),))
    assert second.messages()[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"history": [HISTORY[0], {"role": "assistant", "content": "<answer>5</answer>"}]}, "marker_in_text"),
        ({"history": [{"role": "user", "content": "What is <think>?"}, HISTORY[1]]}, "marker_in_text"),
        ({"history": [HISTORY[0], {"role": "assistant", "content": "5<|im_end|>"}]}, "control_token"),
        ({"system": "Be brief.<|im_end|>"}, "control_token"),
    ],
)
def test_earlier_turns_and_system_texts_are_checked_like_the_question(
    converted: Callable[..., Path], more: dict[str, Any], reason: str
) -> None:
    folder = converted(distilled(), in_conversation(id="q1", **more))
    (dropped,) = read_rows(folder / "dropped.jsonl", Dropped, "")
    assert (dropped.id, dropped.reason) == ("q1", reason)
    assert dropped.history == in_conversation(**more).history


def test_the_length_of_a_conversation_is_that_of_all_its_turns(tmp_path: Path, converted: Callable[..., Path]) -> None:
    lengths = []
    for row in (distilled(), in_conversation()):
        converted(row)
        lengths.append(json.loads((tmp_path / "convert.json").read_bytes())["tokens"]["sum"])
    assert lengths[1] != lengths[0]
    converted(distilled(), in_conversation(id="q1"))
    assert json.loads((tmp_path / "convert.json").read_bytes())["tokens"]["sum"] == sum(lengths)


# --- the labels of TRL's training

SINGLE = Conversation("", "What is 2 + 3?", "<think>\n\n2 and 3.</think>\n\n<answer>\n\n5</answer>")
SEVERAL = Conversation(
    "Be brief.",
    "Goodbye",
    "<think>\n\nPolite.</think>\n\n<answer>\n\nGoodbye!</answer>",
    (("What is up?", "Hello! How can I help you today?"), ("Who are you?", "You can call me Vicuna.")),
)
# Olmo 3: the end token of the last answer is another one than that of earlier answers
LAST_ENDS_OTHERWISE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content }}"
    "{%- if m.role == 'assistant' and loop.last %}{{- '<|endoftext|>' }}{%- else %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


@pytest.fixture
def job(tiny_params: Params, tiny_student: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(rows: list[Conversation], loss_on: str = "every", student: Path = tiny_student, **changes: Any) -> Job:
        params = load_params(tiny_params({"train.loss_on": loss_on} | changes))
        arm = params.arms["filtered"]
        out, markers = tmp_path / "m", params.convert.markers
        return Job("filtered", rows, student, params.train, arm, params.run, markers, out, rows=tmp_path)

    return make


def trained_texts(tokenizer: Any, ids: list[int], labels: list[int]) -> list[str]:
    """The texts with a loss, one for each run of tokens."""
    texts: list[list[int]] = []
    before = NO_LOSS
    for token, label in zip(ids, labels, strict=True):
        assert label in (NO_LOSS, token)
        if label != NO_LOSS:
            if before == NO_LOSS:
                texts.append([])
            texts[-1].append(token)
        before = label
    return [tokenizer.decode(each) for each in texts]


@pytest.mark.parametrize("system_prompt", ["as_system", "in_user_turn"])
@pytest.mark.parametrize("kind", OTHERS)
def test_the_loss_is_on_every_answer_or_on_the_last(
    tiny_student: Path, job: Callable[..., Job], kind: str, system_prompt: SystemPrompt
) -> None:
    tokenizer = tokenizer_with(tiny_student, KINDS[kind])
    templates.align(tokenizer, THINK, system_prompt, with_system=True, with_history=True)
    (every,) = tokens_of(job([SEVERAL]), [SEVERAL], tokenizer)
    (last,) = tokens_of(job([SEVERAL], "last"), [SEVERAL], tokenizer)
    assert every.ids == last.ids
    texts = trained_texts(tokenizer, every.ids, every.labels)
    assert len(texts) == 3
    for text, answer in zip(texts, SEVERAL.answers, strict=True):
        assert text.lstrip().startswith(answer)
        assert text.lstrip()[len(answer) :].strip() == "<|im_end|>"
    assert trained_texts(tokenizer, last.ids, last.labels) == texts[-1:]
    turns = SEVERAL.messages()
    for place, (begin, _) in zip((2, 4, 6), every.trained, strict=True):
        assert templates.prompt_ids(tokenizer, [turns[:place]]) == [every.ids[:begin]], "not the prompt of evaluation"
    assert "think>" not in tokenizer.decode(every.ids[: every.trained[-1][0]])


@pytest.mark.parametrize("kind", OTHERS)
def test_of_one_turn_both_have_the_same_labels(tiny_student: Path, job: Callable[..., Job], kind: str) -> None:
    rows = [SINGLE, replace(SINGLE, system="Be brief.")]
    tokenizer = tokenizer_with(tiny_student, KINDS[kind])
    templates.align(tokenizer, THINK, "as_system", with_system=True)
    every, last = (tokens_of(job(rows, loss_on), rows, tokenizer) for loss_on in ("every", "last"))
    assert every == last


def test_one_turn_has_the_labels_of_trls_own_prompt_and_completion(
    tiny_student: Path, job: Callable[..., Job], tmp_path: Path
) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [SINGLE, replace(SINGLE, system="Be brief.", user="小明有 3 个苹果，又买了 2 个？")]
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    pairs = [{"prompt": row.messages()[:-1], "completion": row.messages()[-1:]} for row in rows]
    theirs = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_student),
        args=SFTConfig(output_dir=str(tmp_path), completion_only_loss=True, max_length=None, use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    ).train_dataset
    ours = tokens_of(job(rows), rows, tokenizer)
    assert [row.ids for row in ours] == list(theirs["input_ids"])
    assert [row.labels for row in ours] == list(theirs["labels"])


def test_an_end_that_only_the_last_answer_has_is_refused_and_trained_with_last(
    tiny_student: Path, job: Callable[..., Job]
) -> None:
    tokenizer = tokenizer_with(tiny_student, LAST_ENDS_OTHERWISE)
    tokenizer.eos_token = "<|endoftext|>"
    for loss_on in ("last", "every"):
        (row,) = tokens_of(job([SEVERAL], loss_on), [SEVERAL], tokenizer)
        found, answers = Ends(1, 0, row.labels.count(tokenizer.eos_token_id)), len(SEVERAL.answers)
        if loss_on == "last":
            check_end_is_trained(job([SEVERAL], loss_on), found, answers, tokenizer)
            continue
        with pytest.raises(TrainingError, match=r"after each earlier answer.* Set train\.loss_on: last"):
            check_end_is_trained(job([SEVERAL], loss_on), found, answers, tokenizer)


def test_a_template_that_adds_an_empty_thought_to_a_last_answer_is_replaced_where_there_are_earlier_ones(
    tiny_student: Path, job: Callable[..., Job]
) -> None:
    """As Qwen3's does. The end of an earlier answer cannot be found from the conversation up to it."""
    template = (
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
        "{%- if m.role == 'assistant' and loop.last and '<think>' not in m.content %}"
        "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )
    tokenizer = tokenizer_with(tiny_student, template)
    assert not templates.align(tokenizer, THINK, "as_system", with_system=True)
    assert templates.align(tokenizer, THINK, "as_system", with_system=True, with_history=True)
    (row,) = tokens_of(job([SEVERAL]), [SEVERAL], tokenizer)
    texts = trained_texts(tokenizer, row.ids, row.labels)
    assert texts == [f"{answer}<|im_end|>\n" for answer in SEVERAL.answers]


def test_a_training_on_every_answer_has_more_trained_tokens(
    tmp_path: Path, converted: Callable[..., Path], tiny_params: Params, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = converted(distilled(), in_conversation(id="q1"))
    found = {}
    for loss_on in ("every", "last"):
        out = tmp_path / loss_on
        paths = {"model": out, "left-out": f"{out}.l.jsonl", "metrics": f"{out}.json", "loss": f"{out}.csv"}
        words = [word for name, path in paths.items() for word in (f"--{name}", path)]
        params = tiny_params({"train.loss_on": loss_on, "arms.filtered.max_steps": 1})
        runs(train, "--arm", "filtered", "--dataset", folder, *words, "--params", params)
        found[loss_on] = json.loads(Path(f"{out}.json").read_bytes())
    every, last = found["every"], found["last"]
    assert (every["rows"], every["tokens_seen"]) == (last["rows"], last["tokens_seen"])
    answer = len("5") + len(["<|im_end|>", "\n"])
    assert every["tokens_trained"] - last["tokens_trained"] == answer
    assert every["first_loss"] != last["first_loss"]


# --- the length


@dataclass(frozen=True)
class Letters:
    """A conversation measured in letters."""

    conversation: Conversation

    @property
    def tokens(self) -> int:
        return sum(len(turn["content"]) for turn in self.conversation.messages())

    answer_tokens = tokens

    def fits(self, cutoff_len: int) -> bool:
        return self.tokens <= cutoff_len


def test_the_last_answers_reasoning_is_shortened_and_no_turn_is_lost(job: Callable[..., Job]) -> None:
    thought = " ".join(f"Step {number}." for number in range(20))
    row = replace(SEVERAL, assistant=f"<think>\n\n{thought}</think>\n\n<answer>\n\nGoodbye!</answer>")
    changes = {"train.on_too_long": "shorten_reasoning", "arms.filtered.cutoff_len": Letters(row).tokens - 50}
    found = fitting_rows(job([row], **changes), lambda rows: [Letters(each) for each in rows])
    (shorter,) = found.conversations
    assert found.shortened == 1
    assert (shorter.history, shorter.user, shorter.system) == (row.history, row.user, row.system)
    assert shorter.assistant.startswith("<think>\n\nStep 0. Step 1.")
    assert shorter.assistant.endswith("</think>\n\n<answer>\n\nGoodbye!</answer>")


def test_a_conversation_whose_earlier_turns_are_too_long_is_left_out_whole(job: Callable[..., Job]) -> None:
    long = replace(SEVERAL, history=(("so " * 500, "Yes."), *SEVERAL.history))
    rows, changes = [long, SINGLE], {"train.on_too_long": "shorten_reasoning", "arms.filtered.cutoff_len": 400}
    found = fitting_rows(job(rows, **changes), lambda rows: [Letters(each) for each in rows])
    (left_out,) = found.left_out
    assert (left_out.reason, left_out.history, left_out.user) == ("cannot_be_shortened", list(long.history), "Goodbye")
    assert TooLong.model_validate_json(left_out.model_dump_json()) == left_out
    alone = TooLong(id="a/0", reason="too_long", tokens=9, cutoff_len=8, system="", user="q", assistant="a")
    assert "history" not in alone.model_dump_json()


# --- openMind


@pytest.mark.parametrize("system_prompt", ["as_system", "in_user_turn"])
def test_openmind_reads_the_earlier_turns_as_the_tokens_of_its_template(
    older_student: Path, system_prompt: SystemPrompt
) -> None:
    """Its template writes the user's turn as it is, so the tokens between two turns can be part of it."""
    tokenizer = tokenizer_with(older_student, openmind_template(system_prompt))
    written = sample(SEVERAL, system_prompt)
    question, answer = (turn["value"] for turn in written["conversations"])
    assert answer == SEVERAL.assistant
    system = written.get("system", "You are a helpful assistant.")
    theirs = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert theirs == templates.rendered(tokenizer, SEVERAL.messages()[:-1], opened=True)


def test_openmind_is_refused_for_a_loss_on_every_answer_before_anything_starts(job: Callable[..., Job]) -> None:
    changes = {"train.trainer.kind": "openmind", "train.system_prompt": "in_user_turn"}
    check_loss_on(job([SEVERAL], "last", **changes))
    check_loss_on(job([SINGLE], "every", **changes))
    with pytest.raises(TrainingError, match=r"1 conversations .* have several turns.* Set it to last") as found:
        check_loss_on(job([SEVERAL, SINGLE], "every", **changes))
    assert "\n" not in str(found.value)


def test_openmind_counts_all_turns_as_the_prompt(older_student: Path, job: Callable[..., Job]) -> None:
    tokenizer = tokenizer_with(older_student, openmind_template("in_user_turn"))
    changes = {"train.trainer.kind": "openmind", "train.system_prompt": "in_user_turn"}
    row = measured_rows(job([SEVERAL], "last", older_student, **changes), tokenizer)
    assert row.rows == 1
    assert row.answer_tokens == len(tokenizer(SEVERAL.assistant)["input_ids"]) + 1
    assert row.tokens == len(tokenizer(templates.rendered(tokenizer, SEVERAL.messages()))["input_ids"]) - 1  # "\n"


# --- evaluate


@pytest.mark.heavy
def test_a_heldout_question_is_asked_in_its_conversation(
    tmp_path: Path, tiny_params: Params, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    full = QUESTION | {"id": "q1", "history": HISTORY, "system": "Be brief."}
    rows = [Question.model_validate(row) for row in (QUESTION, full, QUESTION | {"id": "q2", "history": HISTORY})]
    write_rows(tmp_path / "heldout.jsonl", rows)
    outputs = {"metrics": "m.json", "scores": "s.csv", "answers": "a.jsonl", "examples": "e.jsonl"}
    words = [word for name, file in outputs.items() for word in (f"--{name}", tmp_path / file)]
    params = tiny_params({"evaluate.max_gen_toks": 4})
    runs(evaluate, "--arm", "base", "--heldout", tmp_path / "heldout.jsonl", *words, "--params", params)
    answers = list(read_rows(tmp_path / "a.jsonl", Evaluated, ""))

    def said(role: str, text: str) -> str:
        return f"<|im_start|>{role}\n{text}<|im_end|>\n"

    brief, last = said("system", prompt_text("brief")), said("user", "And 3 more?") + "<|im_start|>assistant\n"
    earlier = said("user", "What is 2 + 3?") + said("assistant", "5")
    assert [row.prompt for row in answers] == [
        brief + last,
        said("system", "Be brief.") + earlier + last,
        brief + earlier + last,
    ]
    assert [bool(row.history) for row in answers] == [False, True, True]
    assert '"history"' not in (tmp_path / "a.jsonl").read_text().splitlines()[0]
