"""Train with openMind in its own environment: write its YAML and dataset, run it, save its weights.

In:   a job (training/__init__.py), train.trainer of params.yaml
Out:  job.out                        final weights, tokenizer, and the chat template of the training
      .cache/training/ARM.log        all output of openMind; its lines are on stderr too
      .cache/training/ARM/DIGEST/    while it runs: train.yaml, ARM's dataset, dataset_info.json, openMind's output

openMind is started by ``train.trainer.command``, else by ``$OPENMIND_CLI``, else as ``openmind-cli`` of the PATH. It
inherits the whole environment: ASCEND_RT_VISIBLE_DEVICES, NPROC_PER_NODE, NNODES, RANK, MASTER_ADDR, HCCL_… Its exit
code is 0 even when it fails, so a training has succeeded only when the weights and all its steps are written. With
``run.resume``, a killed training resumes from its last complete checkpoint.

This module depends on these facts, read in the source of release 1.0.0:
- unknown keys of the YAML are fatal, ``template`` among them; the model type determines the template;
- a sample's ``system`` text is ignored; a fixed sentence replaces it (``system_prompt: in_user_turn``);
- prompt and answer are tokenized separately, the end token follows the answer, and only these two have a loss;
- of several turns, each answer has a loss, and each question but the first is written twice: its template's
  separator holds the question too (``check_loss_on``, ``inputs.sample``);
- prompts and answers longer than cutoff_len are cut: tokens/length.py handles such rows before openMind reads them;
- every process casts all trained weights to fp32 on the host before DeepSpeed or the card gets them.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stages.lib.params import OpenMind
from stages.lib.trainers.openmind.inputs import registered, settings_of, write_inputs
from stages.lib.trainers.openmind.tokens import chat_template, check_turns, measured_rows
from stages.lib.training import Conversation, Job, Trained, TrainingError
from stages.lib.training.external import Program, inherited, releases, run
from stages.lib.training.resources import check_weights_there

PROGRAM = Program("openMind", "openmind", "OPENMIND_CLI", "openmind-cli")
MODEL_TYPES = ("qwen2",)  # those that release 1.0.0 has a template for (its configs/models.json)


def train(job: Job) -> Trained:
    """Train with openMind and save its weights. No conversation is cut at ``cutoff_len`` (tokens/length.py)."""
    from transformers import AutoTokenizer

    program, _ = find_openmind(settings_of(job))
    PROGRAM.check_trackers(job, program)
    check_student(job)
    check_loss_on(job)
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    check_turns(job.student, tokenizer)
    tokenizer.chat_template = chat_template(job.train.system_prompt)
    dataset = measured_rows(job, tokenizer)
    return run(PROGRAM, job, dataset, tokenizer, partial(prepared, job), partial(environment, job))


@contextmanager
def prepared(job: Job, rows: Iterable[Conversation], scratch: Path) -> Iterator[None]:
    """Write what openMind reads; the dataset is known to it meanwhile."""
    write_inputs(job, rows, scratch)
    with registered(settings_of(job), scratch):
        yield


def check_student(job: Job) -> None:
    """TrainingError if weights are missing, or if openMind has no template for the student."""
    folder = job.student
    check_weights_there(folder)
    config = json.loads((folder / "config.json").read_bytes())
    if settings_of(job).version == "1.0.0" and config.get("model_type") not in MODEL_TYPES:
        raise TrainingError(
            f"{folder}/config.json: openMind 1.0.0 has a template for {', '.join(MODEL_TYPES)} only, not for "
            f"{config.get('model_type')}. Choose another student, or train.trainer.kind: trl."
        )


def check_loss_on(job: Job) -> None:
    """TrainingError if earlier answers of a conversation are to be trained."""
    several = job.shape.several
    if several and job.train.loss_on == "every":
        raise TrainingError(
            f"train.loss_on: every, and {several} conversations of {job.arm.dataset} have several turns, in which "
            "openMind writes each later question twice. Set it to last, or train.trainer.kind: trl."
        )


def find_openmind(settings: OpenMind) -> tuple[str, list[str]]:
    """openMind's program, and the arguments after it; TrainingError if there is none, or another release."""
    program, words = PROGRAM.find(settings)
    check_release(settings, program)
    return program, words


def check_release(settings: OpenMind, program: str) -> None:
    """TrainingError if the program's environment has another release than ``train.trainer.version``.

    Without an installed release there (a wrapper, a container, an editable install) nothing is checked.
    """
    release = releases(program, "openmind").get("openmind")
    if settings.version != "git" and release and settings.version != release:
        raise TrainingError(
            f"train.trainer.version: {settings.version}, but {program} belongs to openMind {release}. Set version "
            "git, template qwen, or install that release."
        )


def environment(job: Job, program: str, scratch: Path) -> dict[str, str]:
    """The inherited environment with what openMind needs to run and to log."""
    return inherited(program, job, scratch) | {
        "OPENMIND_HIDE_STACKTRACE": "FALSE",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # else newer torch refuses the older library's own checkpoints
        "TRANSFORMERS_VERBOSITY": "info",  # then the Trainer logs its number of rows and its batch size
    }
