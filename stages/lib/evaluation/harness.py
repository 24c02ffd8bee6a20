"""Run lm-eval on one arm. Each benchmark is a separate run, so its batches do not depend on other benchmarks.

ask(asking, [chosen("gsm8k", heldout)], data/eval_data)
→ [Scored("gsm8k", lm_eval={"gsm8k": Score(0.39, 0.03, {"lm_eval_strict_match": 0.0})}, group=None, samples=[…])]
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.backends import (
    Asking,
    change_batch_size,
    refuse_before_loading,
    refuse_lost_system_text,
    refuse_too_long,
    student_model,
)
from stages.lib.evaluation.bodies import NoAnswer
from stages.lib.evaluation.cache import cache_file, cache_folder, remove_others
from stages.lib.evaluation.churn import SecondPass, sample_of
from stages.lib.evaluation.downloaded import offline_questions, refuse_fewshot
from stages.lib.evaluation.forecast import warn_if_long
from stages.lib.evaluation.progress import Progress
from stages.lib.evaluation.results import Scored, scored_of, stops_of
from stages.lib.evaluation.served import served_models
from stages.lib.evaluation.tasks import (
    END_OF_TURN,
    Benchmark,
    Loaded,
    loaded,
    own_system_text,
    refuse_too_many_examples,
    refuse_unanswerable,
)
from stages.lib.params import ServedBackend

log = logging.getLogger("distillery.evaluate")


def ask(asking: Asking, benchmarks: Sequence[Benchmark], eval_data: Path | None) -> list[Scored] | None:
    """Ask all questions of the benchmarks; answers in the cache are not generated again. With churn, ask some twice.

    Returns None in all processes but the first, if there are several.
    """
    refuse_before_loading(asking)
    refuse_lost_system_text(asking)
    refuse_fewshot(eval_data, benchmarks, asking.params.num_fewshot)
    with offline_questions(eval_data, benchmarks):
        found = [loaded(benchmark) for benchmark in benchmarks]
        for each in found:
            refuse_unanswerable(each, asking.params.backend.kind)
            refuse_too_many_examples(each, asking.params.num_fewshot.get(each.benchmark.name, 0))
            if own := own_system_text(each):
                refuse_lost_system_text(replace(asking, system=own))
        if any(each.questions("generate_until", None) for each in found):
            refuse_too_long(asking)
        warn_if_long(asking, found)
        return _asked(asking, found)


def _asked(asking: Asking, found: list[Loaded]) -> list[Scored] | None:
    from stages.lib.evaluation.recording import cached

    silence_expected_warnings()
    folder = cache_folder(asking.arm, asking.weights, asking.params, asking.run)
    params, model = asking.params, student_model(asking)
    together = not isinstance(params.backend, ServedBackend)
    # the tasks' own stop strings, before lm-eval replaces them by ours
    stops = [{name: stops_of(task) for name, task in each.tasks.items()} for each in found]
    progress = Progress(params.backend.batch_size, together=together)
    first = cached(model, cache_file(folder, model.rank), progress)
    scored = [
        _scored(model, first, each, asking, own, progress, each.benchmark.name)
        for each, own in zip(found, stops, strict=True)
    ]
    if params.churn:
        change_batch_size(model, params.backend.kind, params.churn.batch_size)
        progress = Progress(params.churn.batch_size, together=together)
        second = cached(model, cache_file(folder, model.rank, params.churn), progress)
        for number, (each, own) in enumerate(zip(found, stops, strict=True)):
            sample = sample_of(each, params.churn.limit, params.limit, params.seed)
            answering = SecondPass(first, second, sample)
            again = _scored(model, answering, each, asking, own, progress, f"{each.benchmark.name}, second pass")
            scored[number] = _with_again(scored[number], again, sample)
    if model.rank != 0:
        return None
    remove_others(folder)
    return [each for each in scored if each is not None]


def _scored(
    model: Any, answering: Any, found: Loaded, asking: Asking, stops: dict[str, Any], progress: Progress, what: str
) -> Scored | None:
    """One pass over a benchmark; None in all processes but the first."""
    from stages.lib.evaluation.recording import RecordingLM

    progress.what = f"{asking.arm}: {what}"
    student = RecordingLM(model, answering, asking.think_end_token, asking.in_user_turn)
    results = _run(student, found, asking)
    answers = student.answers()
    return None if results is None else scored_of(found, {**results, "stops": stops}, answers)


def _with_again(first: Scored | None, second: Scored | None, sample: set[tuple[str, int]]) -> Scored | None:
    if first is None or second is None:
        return None
    return replace(first, again=tuple(each for each in second.samples if (each.task, each.number) in sample))


def silence_expected_warnings() -> None:
    """Hide lm-eval's warnings about settings that we set on purpose."""
    # before each benchmark it warns that our settings replace the task's own
    logging.getLogger("lm_eval.evaluator").setLevel(logging.ERROR)


def _run(student: Any, found: Loaded, asking: Asking) -> Any:
    """Call lm-eval as its own command does; None in all processes but the first."""
    from lm_eval import simple_evaluate

    params = asking.params
    try:
        return simple_evaluate(
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
    except NoAnswer as error:
        raise EvaluationError(
            f"{served_models(asking.run).base_url}: the served model failed ({error}). "
            "Fix the server and run the stage again: answers so far are cached."
        ) from error
