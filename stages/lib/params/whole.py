"""The complete params.yaml, and the checks across its sections."""

from collections.abc import Iterator
from typing import Any

from stages.lib.params.base import Name, Section
from stages.lib.params.collect import Collect, EvalData, S1k
from stages.lib.params.convert import Convert
from stages.lib.params.errors import nearest
from stages.lib.params.evaluate import PREFERENCE, Compare, Evaluate, Prefer, Report, ServedBackend
from stages.lib.params.filter import Filter, judge_of
from stages.lib.params.prompts import FOLDERS, JUDGE, PAIRWISE, prompt_names
from stages.lib.params.run import ApiKeyVariables, Run
from stages.lib.params.teacher import Distill
from stages.lib.params.train import Arm, Dataset, Train

# keys of ``run`` that only one choice reads: that choice, and an example
READERS = {
    "run.embedded": ("distill.teacher, filter.judge or prefer.judge with kind: embedded", "{latency_s: 0.05, port: 0}"),
    "run.api_key_variables.teacher": ("distill.teacher with kind: openai_compatible", "API_KEY"),
    "run.api_key_variables.judge": ("filter.judge with kind: openai_compatible", "API_KEY"),
    "run.api_key_variables.prefer": ("prefer.judge with kind: openai_compatible", "API_KEY"),
    "run.served": (
        "evaluate.backend with kind: local-completions or local-chat-completions",
        '{base_url: http://127.0.0.1:8000/v1, model: "{arm}", api_key_variable: OPENAI_API_KEY}',
    ),
}


class Params(Section):
    """The complete params.yaml."""

    collect: Collect
    distill: Distill
    filter: Filter
    convert: Convert
    train: Train
    eval_data: EvalData
    evaluate: Evaluate
    prefer: Prefer | None
    compare: Compare
    report: Report
    collect_s1k: dict[Name, S1k]
    datasets: dict[Name, Dataset]
    arms: dict[Name, Arm]
    run: Run


def contradictions(params: Params) -> Iterator[str]:
    """The contradictions between sections: unknown names, and keys of ``run`` that are missing or not read."""
    yield from _names(params)
    yield from _prompts(params)
    for name in params.evaluate.benchmarks:
        if params.evaluate.benchmarks.count(name) > 1:
            yield f"evaluate.benchmarks: '{name}' is listed twice. Remove one."
    if params.prefer and PREFERENCE not in params.evaluate.benchmarks:
        yield f"prefer: its judge needs '{PREFERENCE}' in evaluate.benchmarks. Add it there, or write prefer: null."
    yield from _run(params)


def _names(params: Params) -> Iterator[str]:
    for name, arm in params.arms.items():
        if arm.dataset not in params.datasets:
            yield f"arms.{name}.dataset: no dataset '{arm.dataset}'.{nearest(arm.dataset, list(params.datasets))}"
    if "base" in params.arms:
        yield "arms.base: 'base' is the untrained student. Rename the arm."
    arms = ["base", *params.arms]
    for name in [name for pair in params.compare.pairs or [] for name in pair]:
        if name not in arms:
            yield f"compare.pairs: no arm '{name}'.{nearest(name, arms)}"


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


def _run(params: Params) -> Iterator[str]:
    """Each optional key of ``run`` must exist exactly if a chosen kind reads it."""
    run, keys, judge = params.run, params.run.api_key_variables or ApiKeyVariables(), judge_of(params.filter)
    teacher_kind, judge_kind = params.distill.teacher.kind, judge.kind if judge else None
    prefer_kind = params.prefer.judge.kind if params.prefer else None
    yield from _presence("run.embedded", run.embedded, "embedded" in (teacher_kind, judge_kind, prefer_kind))
    yield from _presence("run.api_key_variables.teacher", keys.teacher, teacher_kind == "openai_compatible")
    yield from _presence("run.api_key_variables.judge", keys.judge, judge_kind == "openai_compatible")
    yield from _presence("run.api_key_variables.prefer", keys.prefer, prefer_kind == "openai_compatible")
    if run.api_key_variables and not (keys.teacher or keys.judge or keys.prefer):
        yield "run.api_key_variables: empty. Remove it."
    yield from _presence("run.served", run.served, isinstance(params.evaluate.backend, ServedBackend))
    for name in ("api_key_variables", "embedded", "served", "prices"):
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
