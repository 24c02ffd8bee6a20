"""The complete params.yaml, and the checks across its sections."""

from collections.abc import Iterator
from typing import Any

from stages.lib.params.base import Name, ParamsError, Section
from stages.lib.params.checks import RefusalsCheck
from stages.lib.params.collect import ChainSum, Collect, EvalData, PresetSource, Source
from stages.lib.params.convert import Convert
from stages.lib.params.errors import nearest
from stages.lib.params.evaluate import HELDOUT, PREFERENCE, Compare, Evaluate, Prefer, Report, ServedBackend
from stages.lib.params.filter import Filter, MajorityFilter, RubricFilter, judge_of
from stages.lib.params.presets import preset_named
from stages.lib.params.prompts import FOLDERS, JUDGE, PAIRWISE, RESPONSE, phrase_lists, prompt_names, prompt_text
from stages.lib.params.run import ApiKeyVariables, Role, Run
from stages.lib.params.score import FromAnswers, FromTeacher, Score
from stages.lib.params.teacher import Distill
from stages.lib.params.traces import Traces
from stages.lib.params.train import Arm, Dataset, OnPolicyArm, Student, Train, Trl

# keys of ``run`` that only one choice reads: that choice, and an example
READERS = {
    "run.embedded": ("distill.teacher, filter.judge or prefer.judge with kind: embedded", "{latency_s: 0.05, port: 0}"),
    "run.api_key_variables.teacher": ("distill.teacher with kind: openai_compatible", "API_KEY"),
    "run.api_key_variables.judge": ("filter.judge with kind: openai_compatible", "API_KEY"),
    "run.api_key_variables.prefer": ("prefer.judge with kind: openai_compatible", "API_KEY"),
    "run.api_key_variables.score": ("score.served", "SCORE_API_KEY"),
    "run.api_key_variables.student": ("collect.keep_hard.backend with kind: openai_compatible", "STUDENT_API_KEY"),
    "run.served": (
        "evaluate.backend with kind: local-completions or local-chat-completions",
        '{base_url: http://127.0.0.1:8000/v1, model: "{arm}", api_key_variable: OPENAI_API_KEY}',
    ),
}


# names of the pipeline's files in data/, which no traces may have; and what is added to the names of traces
DATA_FILES = (
    *("collected", "questions", "heldout", "left_out", "too_easy", "distilled", "distill_failures"),
    *("filtered", "rejected", "control", "disagreements", "reviews", "preferences"),
)
TRACE_FILES = ("left_out", "filtered", "rejected", "control", "disagreements")


class Params(Section):
    """The complete params.yaml."""

    collect: Collect
    distill: Distill
    filter: Filter
    convert: Convert
    score: Score | None
    train: Train
    eval_data: EvalData
    evaluate: Evaluate
    prefer: Prefer | None
    compare: Compare
    report: Report
    traces: dict[Name, Traces]
    filter_traces: list[Name]
    datasets: dict[Name, Dataset]
    arms: dict[Name, Arm]
    on_policy: dict[Name, OnPolicyArm]
    teachers: dict[Name, Student]
    run: Run

    @property
    def trained_arms(self) -> dict[str, Arm | OnPolicyArm]:
        """All arms but base: those that are trained on a dataset's answers, then those that learn on-policy."""
        return {**self.arms, **self.on_policy}

    @property
    def starts(self) -> dict[str, str]:
        """By on-policy arm, the arm whose weights it starts with."""
        return {name: arm.start_from for name, arm in self.on_policy.items()}


def contradictions(params: Params) -> Iterator[str]:
    """The contradictions between sections: unknown names, and keys of ``run`` that are missing or not read."""
    yield from _names(params)
    yield from _prompts(params)
    yield from _filter(params)
    yield from _gold(params)
    yield from _score(params)
    for name in params.evaluate.benchmarks:
        if params.evaluate.benchmarks.count(name) > 1:
            yield f"evaluate.benchmarks: '{name}' is listed twice. Remove one."
    if params.prefer and PREFERENCE not in params.evaluate.benchmarks:
        yield f"prefer: its judge needs '{PREFERENCE}' in evaluate.benchmarks. Add it there, or write prefer: null."
    yield from _run(params)


def _names(params: Params) -> Iterator[str]:
    for section, entries in (("arms", params.arms), ("on_policy", params.on_policy)):
        for name, arm in entries.items():
            if arm.dataset not in params.datasets:
                found = nearest(arm.dataset, list(params.datasets))
                yield f"{section}.{name}.dataset: no dataset '{arm.dataset}'.{found}"
        if "base" in entries:
            yield f"{section}.base: 'base' is the untrained student. Rename the arm."
    yield from _on_policy(params)
    yield from _traces(params)
    arms = ["base", *params.trained_arms]
    for name in [name for pair in params.compare.pairs or [] for name in pair]:
        if name not in arms:
            yield f"compare.pairs: no arm '{name}'.{nearest(name, arms)}"
    for pair in params.compare.pairs or []:
        if (params.compare.pairs or []).count(pair) > 1:
            yield f"compare.pairs: {list(pair)} is listed twice. Remove one."


def _on_policy(params: Params) -> Iterator[str]:
    """Arms that start from other arms, and their teachers: all are folders in models/."""
    for section, taken in (("on_policy", params.arms), ("teachers", {"base": None, **params.trained_arms})):
        for name in getattr(params, section):
            if name in taken:
                yield f"{section}.{name}: models/{name} is the folder of an arm. Rename the entry."
    for name, arm in params.on_policy.items():
        if arm.start_from not in params.arms:
            yield f"on_policy.{name}.start_from: no arm '{arm.start_from}'.{nearest(arm.start_from, list(params.arms))}"
        known = [*params.arms, *params.teachers]
        if (source := arm.teacher.source) not in known:
            yield f"on_policy.{name}.teacher.source: no arm or teacher '{source}'.{nearest(source, known)}"
        elif source == arm.start_from and not arm.teacher.worked_examples:
            yield (
                f"on_policy.{name}.teacher.source: '{source}' is the student itself, so there is nothing to learn. "
                "Choose another one, or set worked_examples: 3."
            )
    for name in params.teachers:
        if name not in [arm.teacher.source for arm in params.on_policy.values()]:
            yield f"teachers.{name}: no arm of on_policy has it as teacher.source. Remove it."


def _traces(params: Params) -> Iterator[str]:
    for name in params.filter_traces:
        if name not in params.traces:
            yield f"filter_traces: no traces '{name}'.{nearest(name, list(params.traces))}"
        elif params.filter_traces.count(name) > 1:
            yield f"filter_traces: '{name}' is listed twice. Remove one."
        elif isinstance(params.filter, MajorityFilter) and params.traces[name].samples_per_question == 1:
            yield (
                f"filter_traces: majority compares several answers to a question, and traces.{name} keeps one. Raise "
                f"traces.{name}.samples_per_question, or take '{name}' out of the list."
            )
    files = {f"{name}_{kind}": name for name in params.traces for kind in TRACE_FILES}
    for name in params.traces:
        if name in DATA_FILES or name in files:
            yield f"traces.{name}: data/{name}.jsonl is another file of the pipeline. Rename the entry."


def _prompts(params: Params) -> Iterator[str]:
    judge = judge_of(params.filter)
    named = [("distill.prompt", params.distill.prompt, ""), ("convert.system_prompt", params.convert.system_prompt, "")]
    named += [("filter.judge.prompt", judge.prompt, JUDGE)] if judge else []
    named += [("prefer.prompt", params.prefer.prompt, PAIRWISE)] if params.prefer else []
    for key, name, folder in named:
        known = prompt_names(folder)
        if name not in known:
            path = "/".join(part for part in ("stages/prompts", folder, f"{name}.txt") if part)
            yield f"{key}: no file {path}.{nearest(name, known)}"
    names = [name for folder in FOLDERS for name in prompt_names(folder)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"stages/prompts: {name}.txt is in more than one of its folders. Rename all but one."


def _filter(params: Params) -> Iterator[str]:
    """A strategy needs what the questions and the teacher have: gold answers, several samples, a prompt of its form."""
    strategy, samples = params.filter.strategy, params.distill.samples_per_question
    for number, check in enumerate(params.filter.checks):
        if isinstance(check, RefusalsCheck) and check.phrases not in (known := phrase_lists()):
            path = f"stages/phrases/{check.phrases}.txt"
            yield f"filter.checks.{number}.phrases: no file {path}.{nearest(check.phrases, known)}"
    if isinstance(params.filter, MajorityFilter):
        if samples < 2:
            yield (
                "filter.strategy: majority compares several answers to a question, and distill.samples_per_question is "
                f"{samples}. Set it to 4, for example."
            )
    elif isinstance(params.filter, RubricFilter):
        if not _is_rubric(prompt := params.filter.judge.prompt):
            yield (
                f"filter.judge.prompt: {prompt} has no placeholder {RESPONSE}, which strategy judge_rubric needs. "
                "Choose rubric_en or rubric_zh, or write it into the prompt."
            )
    elif (judge := judge_of(params.filter)) and _is_rubric(judge.prompt):
        yield (
            f"filter.judge.prompt: {judge.prompt} is a rubric, and strategy {strategy} compares with gold answers. "
            "Choose strict_teacher, or set filter.strategy to judge_rubric."
        )
    elif not _has_gold(params.collect.source):
        yield (
            f"filter.strategy: {strategy} compares with gold answers, and collect.source has none (columns.answer: "
            "null). Set the strategy to majority or judge_rubric, or name the column."
        )


def _gold(params: Params) -> Iterator[str]:
    """What else needs gold answers."""
    if HELDOUT in params.evaluate.benchmarks and not _has_gold(params.collect.heldout_source or params.collect.source):
        yield (
            f"evaluate.benchmarks: '{HELDOUT}' compares with gold answers, and the held-out questions have none. "
            f"Choose '{PREFERENCE}'."
        )
    if params.collect.keep_hard and not _has_gold(params.collect.source):
        yield "collect.keep_hard: it needs gold answers, and collect.source has none. Set it to null."


def _score(params: Params) -> Iterator[str]:
    """What the teacher's probabilities need."""
    if isinstance(params.score, FromAnswers) and not params.distill.logprobs:
        yield "score: kind answers reads what distill.logprobs asks for, which is null. Set it to 20, for example."
    for name, arm in params.arms.items():
        if arm.alpha and not params.score:
            yield f"arms.{name}.alpha: it needs the teacher's probabilities, and score is null. Set it, or alpha: 0.0."
        if arm.alpha and not isinstance(params.train.trainer, Trl):
            yield (
                f"arms.{name}.alpha: kind {params.train.trainer.kind} has no such loss; kind trl has. Set alpha: 0.0, "
                "or change train.trainer."
            )


def _is_rubric(prompt: str) -> bool:
    return RESPONSE in prompt_text(prompt)


def _has_gold(source: Source) -> bool:
    if isinstance(source, ChainSum):
        return True
    if not isinstance(source, PresetSource):
        return source.columns.answer is not None
    try:
        return preset_named(source.name, "collect.source").columns.answer is not None
    except ParamsError:  # collect says what is wrong with the preset
        return True


def asked_models(params: Params) -> dict[Role, Any]:
    """The models that the stages ask for answers, by their roles; those that params.yaml has."""
    student = params.collect.keep_hard.backend if params.collect.keep_hard else None
    models: dict[Role, Any] = {
        "teacher": params.distill.teacher,
        "judge": judge_of(params.filter),
        "prefer": params.prefer.judge if params.prefer else None,
        "student": student,
    }
    return {role: model for role, model in models.items() if model}


def _run(params: Params) -> Iterator[str]:
    """Each optional key of ``run`` must exist exactly if a chosen kind reads it."""
    run, keys = params.run, params.run.api_key_variables or ApiKeyVariables()
    asked = asked_models(params)
    served: dict[str, bool] = {role: model.kind == "openai_compatible" for role, model in asked.items()}
    is_embedded = any(model.kind == "embedded" for model in asked.values())
    yield from _presence("run.embedded", run.embedded, is_embedded)
    scorer = isinstance(params.score, FromTeacher) and params.score.served is not None
    for role in ("teacher", "judge", "prefer", "score", "student"):
        is_read = scorer if role == "score" else served.get(role, False)
        yield from _presence(f"run.api_key_variables.{role}", getattr(keys, role), is_read)
    for name in ("endpoints", "batch"):
        section = getattr(run, name)
        for role in section.model_fields_set if section else ():
            if not served.get(role):
                reader, _ = READERS[f"run.api_key_variables.{role}"]
                yield f"run.{name}.{role}: only {reader} reads it. Remove the key."
            elif name == "batch" and getattr(run.endpoints, role, None):
                others = f"run.endpoints.{role} lists others"
                yield f"run.batch.{role}: a batch goes to one server, and {others}. Remove one."
    if run.api_key_variables and not (keys.teacher or keys.judge or keys.prefer or keys.score or keys.student):
        yield "run.api_key_variables: empty. Remove it."
    yield from _presence("run.served", run.served, isinstance(params.evaluate.backend, ServedBackend))
    for name in ("api_key_variables", "endpoints", "batch", "embedded", "engine", "served", "prices"):
        if name in run.model_fields_set and getattr(run, name) is None:
            yield f"run.{name}: null, but a key that nothing reads must be absent. Remove it."
    if run.prices and "budget" not in run.model_fields_set:
        yield "run.budget: missing beside run.prices. Write budget: null for none."
    if not run.prices and "budget" in run.model_fields_set:
        yield "run.budget: needs the currency of run.prices, which is absent. Write prices, or remove the budget."


def _presence(key: str, found: Any, is_read: bool) -> Iterator[str]:
    reader, example = READERS[key]
    if is_read and found is None:
        yield f"{key}: missing, and {reader} reads it. Write it, for example {example}."
    if found is not None and not is_read:
        yield f"{key}: only {reader} reads it. Remove the key."
