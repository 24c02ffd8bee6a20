"""Benchmarks as lm-eval task configurations.

``heldout`` is ours: the questions that ``collect`` held out, answered freely, scored by ``rule_verdict``.
"""

from pathlib import Path
from typing import Any

from stages.lib.answers import rule_verdict
from stages.lib.params import Evaluate

END_OF_TURN = ["<|im_end|>"]


def heldout_task(questions: Path, params: Evaluate) -> dict[str, Any]:
    """The held-out questions as a generation task; metric ``acc`` is 1 where the final answer is right."""
    return {
        "task": "heldout",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(questions)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "process_results": score,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": END_OF_TURN, "max_gen_toks": params.max_gen_toks, "do_sample": False},
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
    }


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """lm-eval's hook: one question and the texts generated for it."""
    verdict = rule_verdict(doc["question"], results[0], doc["answer"])
    return {"acc": float(verdict.verdict == "right")}
