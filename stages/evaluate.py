"""Ask one arm the benchmark questions, with lm-eval, and score its answers.

In:   models/ARM (or, for the base arm, the untrained student), data/heldout.jsonl
Out:  metrics/eval/ARM.json         {"heldout": {"accuracy": 0.36, "n": 200, "cut_off": 3, …}}
      metrics/eval/ARM.scores.csv   question_id,benchmark,cluster,correct
      data/eval/ARM.jsonl           every prompt, answer and verdict, with lm-eval's hashes

Alone:  python -m stages.evaluate --arm filtered --model DIR --heldout H.jsonl --metrics M --scores S --answers A
"""

import csv
import io
import logging
import time
from pathlib import Path
from typing import Any

import click

from stages.lib.answers import rule_verdict
from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.evaluation.harness import Generation, TaskResult, evaluate
from stages.lib.evaluation.tasks import heldout_task
from stages.lib.params import Params, load_params, prompt_text
from stages.lib.records import Evaluated, Question, read_some_rows, write_json, write_rows, writing
from stages.lib.students import StudentError, student_folder

log = logging.getLogger("distillery.evaluate")

RECOUNT = 2  # tokens are counted in the text, which is often split into a few less than were generated


@click.command(help="Ask one arm the benchmark questions and score its answers.")
@click.option("--arm", "arm_name", required=True, help="'base', or the arm's name in params.yaml.")
@click.option("--model", "model_path", type=READ, help="The arm's weights, read; the untrained student for 'base'.")
@click.option("--heldout", "heldout_path", type=READ, required=True, help="Held-out questions, read.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Scores, written.")
@click.option("--scores", "scores_path", type=WRITE, required=True, help="Right or wrong by question, written.")
@click.option("--answers", "answers_path", type=WRITE, required=True, help="Every answer's text, written.")
@params_option
@one_line_errors
def main(
    arm_name: str,
    model_path: Path | None,
    heldout_path: Path,
    metrics_path: Path,
    scores_path: Path,
    answers_path: Path,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    read_some_rows(heldout_path, Question, "Run 'dvc repro collect' to rebuild it.")
    system = system_text(arm_name, params)
    started = time.monotonic()
    results = evaluate(
        model=weights(model_path, params),
        tasks=[heldout_task(heldout_path, params.evaluate)],
        system=system,
        params=params.evaluate,
        run=params.run,
    )
    rows = [_evaluated(name, generation, params) for name, task in results.items() for generation in task.generations]
    write_rows(answers_path, rows)
    write_scores(scores_path, rows)
    prompt = {"system_prompt": params.convert.system_prompt if system is not None else None}
    write_json(metrics_path, prompt | {name: scores(task, _of(name, rows)) for name, task in results.items()})
    facts = {
        "seconds": round(time.monotonic() - started, 1),
        "threads": params.run.threads,
        "device": params.run.device,
    }
    write_json(project_root() / "metrics" / "runs" / f"evaluate-{arm_name}.json", facts)
    log.info("evaluate: %s: %d of %d right", arm_name, sum(row.correct for row in rows), len(rows))


def weights(model_path: Path | None, params: Params) -> Path:
    """The trained weights, or the untrained student's."""
    if model_path is None:
        return student_folder(params.train.student)
    if not (model_path / "config.json").is_file():
        raise StudentError(f"{model_path}: no trained model there. Run 'dvc repro train' to make it.")
    return model_path


def system_text(arm_name: str, params: Params) -> str | None:
    """A trained arm gets the system text of its training; the base arm what params say."""
    if arm_name == "base" and params.evaluate.base_prompt == "plain":
        return None
    return prompt_text(params.convert.system_prompt)


def _evaluated(benchmark: str, generation: Generation, params: Params) -> Evaluated:
    doc = generation.doc
    verdict = rule_verdict(doc["question"], generation.response, doc["answer"])
    return Evaluated(
        id=doc["id"],
        benchmark=benchmark,
        cluster=doc["id"],
        question=doc["question"],
        answer=doc["answer"],
        prompt=generation.prompt,
        response=generation.response,
        prediction=verdict.prediction,
        verdict=verdict.verdict,
        decided_by=f"rule:{verdict.rule}",
        correct=generation.acc == 1.0,
        tokens=generation.tokens,
        cut_off=generation.tokens >= params.evaluate.max_gen_toks - RECOUNT,
        doc_hash=generation.doc_hash,
        prompt_hash=generation.prompt_hash,
        target_hash=generation.target_hash,
    )


def _of(benchmark: str, rows: list[Evaluated]) -> list[Evaluated]:
    return [row for row in rows if row.benchmark == benchmark]


def write_scores(path: Path, rows: list[Evaluated]) -> None:
    """The small table that arms are compared by."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["question_id", "benchmark", "cluster", "correct"])
    table.writerows((row.id, row.benchmark, row.cluster, int(row.correct)) for row in rows)
    with writing(path) as file:
        file.write(text.getvalue().encode())


def scores(task: TaskResult, rows: list[Evaluated]) -> dict[str, Any]:
    """lm-eval's score, and how many answers were cut off by the limit or could not be read."""
    return {
        "accuracy": round(task.acc, 4),
        "stderr": round(task.stderr, 4) if task.stderr is not None else None,
        "n": len(rows),
        "correct": sum(row.correct for row in rows),
        "unread": sum(row.verdict == "unsure" for row in rows),
        "cut_off": sum(row.cut_off for row in rows),
        "tokens_mean": round(sum(row.tokens for row in rows) / len(rows), 1),
    }


if __name__ == "__main__":
    main()
