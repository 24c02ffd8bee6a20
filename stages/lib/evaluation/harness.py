"""lm-eval itself, run on one student: its ``hf`` model, its chat templating, its samples and their hashes."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.devices import check_device
from stages.lib.params import Evaluate, Run

log = logging.getLogger("distillery.evaluate")


@dataclass(frozen=True)
class Generation:
    """One answer of the student, with the hashes by which lm-eval names question, prompt and target."""

    doc: dict[str, Any]
    prompt: str
    response: str
    tokens: int
    acc: float
    doc_hash: str
    prompt_hash: str
    target_hash: str


@dataclass(frozen=True)
class TaskResult:
    """lm-eval's own score of a task, and every sample behind it, in the order of the questions."""

    acc: float
    stderr: float | None
    generations: list[Generation]


def evaluate(
    model: Path, tasks: list[dict[str, Any]], system: str | None, params: Evaluate, run: Run
) -> dict[str, TaskResult]:
    """Run the tasks on the student in ``model`` with the chat template saved beside it."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    check_device(run.device)
    torch.set_num_threads(run.threads)
    student = HFLM(
        pretrained=str(model.resolve()),  # a relative path could be a hub id: lm-eval would ask the hub for it
        dtype=params.dtype,
        device=run.device,
        batch_size=params.batch_size,
    )
    results: dict[str, Any] = simple_evaluate(
        model=student,
        tasks=tasks,
        task_manager=TaskManager(include_defaults=False),  # indexing its thousands of tasks takes most of a minute
        limit=params.limit,
        system_instruction=system,
        apply_chat_template=True,
        random_seed=params.seed,
        numpy_random_seed=params.seed,
        torch_random_seed=params.seed,
        fewshot_random_seed=params.seed,
    )
    return {name: _task_result(name, results, student.tokenizer) for name in sorted(results["samples"])}


def _task_result(name: str, results: dict[str, Any], tokenizer: Any) -> TaskResult:
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    stderr = results["results"][name].get("acc_stderr,none")
    return TaskResult(
        acc=float(results["results"][name]["acc,none"]),
        stderr=stderr if isinstance(stderr, float) else None,  # lm-eval says "N/A" where it has none
        generations=[_generation(sample, tokenizer) for sample in samples],
    )


def _generation(sample: dict[str, Any], tokenizer: Any) -> Generation:
    response = sample["filtered_resps"][0]
    prompt = sample["arguments"][0][0]
    return Generation(
        doc=sample["doc"],
        prompt=prompt,
        response=response,
        tokens=len(tokenizer(response, add_special_tokens=False)["input_ids"]),
        acc=float(sample["acc"]),
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
    )
