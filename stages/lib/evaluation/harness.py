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
    refuse_before_loading,
    refuse_lost_system_text,
    refuse_too_long,
    student_model,
)
from stages.lib.evaluation.bodies import NoAnswer
from stages.lib.evaluation.cache import cache_folder, remove_others
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
    """Ask all questions of the benchmarks; answers in the cache are not generated again.

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
    from stages.lib.evaluation.recording import RecordingLM

    silence_expected_warnings()
    folder = cache_folder(asking.arm, asking.weights, asking.params, asking.run)
    together = not isinstance(asking.params.backend, ServedBackend)
    model, progress = student_model(asking), Progress(asking.params.backend.batch_size, together=together)
    cache = folder / f"answers_rank{model.rank}.db"
    student = RecordingLM(model, cache, asking.think_end_token, progress, asking.in_user_turn)
    scored = []
    for each in found:
        progress.what = f"{asking.arm}: {each.benchmark.name}"
        results = _run(student, each, asking)
        answers = student.answers()
        if results is not None:
            scored.append(scored_of(each, results, answers))
    if student.rank != 0:
        return None
    remove_others(folder)
    return scored


def silence_expected_warnings() -> None:
    """Hide lm-eval's warnings about settings that we set on purpose."""
    # before each benchmark it warns that our settings replace the task's own
    logging.getLogger("lm_eval.evaluator").setLevel(logging.ERROR)


def _run(student: Any, found: Loaded, asking: Asking) -> Any:
    """Call lm-eval as its own command does; None in all processes but the first."""
    from lm_eval import simple_evaluate

    params = asking.params
    # read the tasks' own stop strings before lm-eval replaces them by ours
    stops = {name: stops_of(task) for name, task in found.tasks.items()}
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
    except NoAnswer as error:
        raise EvaluationError(
            f"{served_models(asking.run).base_url}: the served model failed ({error}). "
            "Fix the server and run the stage again: answers so far are cached."
        ) from error
    return results and {**results, "stops": stops}
