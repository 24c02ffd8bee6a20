"""Train one arm: the student on one dataset, or on-policy from another arm towards a teacher.

In:   data/sharegpt/DATASET, the student's weights
      models/START and models/TEACHER of an on-policy arm; a teacher's may be a file that names it (teachers)
Out:  models/ARM/                     merged weights (safetensors), tokenizer and the chat template of the training
      data/train/ARM.left_out.jsonl   conversations over the arm's cutoff_len that were not trained on, with the reason:
                                      {"id": "filtered/3", "reason": "too_long", "tokens": 1130, "cutoff_len": 1024, …}
      metrics/train/ARM.json          the student, the rows, steps, epochs and tokens of the training, the batch, first
                                      and last loss: the same on every machine whose arithmetic is the same
                                      of an on-policy arm also start_from, teacher, and on_policy (its answers)
      metrics/train/ARM.loss.csv      step,loss,learning_rate; it grows while the student is trained
      metrics/dvc.yaml                two plots: the losses of all arms, the lengths of their datasets
      metrics/runs/train-ARM.json     speed, memory, device, library versions: what differs from run to run

Alone:  python -m stages.train --arm filtered --dataset DIR/filtered --model OUT --left-out L.jsonl --metrics M.json
        --loss L.csv
"""

import importlib
import io
import json
import logging
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import click
from ruamel.yaml import YAML

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root, run_under
from stages.lib.logprobs.scores import check_origin
from stages.lib.params import OnPolicyArm, Params, ParamsError, load_params
from stages.lib.rows import DataError, write_json, write_rows, writing
from stages.lib.students import student_folder, student_tokenizer
from stages.lib.token_teacher import teacher_folder, teacher_identity
from stages.lib.training import Job, LeftOut, Nodes, TooLong, Trained, TrainingError
from stages.lib.training.dataset import ShareGpt
from stages.lib.training.identity import student_identity
from stages.lib.training.nodes import KINDS, nodes_of
from stages.lib.training.progress import curve
from stages.lib.training.resources import peak_memory
from stages.lib.training.rows_folder import rows_folder
from stages.lib.training.saving import check_finite, check_losses
from stages.lib.training.trackers import reporting
from stages.lib.vocabulary import vocabulary_hash

log = logging.getLogger("distillery.train")


@dataclass(frozen=True)
class Given:
    """What some arms need: the teacher's probabilities, the arm that an on-policy one starts from, its teacher."""

    scores: Path | None = None
    start: Path | None = None
    teacher: Path | None = None

    def identity(self) -> dict[str, Any]:
        """An on-policy arm's start and teacher, for the metrics; empty for others."""
        if not (self.start and self.teacher):
            return {}
        return {"start_from": self.start.name, "teacher": teacher_identity(self.teacher)}


@click.command(help="Train the student on one dataset; save merged weights, tokenizer and chat template.")
@click.option("--arm", "arm_name", required=True, help="The arm's name in params.yaml.")
@click.option("--dataset", "dataset_path", type=READ, required=True, help="A ShareGPT dataset's folder, read.")
@click.option("--start-from", "start_path", type=READ, help="An on-policy arm's first weights, read.")
@click.option("--teacher", "teacher_path", type=READ, help="An on-policy arm's teacher, read.")
@click.option("--model", "model_path", type=WRITE, required=True, help="The trained weights' folder, written.")
@click.option("--scores", "scores_path", type=READ, help="The teacher's probabilities, read where alpha is above 0.")
@click.option("--left-out", "left_out_path", type=WRITE, required=True, help="Rows that are over cutoff_len, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Rows, steps, tokens and losses, written.")
@click.option("--loss", "loss_path", type=WRITE, required=True, help="The loss curve, written.")
@params_option
@one_line_errors
def main(
    arm_name: str,
    dataset_path: Path,
    start_path: Path | None,
    teacher_path: Path | None,
    model_path: Path,
    scores_path: Path | None,
    left_out_path: Path,
    metrics_path: Path,
    loss_path: Path,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    run_under(params.run.launcher.train, "train")
    dataset = ShareGpt(dataset_path)
    if several := dataset.shape.several:
        which = {"every": "every answer", "last": "the last answer"}[params.train.loss_on]
        log.info("train: %s: %d conversations have several turns; the loss is on %s", arm_name, several, which)
    write_plots(params)
    started = time.monotonic()
    given = Given(scores_path, start_path, teacher_path)
    with rows_folder(arm_name) as folder:
        trained = train_arm(arm_name, dataset, params, model_path, loss_path, folder, given)
        write_rows(left_out_path, trained.left_out, params.run.shard_rows)
        counts = summary(trained, dataset.shape.rows)
    write_loss(loss_path, trained)
    identity = student_identity(params.train.student)
    facts = {"student": identity} | given.identity() | counts
    write_json(metrics_path, facts)
    write_run_facts(arm_name, trained, time.monotonic() - started, params)
    log.info(
        "train: %s: %d rows, %d steps, loss %.3f → %.3f",
        arm_name,
        trained.rows,
        trained.steps,
        trained.losses[0].loss,
        trained.losses[-1].loss,
    )


def train_arm(
    name: str, dataset: ShareGpt, params: Params, out: Path, loss: Path, rows: Path, given: Given = Given()
) -> Trained:
    """Train in a temporary folder, and rename it to ``out`` when the weights are complete. ``loss`` grows meanwhile."""
    if name not in params.trained_arms:
        raise ParamsError(f"params.yaml: arms: no arm '{name}'. Known: {', '.join(params.trained_arms)}.")
    arm = params.trained_arms[name]
    if isinstance(arm, OnPolicyArm) != bool(given.start and given.teacher):
        raise ParamsError(f"train: --start-from and --teacher are for arms of on_policy, and only for them ({name}).")
    if arm.alpha and given.scores is None:
        raise ParamsError(f"arms.{name}.alpha: no file of probabilities. Name the one of 'score' with --scores.")
    if arm.alpha and given.scores:
        vocabulary = vocabulary_hash(student_tokenizer(params.train.student))
        check_origin(given.scores, name, params.score, vocabulary)
    nodes = nodes_of(os.environ) if params.train.trainer.kind in KINDS else Nodes()
    if nodes.rank:
        raise TrainingError(f"NODE_RANK: {nodes.rank}: node 0 alone trains under DVC. Run 'make join ARM={name}' here.")
    unfinished = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    kind = "on_policy" if isinstance(arm, OnPolicyArm) else params.train.trainer.kind
    trainer = importlib.import_module(f"stages.lib.trainers.{kind}")
    job = Job(
        name=name,
        conversations=dataset,
        student=given.start or student_folder(params.train.student),
        train=params.train,
        arm=arm,
        run=params.run,
        markers=params.convert.markers,
        out=unfinished,
        nodes=nodes,
        loss=loss.absolute(),
        scores=given.scores or Path(),
        teacher=teacher_folder(given.teacher) if given.teacher else None,
        rows=rows,
    )
    try:
        with reporting(job):
            trained: Trained = trainer.train(job)
        check_weights(unfinished)
        if not trained.losses:
            raise TrainingError(f"train: {name} had no training step. Raise arms.{name}.num_train_epochs.")
        check_losses(job, trained)
        check_finite(job, trained, unfinished)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return trained


def check_weights(folder: Path) -> None:
    """TrainingError unless weights, config, and a chat template were written."""
    template = (folder / "chat_template.jinja").is_file() or "chat_template" in _tokenizer_config(folder)
    if not list(folder.glob("*.safetensors")) or not (folder / "config.json").is_file() or not template:
        raise TrainingError(f"{folder}: the training wrote no complete model there. See its log above.")


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def write_loss(path: Path, trained: Trained) -> None:
    """Write the whole loss curve."""
    with writing(path) as file:
        file.write(curve(trained.losses).encode())


def write_plots(params: Params) -> None:
    """Write the plots that lay all arms over each other: DVC's own dvc.yaml cannot list the arms of params.yaml."""
    losses = {f"train/{arm}.loss.csv": "loss" for arm in params.trained_arms}
    lengths = {f"convert/{arm.dataset}.lengths.csv": "share" for arm in params.trained_arms.values()}
    plots = [
        {"losses": {"title": "Training loss of all arms", "x": "step", "y": losses}},
        {"lengths": {"title": "Conversations of at most so many tokens", "x": "tokens", "y": lengths}},
    ]
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO("# Written by train: the arms of params.yaml and their datasets.\n")
    text.seek(0, io.SEEK_END)
    yaml.dump({"plots": plots}, text)
    with writing(project_root() / "metrics" / "dvc.yaml") as file:
        file.write(text.getvalue().encode())


def summary(trained: Trained, conversations: int) -> dict[str, Any]:
    """The metrics: the rows trained on and left out, the share over cutoff_len, the first and last loss.

    DataError unless ``in = rows + left out``.
    """
    left_out = len(trained.left_out)
    if conversations != trained.rows + left_out:
        raise DataError(
            f"train: {conversations} rows in, {trained.rows + left_out} out: the dataset changed meanwhile, or this is "
            "a bug in train. Start it again."
        )
    facts = asdict(trained)
    losses, rollouts = facts.pop("losses"), facts.pop("rollouts")
    if facts["tokens_with_teacher"] is None:
        del facts["tokens_with_teacher"]
    for name in ("left_out", "resumed_at", "measured", "versions"):  # they are in other files
        del facts[name]
    return {
        "in": conversations,
        "rows": facts.pop("rows"),
        "rows_shortened": facts.pop("rows_shortened"),
        "rows_too_long": left_out,
        "left_out": by_reason(trained.left_out),
        **facts,
        **({"on_policy": rollouts} if rollouts else {}),
        "share_over_cutoff_len": round((left_out + trained.rows_shortened) / conversations, 4),
        "first_loss": round(losses[0]["loss"], 4),
        "last_loss": round(losses[-1]["loss"], 4),
    }


def by_reason(left_out: LeftOut) -> dict[str, int]:
    """How many were left out for each reason, including reasons with none."""
    found = Counter(row.reason for row in left_out)
    return {reason: found[reason] for reason in get_args(TooLong.model_fields["reason"].annotation)}


def write_run_facts(arm: str, trained: Trained, seconds: float, params: Params) -> None:
    """Write what differs from run to run; no stage depends on it. Speeds count only the steps of this run."""
    share = 1 - trained.resumed_at / trained.steps
    facts = {
        "seconds": round(seconds, 1),
        "resumed_at": trained.resumed_at,
        "tokens_per_second": round(share * trained.tokens_seen / seconds, 1),
        "tokens_trained_per_second": round(share * trained.tokens_trained / seconds, 1),
        "peak_memory_mib": peak_memory(),
        **trained.measured,
        "threads": params.run.threads,
        "device": params.run.device,
        "versions": trained.versions,
    }
    write_json(project_root() / "metrics" / "runs" / f"train-{arm}.json", facts)


if __name__ == "__main__":
    main()
