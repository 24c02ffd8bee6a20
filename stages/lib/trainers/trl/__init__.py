"""TRL's SFTTrainer: LoRA or full, loss on the answers alone (tokens), on a CPU, a GPU or (with torch_npu) an NPU.

On a CPU with one process, this process trains. On cards, with ``run.processes`` above 1 or with DeepSpeed, that many
processes of worker.py train. This process writes the job for them, waits, and reads the result of the first one. On
several nodes (training/meeting.py) each starts ``run.processes`` of them, and the first one of all is on node 0.

    .cache/training/ARM/rows-HOST-RANDOM/tokens.arrow    all tokens, tokenized once, which all processes read
    .cache/training/ARM/DIGEST/work.json    the job for the processes, which write result.json or error.txt beside it
    .cache/training/ARM.log                 all their output; its lines are on stderr too
"""

import json
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from stages.lib.command import project_root
from stages.lib.logprobs.scores import Targets, uncompressed
from stages.lib.rows import writing
from stages.lib.runtime.devices import check_bf16, check_device, split, visible_cards
from stages.lib.runtime.versions import versions
from stages.lib.tokens.length import FittingRows
from stages.lib.tokens.table import TOKENS, tokenized
from stages.lib.tokens.tokenizer import aligned_tokenizer, check_end_is_trained, end_of_turn
from stages.lib.trainers.trl.batches import (
    CountingCollator,
    Labelled,
    batches_of,
    labelled,
    leaks,
    packed_rows,
    padded_with_fillers,
    row_order,
)
from stages.lib.trainers.trl.sharding import fsdp2_keys, prepare_cpu, trained_model
from stages.lib.trainers.trl.teacher import follow_teacher
from stages.lib.training import LIBRARIES, Job, LossPoint, Rollouts, Trained, TrainingError
from stages.lib.training.checkpoints import last_checkpoint, scratch_folder, step_of
from stages.lib.training.launching import deepspeed_file, last_lines, launch, zero_of
from stages.lib.training.meeting import Group, facts_of, joined, lead, meeting
from stages.lib.training.progress import Progress
from stages.lib.training.resources import (
    Sharing,
    Size,
    check_disk,
    check_memory,
    check_weights_there,
    explain_out_of_memory,
    memory_advice,
    peak_card_memory,
    says_out_of_memory,
)
from stages.lib.training.saving import minimal_generation_config, not_finite, save_merged, save_model
from stages.lib.training.trackers import check_installed, log_folder

log = logging.getLogger("distillery.train")

TARGETS = "targets.arrow"  # in the scratch folder: the teacher's probabilities, which all processes read
WORKER = "stages.lib.trainers.trl.worker"
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class Work:
    """The input of a training process: the job with the rows that fit, the checkpoint to resume from, its parent.

    ``trainer``: the module whose ``run_trainer`` trains.
    """

    job: Job
    scratch: Path
    checkpoint: Path | None
    stage_pid: int
    trainer: str = __name__


@dataclass(frozen=True)
class TrainerResult:
    """The Trainer's result; ``packs`` is the number of rows of its own dataset.

    ``measured`` covers its first process only: the share of padding in its batches, the peak memory of its card.
    """

    steps: int
    epochs: float
    packs: int
    tokens_trained: int
    losses: list[LossPoint]
    measured: dict[str, float]
    tokens_with_teacher: int | None
    rollouts: Rollouts | None = None


def train(job: Job) -> Trained:
    """Train, merge, save. No conversation is cut at ``cutoff_len`` (tokens/length.py)."""
    with meeting(job) as group:
        dataset = _dataset(job)
        rows = dataset.conversations
        with scratch_folder(job, rows) as scratch:
            if job.arm.alpha:
                _write_targets(job, scratch)
            work = Work(replace(job, conversations=rows), scratch, last_checkpoint(scratch), os.getpid())
            result = run_trainer(work) if trains_here(job) else run_workers(work, group)
    return replace(_trained(job, result, dataset), resumed_at=step_of(work.checkpoint))


def is_alone(job: Job) -> bool:
    """Whether one process trains, without a process group."""
    return job.processes == 1 and job.train.deepspeed is None


def trains_here(job: Job) -> bool:
    """Whether this process trains, and none of worker.py."""
    return job.run.device == "cpu" and is_alone(job)


def join(job: Job) -> bool:
    """Train as one of several nodes but node 0, which saves the student; False if nothing was left to train."""
    with meeting(job) as group:
        rows = _dataset(job).conversations
        with joined(group, facts_of(job, rows, versions(LIBRARIES))) as training:
            if training:
                work = Work(replace(job, conversations=rows), training.scratch, training.checkpoint, os.getpid())
                _launch_workers(work, training.own, group, training.port)
    return training is not None


def _dataset(job: Job) -> FittingRows:
    """The rows that fit, after the checks that need no rows."""
    check_device(job.run.device, job.run.processes)
    check_weights_there(job.student)
    check_shares(job)
    check_installed(job)
    return tokenized(job, aligned_tokenizer(job))


def check_shares(job: Job) -> None:
    """TrainingError if the processes cannot split a step's batches evenly, or cannot share the weights."""
    processes, batches = job.processes, job.train.gradient_accumulation_steps
    stage = zero_of(job.train.deepspeed)
    if batches % processes:
        nodes = f" (run.processes on each of {job.nodes.count} nodes)" if job.nodes.count > 1 else ""
        raise TrainingError(
            f"run.processes: {processes} processes{nodes} cannot split the {batches} batches of a step evenly. Set "
            "train.gradient_accumulation_steps to a multiple of them: the rows of a step stay the same."
        )
    if job.arm.alpha and job.nodes.count > 1:
        raise TrainingError(
            f"arms.{job.name}.alpha: only node 0 has the teacher's probabilities. Train on one node, or set alpha: 0.0."
        )
    if job.train.fsdp2 and processes == 1:
        raise TrainingError("train.trainer.fsdp2: one process has nobody to share with. Raise run.processes.")
    if job.train.packing and stage == 3:
        raise TrainingError(
            "train.trainer.packing: ZeRO-3 never has the whole model, which shows whether packed rows attend to each "
            "other. Set packing: false, or use ZeRO-2 or fsdp2."
        )


def run_workers(work: Work, group: Group) -> TrainerResult:
    """Train in separate processes on all nodes; the result of the first of them."""
    facts = facts_of(work.job, work.job.conversations, versions(LIBRARIES)) if work.job.nodes.count > 1 else {}
    port = lead(group, facts, work.scratch, work.checkpoint)
    result = _launch_workers(work, work.scratch, group, port)
    assert result  # node 0 has the first process
    return result


def _launch_workers(work: Work, folder: Path, group: Group, port: int) -> TrainerResult | None:
    """Start this node's processes, each with its share of its cards or threads; the result of the first of all."""
    job, first = work.job, work.job.nodes.rank == 0
    count = job.run.processes
    log_path = project_root() / ".cache" / "training" / f"{job.name}{'' if first else f'.{folder.name}'}.log"
    for name in ("result.json", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    alone = {"device": split(job.run.device)[0], "threads": max(1, job.run.threads // count)}
    worker = replace(work, job=replace(job, run=job.run.model_copy(update=alone)))
    with writing(folder / "work.json") as file:
        file.write(TypeAdapter(Work).dump_json(worker))
    cards = visible_cards(job.run.device, count)
    command = command_line(job, folder / "work.json", port)
    code = launch(command, environment(worker.job, cards), log_path, beside=group.watching)
    if (folder / "error.txt").is_file() and not was_killed(code, log_path):  # else the others only lack that one
        raise TrainingError((folder / "error.txt").read_text())
    result = folder / "result.json"
    if code or (first and not result.is_file()):
        raise failure(job, code, log_path)
    return TypeAdapter(TrainerResult).validate_json(result.read_bytes()) if first else None


def was_killed(code: int, log_path: Path) -> bool:
    """Whether a process of the training was killed, by its exit code or by torchrun's report."""
    return code == -signal.SIGKILL or "(SIGKILL)" in log_path.read_text(errors="replace")


def failure(job: Job, code: int, log_path: Path) -> TrainingError:
    """The error for processes that wrote none themselves, such as those that the kernel killed to free memory."""
    if was_killed(code, log_path) or says_out_of_memory(log_path.read_text(errors="replace")):
        return TrainingError(
            f"train: {job.name}: a process was killed, probably because the host ran out of memory (see {log_path}). "
            f"{memory_advice(job)}, or lower run.processes: each process first loads all weights in fp32 there."
        )
    return TrainingError(f"train: {job.name}: a process ended with exit code {code}. {last_lines(log_path)}")


def command_line(job: Job, work: Path, port: int) -> list[str]:
    """One process runs without torchrun: a process group of one would cost DDP's copy of the gradients."""
    nodes = job.nodes
    group = ["--standalone", "--local-addr", "127.0.0.1"]
    if nodes.count > 1:
        group = ["--nnodes", str(nodes.count), "--node-rank", str(nodes.rank)]
        group += ["--master-addr", nodes.address, "--master-port", str(port)]
    torchrun = ["-m", "torch.distributed.run", *group, "--nproc-per-node", str(job.run.processes)]
    return [sys.executable, *([] if is_alone(job) else torchrun), "-m", WORKER, str(work)]


def environment(job: Job, cards: dict[str, str]) -> dict[str, str]:
    """Our environment, with the path of this code, only its cards visible, its threads, and no rank but torchrun's."""
    code = str(Path(__file__).resolve().parents[3])
    own = {"PYTHONPATH": os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])}
    if job.run.device == "cpu":
        own |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(job.run.threads)}
    # a shell where openMind trained on two hosts, or a cluster's pod, may still have RANK=1
    ours = {name: value for name, value in os.environ.items() if name not in RANKS}
    return ours | own | cards


def run_trainer(work: Work) -> TrainerResult:
    """Train in this process, as the only one or as one of several. The first of them saves."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    job = work.job
    tokenizer = prepared(job)
    with explain_out_of_memory(job):
        check_needs(job, work.scratch)
        config = _config(job, str(work.scratch))  # before the weights: with ZeRO-3 they are shared when they are loaded
        set_seed(job.train.seed)  # the adapters are initialized at random
        # bf16 is only the precision of the arithmetic: in bf16 weights, small updates would be rounded away
        model = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
        model.generation_config = minimal_generation_config(tokenizer)  # some published ones cannot be saved
        trainer = _trainer(job, model, tokenizer, config)
        found = labelled(trainer.train_dataset, tokenizer.eos_token_id)
        check_end_is_trained(job, found.ends, job.shape.answers, tokenizer)
        watch(trainer, job, found.lengths.sum() / len(found.lengths) * job.batch)
        with_teacher = _follow_teacher(trainer, work) if job.arm.alpha else None
        _set_row_order(trainer, job, tokenizer, found, epochs_done(work.checkpoint))
        trainer.train(resume_from_checkpoint=str(work.checkpoint) if work.checkpoint else None)
        model = trained_model(trainer, job, adapter(job))
        if trainer.is_world_process_zero():
            save_trained(model, tokenizer, job)
            _log_batches(trainer, job)
    measured = {"padding_share": round(trainer.data_collator.padding_share, 4)} | peak_card_memory(job.run.device)
    return _trainer_result(trainer, found, measured, with_teacher)


def prepared(job: Job) -> Any:
    """The student's tokenizer, in a process that is ready to train: its threads, its devices."""
    import torch

    torch.set_num_threads(job.run.threads)
    if job.run.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # the Trainer looks for DeepSpeed even if it does not use it
    if job.train.bf16:
        check_bf16(job.run.device)
    tokenizer = aligned_tokenizer(job)
    tokenizer.eos_token = end_of_turn(job, tokenizer)  # the trainer copies it to generation_config
    return tokenizer


def epochs_done(checkpoint: Path | None) -> int:
    """The number of complete epochs at a checkpoint."""
    return int(json.loads((checkpoint / "trainer_state.json").read_bytes())["epoch"]) if checkpoint else 0


def _set_row_order(trainer: Any, job: Job, tokenizer: Any, found: Labelled, epoch: int = 0) -> None:
    """Set the order of rows from batches.py, and count tokens and padding."""
    order = row_order(found.lengths, job.train, job.processes)
    trainer.train_dataset = padded_with_fillers(trainer.train_dataset, order.fillers, tokenizer.eos_token_id)
    order.set_epoch(epoch)  # accelerate does not set it while a resumed epoch skips batches
    trainer._get_train_sampler = lambda dataset=None: order
    trainer.data_collator = CountingCollator(trainer.data_collator)


def _write_targets(job: Job, scratch: Path) -> None:
    """The teacher's probabilities where all processes read them."""
    uncompressed(job.scores, scratch / TARGETS)
    if not Targets(scratch / TARGETS).tokens:
        raise _no_targets(job)


def _follow_teacher(trainer: Any, work: Work) -> int:
    """Train on the teacher's probabilities too; the tokens of an epoch that have them, at least one."""
    targets = Targets(work.scratch / TARGETS)
    rows = (ids for batch in batches_of(trainer.train_dataset) for ids in packed_rows(batch))
    count = sum(len(targets.of(ids).positions) for ids in rows)
    if not count:
        raise _no_targets(work.job)
    follow_teacher(trainer, targets, work.job.arm.alpha)
    return count


def _no_targets(job: Job) -> TrainingError:
    return TrainingError(
        f"arms.{job.name}.alpha: no token of its rows has the teacher's probabilities. metrics/score/{job.name}.json "
        "says why; fix score, or set alpha: 0.0."
    )


def _log_batches(trainer: Any, job: Job) -> None:
    """Log the number of processes and the share of padding in the batches."""
    state = trainer.accelerator.state
    facts = state.num_processes, state.distributed_type.value, 100 * trainer.data_collator.padding_share
    log.info("train: %s: %d processes (%s), %.1f %% of the batches was padding", job.name, *facts)


def check_needs(job: Job, scratch: Path) -> None:
    """TrainingError if the disk or the memory is too small; checked before the weights are loaded."""
    size = estimated_size(job)
    if job.nodes.rank == 0:
        check_disk(job, size, scratch)
    stage = zero_of(job.train.deepspeed)
    # without DeepSpeed, bf16 is only for the arithmetic: frozen weights stay fp32 too
    bf16 = job.train.bf16 and stage is not None
    check_memory(job, size, Sharing(job.processes, stage, bf16, job.train.fsdp2, job.nodes.count))


def estimated_size(job: Job) -> Size:
    """The parameters of the student and of its adapters, counted on the meta device."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.student))
        if job.train.lora:
            with refused_by_trl():
                model = get_peft_model(model, adapter(job))
    numbers = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return Size(sum(count for count, _ in numbers), sum(count for count, trained in numbers if trained))


@contextmanager
def refused_by_trl() -> Iterator[None]:
    """Turn errors of TRL and peft into a TrainingError, such as for target modules that the student does not have."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"train: TRL refuses these params: {error!s:.300} Fix the train section.") from error


def arguments(job: Job, scratch: str) -> dict[str, Any]:
    """The settings that TRL's trainers share."""
    params = job.train
    return {
        "output_dir": scratch,
        "per_device_train_batch_size": params.per_device_train_batch_size,
        "gradient_accumulation_steps": params.gradient_accumulation_steps // job.processes,
        "gradient_checkpointing": params.gradient_checkpointing and not params.fsdp2,  # FSDP2 has its own
        "learning_rate": job.arm.learning_rate,
        "lr_scheduler_type": params.lr_scheduler_type,
        "warmup_steps": params.warmup_ratio,  # a float below 1 is a share of all steps
        "weight_decay": params.weight_decay,
        **optimizer(job.run.device),
        "bf16": params.bf16,
        "use_cpu": job.run.device == "cpu",
        "seed": params.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log 0.0
        "disable_tqdm": True,  # progress.py shows it
        "save_strategy": "steps" if job.run.checkpoint_steps else "no",
        "save_steps": job.run.checkpoint_steps or 1,
        "save_total_limit": 1,
        "report_to": [name for name in job.run.report_to if name != "dvclive"] or "none",
        "run_name": job.name,
        "deepspeed": deepspeed_file(params.deepspeed),
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
    }


def _config(job: Job, scratch: str) -> Any:
    """TRL's settings; with several processes, this begins their group."""
    from trl import SFTConfig

    params, arm = job.train, job.arm
    config = SFTConfig(
        **arguments(job, scratch),
        num_train_epochs=arm.num_train_epochs,
        max_steps=arm.max_steps or -1,
        max_length=arm.cutoff_len if params.packing else None,  # rows that are too long are left out: nothing is cut
        packing=params.packing,
        packing_strategy="bfd",  # does not split rows
        **fsdp2_keys(job),
    )
    prepare_cpu(job, config)
    return config


def _trainer(job: Job, model: Any, tokenizer: Any, config: Any) -> Any:
    from datasets import Dataset
    from trl import SFTTrainer

    if config.packing and leaks(model):
        log.warning("train.trainer.packing: off: in a %s, packed rows would attend to each other", type(model).__name__)
        config.packing, config.max_length = False, None
    with refused_by_trl():
        return SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_file(str(job.rows / TOKENS)),
            processing_class=tokenizer,
            peft_config=adapter(job),
        )


def watch(trainer: Any, job: Job, tokens_per_step: float) -> None:
    """Show the training's progress, report it where params say, and stop it at a loss that is not finite."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if "dvclive" in job.run.report_to and trainer.is_world_process_zero():
        trainer.add_callback(_report_to_dvclive(job))
    trainer.add_callback(_show_progress(Progress(job.name, job.loss, tokens_per_step)))
    trainer.add_callback(_stop_at_non_finite_loss(job))


def _report_to_dvclive(job: Job) -> Any:
    """transformers' callback with a folder for each arm; no variable names DVCLive's folder."""
    from dvclive import Live
    from transformers.integrations import DVCLiveCallback

    return DVCLiveCallback(live=Live(str(log_folder(job, "dvclive") / job.name), save_dvc_exp=False, dvcyaml=None))


def _show_progress(progress: Progress) -> Any:
    """A callback with which the first process shows the progress of the training."""
    from transformers import TrainerCallback

    class ShowProgress(TrainerCallback):  # type: ignore[misc]  # transformers has no types
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                progress.start(state.max_steps, points(state))

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                for point in points(state)[-1:]:
                    progress.add(point)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                progress.end()

    return ShowProgress()


def _stop_at_non_finite_loss(job: Job) -> Any:
    """A callback that stops the training at the first loss that is nan or inf."""
    from transformers import TrainerCallback

    class StopAtNonFiniteLoss(TrainerCallback):  # type: ignore[misc]  # transformers has no types
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss", 0.0)
            if logs and not math.isfinite(loss):
                what = f"the loss is {loss} at step {state.global_step}"
                raise not_finite(job, what, logs.get("learning_rate", job.arm.learning_rate))

    return StopAtNonFiniteLoss()


def optimizer(device: str) -> dict[str, str]:
    """AdamW, by default fused, but not on NPUs: not every torch_npu has the fused kernel."""
    return {"optim": "adamw_torch"} if split(device)[0] == "npu" else {}


def adapter(job: Job) -> Any:
    """peft's settings of the adapters; None if all weights are trained."""
    from peft import LoraConfig

    if (lora := job.train.lora) is None:
        return None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def save_trained(model: Any, tokenizer: Any, job: Job) -> None:
    (save_merged if job.train.lora else save_model)(model, tokenizer, job)


def _trainer_result(
    trainer: Any, found: Labelled, measured: dict[str, float], with_teacher: int | None
) -> TrainerResult:
    state = trainer.state
    return TrainerResult(
        steps=state.global_step,
        epochs=float(state.epoch),
        packs=len(found.lengths),
        tokens_trained=round(found.trained * state.epoch),
        losses=points(state),
        measured=measured,
        tokens_with_teacher=None if with_teacher is None else round(with_teacher * state.epoch),
    )


def points(state: Any) -> list[LossPoint]:
    logs = [entry for entry in state.log_history if "loss" in entry]
    return [LossPoint(round(entry["step"]), entry["loss"], entry["learning_rate"]) for entry in logs]


def _trained(job: Job, result: TrainerResult, dataset: FittingRows) -> Trained:
    return Trained(
        rows=dataset.rows,
        rows_shortened=dataset.shortened,
        left_out=dataset.left_out,
        steps=result.steps,
        epochs=round(result.epochs, 4),
        tokens_seen=round(dataset.tokens * result.epochs),
        tokens_trained=result.tokens_trained,
        effective_batch=round(job.batch * dataset.rows / result.packs),  # the mean number, if rows are packed
        losses=result.losses,
        tokens_with_teacher=result.tokens_with_teacher,
        measured=result.measured,
    )
