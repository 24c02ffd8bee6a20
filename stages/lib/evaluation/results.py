"""Convert lm-eval's results into plain values: each task's score and its samples.

scored_of(found, simple_evaluate(…), answers)
→ Scored("gsm8k", lm_eval={"gsm8k": Score(0.39, 0.03, {"lm_eval_strict_match": 0.0})}, group=None, samples=[…])
"""

from dataclasses import dataclass
from typing import Any

from stages.lib.evaluation.bodies import Answer
from stages.lib.evaluation.tasks import ANSWERED, BINARY, END_OF_TURN, Loaded

PREFERRED_FILTER = "flexible-extract"  # gsm8k and mgsm: the strict ones are about 0 for chat models


@dataclass(frozen=True)
class Score:
    """lm-eval's own score of a task, its standard error, and its other scores by name."""

    value: float
    stderr: float | None
    others: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """One question of one task: the prompt, the response, lm-eval's score, and its hashes of question and prompt.

    ``response`` is the complete generated answer. It is None for a multiple-choice task: then ``choice`` is the answer
    of the highest likelihood. ``stops`` are the task's own stop strings, which were not used. ``lm_eval`` is None where
    no answer is right or wrong (preference).
    """

    task: str
    number: int
    doc: dict[str, Any]
    prompt: str
    response: Answer | None
    choice: str | None
    gold: str
    lm_eval: bool | None
    stops: tuple[str, ...]
    doc_hash: str
    prompt_hash: str
    target_hash: str


@dataclass(frozen=True)
class Scored:
    """A benchmark: lm-eval's scores of its tasks and of the group (if it is one), its samples, lm-eval's own table.

    ``again`` are the samples of the second pass, none without one.
    """

    name: str
    lm_eval: dict[str, Score]
    group: Score | None
    samples: list[Sample]
    table: dict[str, Any]
    again: tuple[Sample, ...] = ()


def stops_of(task: Any) -> tuple[str, ...]:
    """A task's own stop strings, without the end of turn. Read them before ours replace them."""
    until = (task.config.generation_kwargs or {}).get("until") or []
    return tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop not in END_OF_TURN)


def scored_of(found: Loaded, results: dict[str, Any], answers: dict[tuple[str, int], Answer]) -> Scored:
    """A benchmark from the result of ``simple_evaluate``; ``answers`` are the complete ones, by task and number."""
    scores, samples = {}, []
    for name, task in found.tasks.items():
        metric, chosen = _main_metric(results["results"][name])
        scores[name] = _score(results["results"][name], metric, chosen)
        rows = [row for row in results["samples"][name] if row["filter"] == chosen]
        for row in sorted(rows, key=lambda each: each["doc_id"]):
            answer = answers.get((name, row["doc_id"])) if task.OUTPUT_TYPE == "generate_until" else None
            right = None if metric == ANSWERED else is_right(row[metric])
            samples.append(_sample(name, task, row, right, answer, results["stops"][name]))
    group = _group(found, results)
    table = {key: results["results"][key] for key in sorted(results["results"])}
    return Scored(found.benchmark.name, scores, group, samples, table)


def is_right(mark: float) -> bool:
    """Whether a question counts as right. With partial scores (truthfulqa_mc2), it does from half a point on."""
    return float(mark) >= 0.5


def _main_metric(table: dict[str, Any]) -> tuple[str, str]:
    """The main score of a task: its metric and filter, as in the key ``exact_match,flexible-extract``."""
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
    # lm-eval writes "N/A" if it has none
    return Score(float(table[f"{metric},{chosen}"]), stderr if isinstance(stderr, float) else None, others)


def _group(found: Loaded, results: dict[str, Any]) -> Score | None:
    """lm-eval's own average, if the benchmark is one group that has one (mmlu)."""
    name = found.benchmark.tasks[0]
    table = results.get("groups", {}).get(name) if isinstance(name, str) else None
    if table is None or not any("," in key for key in table):
        return None
    return _score(table, *_main_metric(table))


def _sample(
    name: str, task: Any, row: dict[str, Any], right: bool | None, answer: Answer | None, stops: tuple[str, ...]
) -> Sample:
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
        response=answer,
        choice=choice,
        gold=str(choices[target] if choices and isinstance(target, int) else target),
        lm_eval=right,
        stops=stops,
        doc_hash=row["doc_hash"],
        prompt_hash=row["prompt_hash"],
        target_hash=row["target_hash"],
    )


def _prompt(prompt: Any) -> str:
    """A prompt's text. For a chat server, lm-eval wraps the messages, as JSON, in a tuple."""
    return prompt if isinstance(prompt, str) else str(prompt.prompt)
