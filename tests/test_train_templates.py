"""What is trained is what is asked: chat templates of all kinds, from convert over the training to lm-eval's prompt."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.convert import Dropped
from stages.convert import main as convert
from stages.evaluate import main as evaluate
from stages.lib import chat_template as templates
from stages.lib.params import Markers, SystemPrompt, prompt_text
from stages.lib.rows import read_rows, write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question
from stages.lib.students import StudentError
from tests.chat_templates import KINDS, NO_SYSTEM, PUBLISHED
from tests.test_train_saving import error_of, trained

THINK = Markers(
    begin_of_thought="<think>", end_of_thought="</think>", begin_of_solution="<answer>", end_of_solution="</answer>"
)
ARTICLE = Markers(
    begin_of_thought="<|begin_of_thought|>",
    end_of_thought="<|end_of_thought|>",
    begin_of_solution="<|begin_of_solution|>",
    end_of_solution="<|end_of_solution|>",
)
SYSTEM = "Think first."
OTHERS = [name for name in KINDS if name not in NO_SYSTEM]


def student_with(tiny_student: Path, folder: Path, template: str) -> Path:
    """The tiny student with another chat template, and a token that begins a text."""
    shutil.copytree(tiny_student, folder)
    (folder / "chat_template.jinja").write_text(template)
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|endoftext|>"}))
    return folder


def tokenizer_with(tiny_student: Path, template: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    return tokenizer


def row_of(markers: Markers, number: int = 2) -> list[dict[str, str]]:
    thought = f"{markers.begin_of_thought}\n\n{number} + 5{markers.end_of_thought}"
    answer = f"{thought}\n\n{markers.begin_of_solution}\n\n{number + 5}{markers.end_of_solution}"
    texts = {"system": SYSTEM, "user": f"What is {number} + 5?", "assistant": answer}
    return [{"role": role, "content": text} for role, text in texts.items()]


# --- the template


@pytest.mark.parametrize("markers", [THINK, ARTICLE], ids=["think", "article"])
@pytest.mark.parametrize("system_prompt", ["as_system", "in_user_turn"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_prompt_of_evaluation_the_answer_and_an_end(
    tiny_student: Path, kind: str, system_prompt: SystemPrompt, markers: Markers
) -> None:
    tokenizer = tokenizer_with(tiny_student, KINDS[kind])
    if kind in NO_SYSTEM and system_prompt == "as_system":
        with pytest.raises(StudentError, match=r"no place for a system text .* train\.system_prompt: in_user_t"):
            templates.align(tokenizer, markers, system_prompt, with_system=True)
        return
    templates.align(tokenizer, markers, system_prompt, with_system=True)
    row = row_of(markers)
    (prompt,) = templates.prompt_ids(tokenizer, [row[:2]])
    (ids,) = templates.row_ids(tokenizer, [row])
    assert ids[: len(prompt)] == prompt
    rest = tokenizer.decode(ids[len(prompt) :])
    assert rest.lstrip().startswith(row[2]["content"] + "<|im_end|>")
    asked = tokenizer.decode(prompt)
    assert asked.count(SYSTEM) == asked.count(row[1]["content"]) == 1
    assert "think>" not in asked or kind in PUBLISHED or markers == ARTICLE
    assert not asked.endswith(("<think>\n", "<think>"))
    if system_prompt == "in_user_turn":
        assert f"{SYSTEM}\n\n{row[1]['content']}" in asked


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_template_that_agrees_with_itself_is_kept(tiny_student: Path, kind: str) -> None:
    tokenizer = tokenizer_with(tiny_student, KINDS[kind])
    assert not templates.align(tokenizer, THINK, "as_system", with_system=True)
    assert tokenizer.chat_template == KINDS[kind]


@pytest.mark.parametrize("system_prompt", ["as_system", "in_user_turn"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_template_that_was_made_is_the_same_in_a_second_round(
    tiny_student: Path, kind: str, system_prompt: SystemPrompt
) -> None:
    tokenizer = tokenizer_with(tiny_student, KINDS[kind])
    templates.align(tokenizer, THINK, system_prompt, with_system=True)
    first = tokenizer.chat_template
    templates.align(tokenizer, THINK, system_prompt, with_system=True)
    assert tokenizer.chat_template == first


@pytest.mark.parametrize("kind", OTHERS)
def test_several_turns_follow_one_another_as_the_student_knows_them(tiny_student: Path, kind: str) -> None:
    first, second = row_of(ARTICLE), row_of(ARTICLE, 3)[1:]
    tokenizer = tokenizer_with(tiny_student, KINDS[kind])
    templates.align(tokenizer, ARTICLE, "as_system", with_system=True)
    text = templates.rendered(tokenizer, [*first, *second[:1]], opened=True)
    (one,) = (templates.rendered(tokenizer, first[:2], opened=True),)
    assert text.startswith(one)
    assert text.index(first[2]["content"]) < text.index(second[0]["content"])
    assert text.count("<|im_end|>") >= 1
    closed = templates.rendered(tokenizer, [*first, *second])
    assert closed.startswith(text)


def test_todays_date_is_no_part_of_a_prompt(tiny_student: Path) -> None:
    from datetime import datetime

    tokenizer = tokenizer_with(tiny_student, KINDS["the day of the call (Llama 3.2)"])
    today = datetime.now().strftime("%d %b %Y")
    assert today in templates.rendered(tokenizer, row_of(THINK)[:2])
    templates.align(tokenizer, THINK, "as_system", with_system=True)
    assert today not in templates.rendered(tokenizer, row_of(THINK)[:2])


def test_texts_with_quotes_braces_and_other_scripts_come_out_as_they_are(tiny_student: Path) -> None:
    template = KINDS["no system role (Gemma)"].replace("\\n", '“{先}\\\\" {% \\n')
    tokenizer = tokenizer_with(tiny_student, template)
    before = templates.rendered(tokenizer, row_of(ARTICLE)[1:])
    templates.align(tokenizer, ARTICLE, "in_user_turn", with_system=True)
    assert templates.rendered(tokenizer, row_of(ARTICLE)[1:]) == before


# --- what the student takes for a token


@pytest.mark.parametrize("field", ["question", "reasoning", "response"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
def test_a_row_with_a_literal_control_token_is_dropped_and_counted(
    tmp_path: Path, distilled_file: Callable[..., Path], tiny_params: Callable[..., Path], field: str, token: str
) -> None:
    rows = distilled_file({}, {field: f"What does {token} mean?"}, {field: "What does < |im_end| > mean?"})
    result = convert_with(tmp_path, rows, tiny_params())
    assert result.exit_code == 0, result.output
    (dropped,) = read_rows(tmp_path / "rows" / "dropped.jsonl", Dropped, "")
    assert (dropped.id, dropped.reason) == ("q1", "control_token")
    metrics = json.loads((tmp_path / "c.json").read_bytes())
    assert (metrics["in"], metrics["rows"], metrics["dropped"]["control_token"]) == (3, 2, 1)


def convert_with(tmp_path: Path, rows: Path, params: Path) -> Result:
    options = [
        "--rows",
        rows,
        "--out",
        tmp_path / "rows",
        "--metrics",
        tmp_path / "c.json",
        "--lengths",
        tmp_path / "c.csv",
        "--params",
        params,
    ]
    return CliRunner().invoke(convert, [str(option) for option in options])


def test_added_tokens_of_the_template_are_control_and_markers_are_not(tiny_student: Path) -> None:
    from tokenizers import AddedToken

    tokenizer = tokenizer_with(tiny_student, KINDS["the thought taken out of an answer (R1-Distill)"])
    plain = ["<|assistant|>", "<think>", "</think>", "<tool>", "\n\n"]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    found = templates.control_tokens(tokenizer, THINK)
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|assistant|>"} == set(found)
    assert "<think>" in templates.control_tokens(tokenizer, ARTICLE), "the template writes it"


# --- the stages


@pytest.mark.parametrize("kind", NO_SYSTEM)
def test_a_student_without_a_system_role_is_told_in_one_line_by_each_stage(
    tmp_path: Path,
    tiny_student: Path,
    tiny_params: Callable[..., Path],
    distilled_file: Callable[..., Path],
    refuses: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    student = student_with(tiny_student, tmp_path / "student", KINDS[kind])
    params = tiny_params({"train.student.name": str(student)})
    line = (convert_with(tmp_path, distilled_file({}), params)).stderr
    assert line.startswith(f"Error: {student}: its chat template has no place for a system text (")
    assert len(line.splitlines()) == 1
    assert "no place for a system text" in error_of(trained(tmp_path, student), tmp_path)
    line = refuses(evaluate, *evaluation(tmp_path, params))
    assert "no place for a system text" in line
    assert "evaluate.base_prompt: plain" in line


def evaluation(tmp_path: Path, params: Path, *model: object, arm: str = "base") -> list[object]:
    heldout = tmp_path / "heldout.jsonl"
    write_rows(heldout, [Question(id=f"sum-{n}", question=f"What is {n} + 5?", answer=str(n + 5)) for n in range(2)])
    outputs = {"metrics": "json", "scores": "csv", "answers": "jsonl", "examples": "ex.jsonl"}
    paths = [word for name, end in outputs.items() for word in (f"--{name}", tmp_path / f"eval-{arm}.{end}")]
    return ["--arm", arm, *model, "--heldout", heldout, *paths, "--params", params]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "system_prompt"),
    [
        ("an empty thought before an answer (Qwen3)", "as_system"),
        ("a thought opened in the prompt (Qwen3.5)", "as_system"),
        ("the thought taken out of an answer (R1-Distill)", "as_system"),
        ("the thought taken out of an answer (R1-Distill)", "in_user_turn"),
        ("the system text in the last question (Mistral v0.3)", "as_system"),
        ("no system role (Gemma)", "in_user_turn"),
        ("the system text left out in silence (Phi-3)", "in_user_turn"),
    ],
)
def test_lm_eval_asks_the_tokens_that_were_trained(
    tmp_path: Path,
    tiny_student: Path,
    runs: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    system_prompt: str,
) -> None:
    """What lm-eval gives to the model is seen where it tokenizes; what was trained, where TRL does."""
    from lm_eval.models.huggingface import HFLM
    from trl import SFTTrainer

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    seen: dict[str, list[list[int]]] = {"trained": [], "asked": []}
    train, encode = SFTTrainer.train, HFLM.tok_batch_encode

    def watched_train(trainer: Any, *arguments: Any, **others: Any) -> Any:
        seen["trained"] += [list(row["input_ids"]) for row in trainer.train_dataset]
        return train(trainer, *arguments, **others)

    def watched_encode(model: Any, strings: list[str], *arguments: Any, **others: Any) -> Any:
        ids, mask = encode(model, strings, *arguments, **others)
        seen["asked"] += [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
        return ids, mask

    monkeypatch.setattr(SFTTrainer, "train", watched_train)
    monkeypatch.setattr(HFLM, "tok_batch_encode", watched_encode)
    student = student_with(tiny_student, tmp_path / "student", KINDS[kind])
    changes: dict[str, Any] = {"train.system_prompt": system_prompt, "evaluate.max_gen_toks": 4}
    with_system(tmp_path)
    result = trained(tmp_path, student, changes)
    assert result.exit_code == 0, result.output
    params = tmp_path / "params.yaml"
    runs(evaluate, *evaluation(tmp_path, params, "--model", tmp_path / "model", arm="filtered"))
    assert len(seen["asked"]) == 2
    for asked in seen["asked"]:
        assert any(row[: len(asked)] == asked for row in seen["trained"])
    for row in read_rows(tmp_path / "eval-filtered.jsonl", Evaluated, ""):
        assert row.prompt.count(prompt_text("brief").strip()) == 1
    seen["asked"].clear()
    runs(evaluate, *evaluation(tmp_path, params))
    for row in read_rows(tmp_path / "eval-base.jsonl", Evaluated, ""):
        assert row.prompt.count(prompt_text("brief").strip()) == 1, "the base arm lost its system text"


def with_system(folder: Path) -> None:
    """The dataset that ``trained`` takes, with the system text that evaluation asks with."""
    from tests.test_train_saving import write_sums

    path = write_sums(folder / "sums") / "sums.json"
    samples = json.loads(path.read_bytes())
    path.write_text(json.dumps([sample | {"system": prompt_text("brief")} for sample in samples]))
