"""Evaluate one arm on the benchmarks with lm-eval; score its answers twice, by lm-eval and by our verifier.

In:   models/ARM (or, for the base arm, the untrained student), data/heldout.jsonl, data/eval_data
Out:  metrics/eval/ARM.json           {"system_prompt": "brief", "settings": {"backend": "hf", …},
                                       "heldout": {"headline": "verifier", "value": 0.36, …}}
      metrics/eval/ARM.scores.csv     question_id,benchmark,cluster,correct
      data/eval/ARM.jsonl             every prompt, answer, score and flag, with lm-eval's hashes
      data/eval/ARM.examples.jsonl    five answers for each kind that the audit counts

Alone:  python -m stages.evaluate --arm filtered --model DIR --heldout H.jsonl --eval-data DIR --metrics M --scores S
        --answers A --examples E

A killed evaluation resumes: answers are cached in .cache/evaluation (stages/lib/evaluation/cache.py).
"""

import csv
import io
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root, run_under
from stages.lib.evaluation.audit import examples
from stages.lib.evaluation.backends import Asking
from stages.lib.evaluation.churn import churn, with_second_answers
from stages.lib.evaluation.harness import ask
from stages.lib.evaluation.launching import launch, needs_several_processes
from stages.lib.evaluation.results import Scored
from stages.lib.evaluation.scoring import audited, figures, rows, tables
from stages.lib.evaluation.settings import settings
from stages.lib.evaluation.tasks import chosen, refuse_missing_gold
from stages.lib.params import Params, load_params, prompt_text
from stages.lib.rows import read_some_rows, write_json, write_rows, writing
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.question import Question
from stages.lib.students import StudentError, student_folder

log = logging.getLogger("distillery.evaluate")


@click.command(help="Ask one arm the benchmarks' questions and score its answers.")
@click.option("--arm", "arm_name", required=True, help="'base', or the arm's name in params.yaml.")
@click.option("--model", "model_path", type=READ, help="The arm's weights, read; the untrained student for 'base'.")
@click.option("--heldout", "heldout_path", type=READ, required=True, help="Held-out questions, read.")
@click.option("--eval-data", "eval_data_path", type=READ, help="The folder of downloaded benchmarks, read.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Scores, written.")
@click.option("--scores", "scores_path", type=WRITE, required=True, help="Right or wrong by question, written.")
@click.option("--answers", "answers_path", type=WRITE, required=True, help="Every answer's text, written.")
@click.option("--examples", "examples_path", type=WRITE, required=True, help="Example answers to read, written.")
@params_option
@click.pass_context
@one_line_errors
def main(
    context: click.Context,
    arm_name: str,
    model_path: Path | None,
    heldout_path: Path,
    eval_data_path: Path | None,
    metrics_path: Path,
    scores_path: Path,
    answers_path: Path,
    examples_path: Path,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    run_under(params.run.launcher.evaluate, "evaluate")
    questions = read_some_rows(heldout_path, Question, "Run 'dvc repro collect' to rebuild it.")
    refuse_missing_gold(params.evaluate.benchmarks, questions, heldout_path)
    if needs_several_processes(params.evaluate, params.run):
        return launch(context, "evaluate", params.run.processes)
    disable_progress_bars()
    started = time.monotonic()
    asking = asking_of(arm_name, weights(model_path, params), params)
    benchmarks = [chosen(name, heldout_path) for name in params.evaluate.benchmarks]
    scored = ask(asking, benchmarks, eval_data_path)
    if scored is None:  # one of several processes, and not the first
        return None
    answers = {each.name: rows(each, asking) for each in scored}
    again = {each.name: rows(replace(each, samples=[*each.again]), asking) for each in scored}
    answers = {name: with_second_answers(each, again[name]) for name, each in answers.items()}
    write_rows(answers_path, chain.from_iterable(answers.values()), params.run.shard_rows)
    write_examples(examples_path, answers, params.evaluate.seed)
    write_scores(scores_path, answers)
    prompt = params.convert.system_prompt if asking.system is not None else None
    metrics = {each.name: figures(each, answers[each.name], params.evaluate.headline) for each in scored}
    if params.evaluate.churn:
        size = params.evaluate.churn.batch_size
        metrics = {name: each | {"churn": churn(answers[name], again[name], size)} for name, each in metrics.items()}
    write_json(metrics_path, {"system_prompt": prompt, "settings": settings(asking)} | metrics)
    write_facts(arm_name, scored, time.monotonic() - started, params)
    for name, each in metrics.items():
        log.info("evaluate: %s: %s: %s", arm_name, name, summary_line(each))
    return None


def summary_line(figures: dict[str, Any]) -> str:
    """A benchmark's score in one line, or how many answers it has if it has no score."""
    if "value" not in figures:
        return f"{figures['n']} answers, which have no score: a judge compares them (prefer)"
    return f"{figures['value']:.4f} of {figures['n']} ({figures['headline']})"


def disable_progress_bars() -> None:
    """Log lines instead of bars if stderr is not a terminal. tqdm reads the variable when it is imported."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def asking_of(arm_name: str, folder: Path, params: Params) -> Asking:
    """The settings of an arm. Only an arm with the system text of the training knows the markers."""
    system = system_text(arm_name, params)
    markers = params.convert.markers if system is not None else None
    return Asking(
        arm=arm_name,
        weights=folder.resolve(),  # lm-eval works in another folder
        system=system,
        in_user_turn=arm_name == "base" and params.train.system_prompt == "in_user_turn",
        think_end_token=markers.begin_of_solution if markers else None,
        end_marker=markers.end_of_solution if markers else None,
        params=params.evaluate,
        run=params.run,
    )


def weights(model_path: Path | None, params: Params) -> Path:
    """The folder of the trained weights, or of the untrained student's."""
    if model_path is None:
        return student_folder(params.train.student)
    if not (model_path / "config.json").is_file():
        raise StudentError(f"{model_path}: no trained model there. Run 'dvc repro train' to train it.")
    return model_path


def system_text(arm_name: str, params: Params) -> str | None:
    """The system text of the training for a trained arm; for the base arm, as params say."""
    if arm_name == "base" and params.evaluate.base_prompt == "plain":
        return None
    return prompt_text(params.convert.system_prompt)


def write_scores(path: Path, answers: dict[str, list[Evaluated]]) -> None:
    """Write the table by which arms are compared; answers without a score are not in it."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["question_id", "benchmark", "cluster", "correct"])
    for each in answers.values():
        scored = [row for row in each if row.correct is not None]
        table.writerows((row.id, row.benchmark, row.cluster, int(bool(row.correct))) for row in scored)
    with writing(path) as file:
        file.write(text.getvalue().encode())


def write_examples(path: Path, answers: dict[str, list[Evaluated]], seed: int) -> None:
    """Write the audit's examples of each benchmark that has generated texts."""
    with writing(path) as file:
        for name, each in answers.items():
            texts = [audited(row) for row in each if row.tokens is not None]
            for example in examples(texts, seed):
                file.write(json.dumps({"benchmark": name, **example}, ensure_ascii=False).encode() + b"\n")


def write_facts(arm_name: str, scored: Sequence[Scored], seconds: float, params: Params) -> None:
    """Write what differs from run to run, and lm-eval's own numbers, not rounded."""
    facts: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "threads": params.run.threads,
        "processes": params.run.processes,
        "device": params.run.device,
        "lm_eval": tables(scored),
    }
    write_json(project_root() / "metrics" / "runs" / f"evaluate-{arm_name}.json", facts)


if __name__ == "__main__":
    main()
