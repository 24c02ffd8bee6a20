"""Benchmarks as tasks of lm-eval: their names, their folder in the installed lm-eval, and their data.

    chosen("gsm8k", heldout)                → Benchmark("gsm8k", ["gsm8k"], "gsm8k", "openai/gsm8k")
    chosen("lm-eval:arc_easy", heldout)     → Benchmark("lm-eval:arc_easy", ["arc_easy"], None, None)

The article's names are lists of unmodified tasks, one for each of the 11 languages of MGSM. (lm-eval's tag
``mgsm_cot_native`` also contains the 11 tasks with English reasoning, and ``mgsm_direct`` a Spanish copy.) ``heldout``
is ours: the questions that ``collect`` held out, with free-form answers, scored by ``rule_verdict``. ``preference`` is
the same without a score: the stage ``prefer`` has a judge compare the answers of two arms.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.lib.answers import rule_verdict
from stages.lib.evaluation import EvaluationError
from stages.lib.files.shards import parts_of
from stages.lib.params import HELDOUT, LM_EVAL, PREFERENCE
from stages.lib.rows.question import Question
from stages.lib.texts.languages import question_language

END_OF_TURN = ["<|im_end|>"]
OWN = (HELDOUT, PREFERENCE)  # their questions are a file of the project
ANSWERED = "answered"  # the metric of preference, which says nothing about quality
LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
# metrics by which each question is right or wrong; a task must have one
BINARY = ("exact_match", "acc", "acc_norm", "em", "mc1", "acc_mutual_info")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of params.yaml: its tasks, the folder of lm-eval that defines them, the hub id of its data.

    ``folder`` is None if all of lm-eval's tasks must be searched (most of a minute), or none; ``data`` is None if it is
    not known in advance, or is not on a hub.
    """

    name: str
    tasks: list[str | dict[str, Any]]
    folder: str | None
    data: str | None


@dataclass(frozen=True)
class Loaded:
    """A benchmark's tasks with their questions, as lm-eval created them: ``items`` as requested, ``tasks`` by name."""

    benchmark: Benchmark
    items: list[Any]
    tasks: dict[str, Any]
    manager: Any

    def questions(self, output_type: str, limit: int | None) -> int:
        """The number of questions in tasks of that output type."""
        sizes = [len(task.eval_docs) for task in self.tasks.values() if output_type == task.OUTPUT_TYPE]
        return sum(min(size, limit or size) for size in sizes)


KNOWN = {
    "mgsm_cot_native": ([f"mgsm_native_cot_{code}" for code in LANGUAGES], "mgsm/native_cot", "juletxara/mgsm"),
    "mgsm_direct": ([f"mgsm_direct_{code}" for code in LANGUAGES], "mgsm/direct", "juletxara/mgsm"),
    "gsm8k": (["gsm8k"], "gsm8k", "openai/gsm8k"),
    "mmlu": (["mmlu"], "mmlu/default", "cais/mmlu"),
}


def chosen(name: str, heldout: Path) -> Benchmark:
    """The benchmark of that name in ``evaluate.benchmarks``."""
    if name in OWN:
        return Benchmark(name, [heldout_task(heldout) if name == HELDOUT else preference_task(heldout)], None, None)
    if name in KNOWN:
        tasks, folder, data = KNOWN[name]
        return Benchmark(name, [*tasks], folder, data)
    task = name.removeprefix(LM_EVAL)
    for _, folder, data in KNOWN.values():
        if _defines(folder_of_tasks() / folder, task):
            return Benchmark(name, [task], folder, data)
    return Benchmark(name, [task], None, None)


def _defines(folder: Path, task: str) -> bool:
    """Whether the folder defines a task or a group of that name. A tag never: its tasks are in all folders."""
    if (folder / f"{task}.yaml").is_file() and not task.startswith("_"):
        return True
    return any(f"group: {task}" in path.read_text(encoding="utf-8").splitlines() for path in folder.glob("_*.yaml"))


def folder_of_tasks() -> Path:
    """The folder of tasks in the installed lm-eval, which is not imported."""
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise EvaluationError("lm-eval: not installed in this environment. Run 'make setup'.")
    return Path(spec.origin).parent / "tasks"


def loaded(benchmark: Benchmark) -> Loaded:
    """Let lm-eval create the tasks and load their questions; EvaluationError if that fails."""
    import datasets
    from lm_eval.tasks import TaskManager

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    ours = benchmark.folder is not None or benchmark.name in OWN
    folders = [folder_of_tasks() / benchmark.folder] if benchmark.folder else []
    manager = TaskManager(include_path=folders, include_defaults=not ours)
    unknown = [task for task in benchmark.tasks if isinstance(task, str) and task not in manager.all_tasks]
    if unknown:
        close = get_close_matches(unknown[0], manager.all_tasks, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else "'python -m lm_eval ls tasks' lists them."
        raise EvaluationError(f"evaluate.benchmarks: lm-eval has no task '{unknown[0]}'. {hint}")
    try:
        items = [item for task in benchmark.tasks for item in _as_list(manager._load_spec(task))]
        tasks = manager.load(items)["tasks"]
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"evaluate.benchmarks: the questions of '{benchmark.name}' cannot be loaded ({_first_line(error)}). "
            "Download them with 'make eval-data', or set HF_ENDPOINT to a mirror of the hub."
        ) from error
    return Loaded(benchmark, items, dict(sorted(tasks.items())), manager)


def _as_list(item: Any) -> list[Any]:
    """A list of tasks: lm-eval returns a list for a tag, else one object."""
    return item if isinstance(item, list) else [item]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def refuse_unanswerable(found: Loaded, backend: str) -> None:
    """EvaluationError if the backend cannot answer a task, or if its questions are neither right nor wrong."""
    for name, task in found.tasks.items():
        if backend == "local-chat-completions" and task.OUTPUT_TYPE != "generate_until":
            raise EvaluationError(
                f"evaluate.benchmarks: '{name}' needs log-likelihoods, which {backend} does not give. "
                "Set local-completions, or remove the benchmark."
            )
        metrics = {entry["metric"] for entry in task.config.metric_list or [] if isinstance(entry["metric"], str)}
        if metrics and not metrics & {*BINARY, ANSWERED}:
            raise EvaluationError(
                f"evaluate.benchmarks: '{name}' is scored by {', '.join(sorted(metrics))}, so no question is right or "
                f"wrong and arms cannot be compared. Choose a task with one of {', '.join(BINARY)}."
            )


def refuse_missing_gold(benchmarks: Sequence[str], questions: Iterable[Question], path: Path) -> None:
    """EvaluationError if ``heldout`` is to score questions of which one has no gold answer."""
    missing = [question.id for question in questions if question.answer is None] if HELDOUT in benchmarks else []
    if missing:
        raise EvaluationError(
            f"{path}: {len(missing)} questions have no answer (the first is '{missing[0]}'), so '{HELDOUT}' cannot "
            f"score them. Write '{PREFERENCE}' for it in evaluate.benchmarks, and a judge compares the arms (prefer)."
        )


def refuse_too_many_examples(found: Loaded, wanted: int) -> None:
    """EvaluationError if a task has fewer few-shot examples than params ask for."""
    for name, task in found.tasks.items() if wanted else ():
        has = len(list(task.fewshot_docs() or []))
        if has < wanted:
            raise EvaluationError(
                f"evaluate.num_fewshot: {wanted} examples for '{found.benchmark.name}', but '{name}' has {has}. "
                "Lower it."
            )


def own_system_text(found: Loaded) -> str | None:
    """The first system text of a held-out question's own; None if there is none."""
    name = found.benchmark.name
    docs = found.tasks[name].eval_docs if name in OWN else []
    return next((doc["system"] for doc in docs if doc.get("system")), None)


def heldout_task(questions: Path) -> dict[str, Any]:
    """The held-out questions as a generation task; its metric ``acc`` is 1 if the final answer is right."""
    from stages.lib.evaluation.conversations import ConversationTask

    files = parts_of(questions, "Run 'dvc repro collect' to rebuild it.")
    return {
        "task": HELDOUT,
        "class": ConversationTask,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": [str(file.resolve()) for file in files]}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "process_results": score,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": END_OF_TURN, "do_sample": False},
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
    }


def preference_task(questions: Path) -> dict[str, Any]:
    """The held-out questions as a generation task without a gold answer, asked like ``heldout``."""
    return heldout_task(questions) | {
        "task": PREFERENCE,
        "doc_to_target": "",
        "process_results": answered,
        "metric_list": [{"metric": ANSWERED, "aggregation": "mean", "higher_is_better": True}],
    }


def answered(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """lm-eval's callback: whether there is an answer. lm-eval needs a metric; nothing else reads this one."""
    return {ANSWERED: float(bool(results[0].strip()))}


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """lm-eval's callback: score the text generated for a question."""
    verdict = rule_verdict(doc["question"], results[0], doc["answer"], question_language(doc["question"]))
    return {"acc": float(verdict.verdict == "right")}
