"""An arm to be served: its weights, its dtype and context, the system text, and ``hf``'s answers to held-out questions.

arm_of("filtered", params)      → Arm(name="filtered", folder=Path("models/filtered"), …)
answers_of(arm, params, 3)      → the first three of data/eval/filtered.jsonl, or three that hf generates now
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stages.lib.chat_template import in_user_turn
from stages.lib.evaluation.backends import positions
from stages.lib.params import Params, ParamsError, prompt_text
from stages.lib.rows import read_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question
from stages.lib.serving import ServingError
from stages.lib.students import student_folder

log = logging.getLogger("distillery.serve")

ANSWERS = Path("data/eval")
HELDOUT = Path("data/heldout.jsonl")
BENCHMARKS = ("heldout", "preference")  # those whose questions are one chat message each
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Arm:
    """What a server needs of an arm. ``context`` is the longest prompt and answer, in tokens."""

    name: str
    folder: Path
    dtype: str
    context: int
    max_tokens: int
    system: str | None
    system_in_user_turn: bool


@dataclass(frozen=True)
class Expected:
    """A question as messages, with ``hf``'s answer and the text of its prompt, as the chat template writes it."""

    id: str
    messages: Messages
    prompt: str
    response: str


def arm_of(name: str, params: Params) -> Arm:
    """The arm, or the untrained student for ``base``; an error where it is not trained."""
    if name != "base" and name not in params.trained_arms:
        raise ParamsError(f"params.yaml: arms: no arm '{name}'. Known: base, {', '.join(params.trained_arms)}.")
    folder = student_folder(params.train.student) if name == "base" else Path("models") / name
    if not (folder / "config.json").is_file():
        raise ServingError(f"{folder}: no trained model there. Run 'make train ARM={name}'.")
    limits = [arm.cutoff_len for key, arm in params.trained_arms.items() if name in ("base", key)]
    room = max(limits) + params.evaluate.max_gen_toks
    is_plain = name == "base" and params.evaluate.base_prompt == "plain"
    return Arm(
        name=name,
        folder=folder,
        dtype=params.evaluate.backend.dtype,
        context=min(room, positions(folder) or room),
        max_tokens=params.evaluate.max_gen_toks,
        system=None if is_plain else prompt_text(params.convert.system_prompt),
        system_in_user_turn=name == "base" and params.train.system_prompt == "in_user_turn",
    )


def answers_of(arm: Arm, params: Params, count: int) -> list[Expected]:
    """``hf``'s answers to the first held-out questions: those of the last evaluation, or else generated now."""
    path = ANSWERS / f"{arm.name}.jsonl"
    if path.exists():
        rows = read_rows(path, Evaluated, "Run 'make evaluate' to rebuild it.")
        found = list(islice((row for row in rows if row.benchmark in BENCHMARKS), count))
        if found:
            log.info("serve: %s: hf's answers are those of %s", arm.name, path)
            return [Expected(row.id, messages_of(arm, row), row.prompt, row.response) for row in found]
    questions = list(islice(read_rows(HELDOUT, Question, "Run 'dvc repro collect' to rebuild it."), count))
    log.info("serve: %s: no evaluated answers in %s; hf generates %d", arm.name, path, len(questions))
    return list(generated(arm, questions, params))


def messages_of(arm: Arm, row: Evaluated | Question) -> Messages:
    """The messages of a question, as the evaluation asked it."""
    system = row.system or arm.system
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": turn.role, "content": turn.content} for turn in row.history or ()]
    turns.append({"role": "user", "content": row.question})
    return in_user_turn(turns) if arm.system_in_user_turn else turns


def generated(arm: Arm, questions: list[Question], params: Params) -> Iterator[Expected]:
    """Greedy answers of the weights, loaded by transformers on ``run.device``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.lib.runtime.devices import check_device, with_index

    check_device(params.run.device)
    torch.set_num_threads(params.run.threads)
    tokenizer = AutoTokenizer.from_pretrained(arm.folder)
    model: Any = AutoModelForCausalLM.from_pretrained(arm.folder, dtype=arm.dtype).to(with_index(params.run.device))
    for question in questions:
        messages = messages_of(arm, question)
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=arm.max_tokens)
        answer = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        yield Expected(question.id, messages, prompt, answer)


def prompt_tokens(arm: Arm, prompt: str) -> int | None:
    """The tokens of a prompt; None without a tokenizer.json."""
    from tokenizers import Tokenizer

    file = arm.folder / "tokenizer.json"
    return len(Tokenizer.from_file(str(file)).encode(prompt, add_special_tokens=False).ids) if file.is_file() else None


def saved_dtype(folder: Path) -> str:
    """The dtype of a model's weights, from its config."""
    config = json.loads((folder / "config.json").read_bytes())
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")
