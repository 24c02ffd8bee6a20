"""lm-eval itself, run on one arm: each benchmark in a run of its own, so its batches depend on no other benchmark.

ask(asking, [chosen("gsm8k", heldout)], data/eval_data)
→ [Scored("gsm8k", lm_eval={"gsm8k": Score(0.39, 0.03, {"lm_eval_strict_match": 0.0})}, group=None, samples=[…])]
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.backends import Asking, refuse_before_loading, refuse_too_long, student_model
from stages.lib.evaluation.cache import cache_folder, remove_others
from stages.lib.evaluation.forecast import warn_of_days
from stages.lib.evaluation.gathered import gathered
from stages.lib.evaluation.progress import Progress
from stages.lib.evaluation.tasks import BINARY, END_OF_TURN, Benchmark, Loaded, loaded, refuse_unanswerable

log = logging.getLogger("distillery.evaluate")

PREFERRED_FILTER = "flexible-extract"  # gsm8k and mgsm: the strict ones are about 0 for chat models


@dataclass(frozen=True)
class Score:
    """lm-eval's own score of a task, its standard error, and its other scores by name."""

    value: float
    stderr: float | None
    others: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """One question of one task: what was asked, what came, lm-eval's mark, and its hashes of question and prompt.

    ``response`` is the whole text generated, the thought included; None where the answers' likelihoods were compared:
    then ``choice`` is the one that was found likeliest. ``stops`` are the task's own stop strings, which were not used.
    """

    task: str
    number: int
    doc: dict[str, Any]
    prompt: str
    response: str | None
    choice: str | None
    gold: str
    lm_eval: bool
    stops: tuple[str, ...]
    doc_hash: str
    prompt_hash: str
    target_hash: str


@dataclass(frozen=True)
class Scored:
    """A benchmark: lm-eval's score of each task and of the group (where it is one), samples, lm-eval's own table."""

    name: str
    lm_eval: dict[str, Score]
    group: Score | None
    samples: list[Sample]
    table: dict[str, Any]


def ask(asking: Asking, benchmarks: Sequence[Benchmark], eval_data: Path | None) -> list[Scored] | None:
    """Ask every question of the benchmarks, those that were answered before out of the cache.

    None in all processes but the first, where several run side by side.
    """
    refuse_before_loading(asking)
    with gathered(eval_data, benchmarks):
        found = [loaded(benchmark) for benchmark in benchmarks]
        for each in found:
            refuse_unanswerable(each, asking.params.backend)
        if any(each.questions("generate_until", None) for each in found):
            refuse_too_long(asking)
        warn_of_days(asking, found)
        return _asked(asking, found)


def _asked(asking: Asking, found: list[Loaded]) -> list[Scored] | None:
    from stages.lib.evaluation.recording import RecordingLM

    quiet_loggers()
    folder = cache_folder(asking.arm, asking.weights, asking.params, asking.run)
    model, progress = student_model(asking), Progress()
    student = RecordingLM(model, folder / f"answers_rank{model.rank}.db", asking.think_end_token, progress)
    scored = []
    for each in found:
        progress.what = f"{asking.arm}: {each.benchmark.name}"
        results = _run(student, each, asking)
        texts = student.texts()
        if results is not None:
            scored.append(_scored(each, results, texts))
    if student.rank != 0:
        return None
    remove_others(folder)
    return scored


def quiet_loggers() -> None:
    """Keep back what lm-eval and its libraries log of things that are meant, or that hold secrets."""
    # before each benchmark: that our settings replace the task's own
    logging.getLogger("lm_eval.evaluator").setLevel(logging.ERROR)
    # of a server that failed: each request that was under way, with a traceback; and each with its headers, the key too
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("lm_eval.models.api_models").addFilter(_below_error)


def _below_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _run(student: Any, found: Loaded, asking: Asking) -> Any:
    """One call of lm-eval, as its own command makes it; None in all processes but the first."""
    from lm_eval import simple_evaluate

    params = asking.params
    # the tasks' own stop strings must be read before lm-eval lays ours over them
    stops = {name: _stops(task) for name, task in found.tasks.items()}
    try:
        results = simple_evaluate(
            model=student,
            tasks=found.items,
            task_manager=found.manager,
            num_fewshot=params.num_fewshot.get(found.benchmark.name),
            gen_kwargs={"max_gen_toks": params.max_gen_toks, "until": [*END_OF_TURN]},
            limit=params.limit,
            system_instruction=asking.system,
            apply_chat_template=params.chat_template,
            fewshot_as_multiturn=params.chat_template,
            random_seed=params.seed,
            numpy_random_seed=params.seed,
            torch_random_seed=params.seed,
            fewshot_random_seed=params.seed,
        )
    except _transport_errors() as error:
        if not params.backend.startswith("local-"):
            raise
        raise EvaluationError(
            f"{asking.run.served_base_url}: the served model failed ({type(error).__name__}: {str(error)[:150]}). "
            "Mend the server and run the stage again: it goes on where it was."
        ) from error
    return results and {**results, "stops": stops}


def _transport_errors() -> tuple[type[Exception], ...]:
    errors: tuple[type[Exception], ...] = (OSError,)
    with suppress(ImportError):
        import aiohttp

        errors += (aiohttp.ClientError,)
    return errors


def _stops(task: Any) -> tuple[str, ...]:
    until = (task.config.generation_kwargs or {}).get("until") or []
    return tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop not in END_OF_TURN)


def _scored(found: Loaded, results: dict[str, Any], texts: dict[tuple[str, int], str]) -> Scored:
    scores, samples = {}, []
    for name, task in found.tasks.items():
        metric, chosen = _main_metric(results["results"][name])
        scores[name] = _score(results["results"][name], metric, chosen)
        rows = [row for row in results["samples"][name] if row["filter"] == chosen]
        for row in sorted(rows, key=lambda each: each["doc_id"]):
            text = texts.get((name, row["doc_id"])) if task.OUTPUT_TYPE == "generate_until" else None
            samples.append(_sample(name, task, row, bool(row[metric]), text, results["stops"][name]))
    group = _group(found, results)
    table = {key: results["results"][key] for key in sorted(results["results"])}
    return Scored(found.benchmark.name, scores, group, samples, table)


def _main_metric(table: dict[str, Any]) -> tuple[str, str]:
    """Which of a task's scores counts: the metric and the filter, as in the key ``exact_match,flexible-extract``."""
    keys = [(key.partition(",")[0], key.partition(",")[2]) for key in table if "," in key and "_stderr," not in key]
    known = [(metric, chosen) for metric, chosen in keys if metric in BINARY] or keys
    return min(known, key=lambda key: (key[1] != PREFERRED_FILTER, BINARY.index(key[0]) if key[0] in BINARY else 99))


def _score(table: dict[str, Any], metric: str, chosen: str) -> Score:
    others = {}
    for key, value in table.items():
        name, comma, other = key.partition(",")
        if comma and "_stderr" not in name and (name, other) != (metric, chosen) and isinstance(value, float):
            words = [other] if name == metric else [name, *([other] if other != "none" else [])]
            others["lm_eval_" + "_".join(words).replace("-", "_")] = value
    stderr = table.get(f"{metric}_stderr,{chosen}")
    # lm-eval says "N/A" where it has none
    return Score(float(table[f"{metric},{chosen}"]), stderr if isinstance(stderr, float) else None, others)


def _group(found: Loaded, results: dict[str, Any]) -> Score | None:
    """lm-eval's own average, where the benchmark is one group that has one (mmlu)."""
    name = found.benchmark.tasks[0]
    table = results.get("groups", {}).get(name) if isinstance(name, str) else None
    if table is None or not any("," in key for key in table):
        return None
    return _score(table, *_main_metric(table))


def _sample(name: str, task: Any, row: dict[str, Any], right: bool, text: str | None, stops: tuple[str, ...]) -> Sample:
    choices = task.doc_to_choice(row["doc"]) if task.OUTPUT_TYPE == "multiple_choice" else None
    choice = None
    if choices:
        likelihoods = [each[0] for each in row["filtered_resps"]]
        choice = choices[likelihoods.index(max(likelihoods))]
    target = row["target"]
    return Sample(
        task=name,
        number=row["doc_id"],
        doc=row["doc"],
        prompt=_prompt(row["arguments"][0][0]),
        response=text,
        choice=choice,
        gold=str(choices[target] if choices and isinstance(target, int) else target),
        lm_eval=right,
        stops=stops,
        doc_hash=row["doc_hash"],
        prompt_hash=row["prompt_hash"],
        target_hash=row["target_hash"],
    )


def _prompt(asked: Any) -> str:
    """A prompt's text; for a chat's server lm-eval wraps its messages, as JSON, in a tuple."""
    return asked if isinstance(asked, str) else str(asked.prompt)
