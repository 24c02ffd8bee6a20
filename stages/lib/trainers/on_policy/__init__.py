"""TRL's DistillationTrainer: the student answers, and a teacher of the same vocabulary scores each of its tokens.

The loss of a token is the divergence of the student's whole next-token distribution from the teacher's
(``arm.beta``: 1 is the reverse KL divergence). Every step rolls out new answers, one to each of its prompts. The
dataset's own answers are not trained on; they are the teacher's worked examples (worked.py). The prompts of all its
steps are in memory.

In one process on a CPU, this process trains. Else the processes of trl/worker.py do, as for the trainer ``trl``.
"""

import logging
import math
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.lib.chat_template import prompt_ids
from stages.lib.params import OnPolicyArm
from stages.lib.runtime.devices import check_device
from stages.lib.tokens.length import FittingRows, Row, fitting_rows
from stages.lib.tokens.tokenizer import aligned_tokenizer
from stages.lib.trainers.on_policy.vocabulary import check_sizes, fit_to_student
from stages.lib.trainers.on_policy.worked import longer_prompts, trainer_class
from stages.lib.trainers.trl import (
    TrainerResult,
    Work,
    adapter,
    arguments,
    check_shares,
    estimated_size,
    points,
    prepared,
    refused_by_trl,
    run_workers,
    save_trained,
    trains_here,
    watch,
)
from stages.lib.trainers.trl.sharding import shards_weights, trained_model
from stages.lib.training import Conversation, Job, Rollouts, Trained, TrainingError
from stages.lib.training.checkpoints import last_checkpoint, scratch_folder, step_of
from stages.lib.training.meeting import meeting
from stages.lib.training.resources import (
    GIB,
    STATE,
    WEIGHT,
    check_disk,
    check_weights_there,
    device_memory,
    explain_out_of_memory,
    peak_card_memory,
    stored_size,
)
from stages.lib.training.saving import minimal_generation_config
from stages.lib.training.trackers import check_installed
from stages.lib.vocabulary import check_same_vocabulary

log = logging.getLogger("distillery.train")


def train(job: Job) -> Trained:
    """Train, merge, save. A prompt that leaves no room for ``max_new_tokens`` in ``cutoff_len`` is left out."""
    check_device(job.run.device, job.run.processes)
    check_shares(job)
    if job.nodes.count > 1 or shards_weights(job):
        raise TrainingError(
            f"train: {job.name}: an on-policy arm is trained on one node, and each process holds all weights. Set "
            "NNODES=1, and set train.trainer.fsdp2: false and train.deepspeed to null or to a ZeRO-2 file."
        )
    check_installed(job)
    check_teacher(job)
    tokenizer = aligned_tokenizer(job)
    dataset = fitting_rows(job, lambda conversations: _measured(job, conversations, tokenizer))
    rows = dataset.conversations
    with meeting(job) as group, scratch_folder(job, rows) as scratch:
        work = Work(replace(job, conversations=rows), scratch, last_checkpoint(scratch), os.getpid(), __name__)
        result = run_trainer(work) if trains_here(job) else run_workers(work, group)
    return replace(_trained(job, result, dataset), resumed_at=step_of(work.checkpoint))


def check_teacher(job: Job) -> None:
    """TrainingError or StudentError for a teacher that cannot score this student's tokens; reads no weights."""
    for folder in (job.student, teacher_of(job)):
        check_weights_there(folder)
    check_same_vocabulary(job.student, teacher_of(job))
    check_sizes(job.student, teacher_of(job))


def teacher_of(job: Job) -> Path:
    """The folder of the teacher's weights."""
    assert job.teacher  # stages/train.py gives one to each on-policy arm
    return job.teacher


def asked(job: Job) -> OnPolicyArm:
    """The arm's settings."""
    assert isinstance(job.arm, OnPolicyArm)
    return job.arm


def _measured(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[Row]:
    """The tokens of each prompt and of the longest answer that the student may write."""
    prompts = prompt_ids(tokenizer, [each.messages()[:-1] for each in conversations])
    rows = zip(conversations, prompts, strict=True)
    return [Row(conversation, len(prompt) + asked(job).max_new_tokens) for conversation, prompt in rows]


def steps_of(job: Job) -> int:
    """The number of optimizer steps, each on new answers to as many prompts as a batch has."""
    arm = asked(job)
    return arm.max_steps or max(1, math.ceil(arm.num_train_epochs * job.shape.rows / job.batch))


def prompt_order(count: int, needed: int, seed: int) -> list[int]:
    """The prompts of the whole training by number, shuffled anew for each round.

    They are written out, so that a resumed training reads the same ones: TRL's sampler would shuffle as for round one.
    """
    draws, order = random.Random(seed), list[int]()
    while len(order) < needed:
        order += draws.sample(range(count), count)
    return order[:needed]


def run_trainer(work: Work) -> TrainerResult:
    """Train in this process, as the only one or as one of several. The first of them saves."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    job = work.job
    tokenizer = prepared(job)
    prompts = [each.messages()[:-1] for each in job.conversations]
    longer = longer_prompts(job, tokenizer)
    with explain_out_of_memory(job):
        check_needs(job, work.scratch)
        set_seed(job.train.seed)
        student = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
        student.generation_config = minimal_generation_config(tokenizer)
        dtype = torch.bfloat16 if job.train.bf16 else torch.float32
        teacher = AutoModelForCausalLM.from_pretrained(teacher_of(job), dtype=dtype)
        fit_to_student(teacher, student)
        order = prompt_order(len(prompts), steps_of(job) * job.batch, job.train.seed)
        trainer = _trainer(job, (student, teacher), tokenizer, [prompts[each] for each in order], str(work.scratch))
        ids = prompt_ids(tokenizer, prompts)
        trainer.longer_prompts = {tuple(own): shown for own, shown in zip(ids, longer, strict=True)} if longer else {}
        trainer.train(resume_from_checkpoint=str(work.checkpoint) if work.checkpoint else None)
        model = trained_model(trainer, job, adapter(job))
        if trainer.is_world_process_zero():
            save_trained(model, tokenizer, job)
    return _result(trainer, job, sum(len(longer[each]) - len(ids[each]) for each in order) if longer else 0)


def check_needs(job: Job, scratch: Path) -> None:
    """TrainingError if the disk or the memory is too small; checked before any weights are loaded."""
    size = estimated_size(job)
    check_disk(job, size, scratch)
    teacher = stored_size(teacher_of(job), None).parameters * (2 if job.train.bf16 else WEIGHT)
    needed, there = WEIGHT * size.parameters + STATE * size.trained + teacher, device_memory(job.run.device)
    facts = job.name, needed / GIB, teacher / GIB, job.run.device, there / GIB
    log.info("train: %s: at least %.1f GiB of memory, of which the teacher has %.1f; %s has %.1f GiB", *facts)
    if needed > there and not job.train.deepspeed:
        raise TrainingError(
            f"train: {job.name} needs {needed / GIB:.1f} GiB for the student, its optimizer and a teacher of "
            f"{teacher / GIB:.1f} GiB, and {job.run.device} has {there / GIB:.1f} GiB. Choose a smaller teacher, or "
            "set train.bf16: true or train.finetuning.kind: lora."
        )


def _trainer(job: Job, models: tuple[Any, Any], tokenizer: Any, prompts: list[Any], scratch: str) -> Any:
    from datasets import Dataset
    from trl import DistillationConfig

    arm = asked(job)
    config = DistillationConfig(
        **arguments(job, scratch),
        max_steps=steps_of(job),
        beta=arm.beta,
        temperature=arm.temperature,
        top_k=arm.top_k,
        max_completion_length=arm.max_new_tokens,
        shuffle_dataset=False,  # prompt_order did
    )
    student, teacher = models
    with refused_by_trl():
        trainer = trainer_class()(
            model=student,
            teacher_model=teacher,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=tokenizer,
            peft_config=adapter(job),
        )
    watch(trainer, job, job.batch * arm.max_new_tokens)
    return trainer


def _result(trainer: Any, job: Job, more: int) -> TrainerResult:
    """What the trainer logged of each step; ``more`` tokens were in the teacher's prompts alone."""
    steps, batch = [entry for entry in trainer.state.log_history if "loss" in entry], job.batch
    rolled_out = sum(round(entry["completions/mean_length"] * batch) for entry in steps)
    seen = round(steps[-1]["num_tokens"]) if steps else 0
    return TrainerResult(
        steps=trainer.state.global_step,
        epochs=trainer.state.global_step * batch / job.shape.rows,
        packs=job.shape.rows,
        tokens_trained=rolled_out,
        tokens_with_teacher=None,
        losses=points(trainer.state),
        measured=peak_card_memory(job.run.device),
        rollouts=Rollouts(
            prompts=trainer.state.global_step * batch,
            tokens_prompted=seen - rolled_out,
            tokens_rolled_out=rolled_out,
            tokens_scored=rolled_out,
            tokens_of_teacher=seen + more,
            share_cut_off=round(sum(entry["completions/clipped_ratio"] for entry in steps) / max(1, len(steps)), 4),
        ),
    )


def _trained(job: Job, result: TrainerResult, dataset: FittingRows) -> Trained:
    assert result.rollouts
    return Trained(
        rows=dataset.rows,
        rows_shortened=0,
        left_out=dataset.left_out,
        steps=result.steps,
        epochs=round(result.epochs, 4),
        tokens_seen=result.rollouts.tokens_prompted + result.rollouts.tokens_rolled_out,
        tokens_trained=result.tokens_trained,
        effective_batch=job.batch,
        losses=result.losses,
        measured=result.measured,
        rollouts=result.rollouts,
    )
