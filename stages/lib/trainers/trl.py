"""TRL's SFTTrainer: LoRA or full, loss on the answer alone, on a CPU, a GPU or (with torch_npu) an NPU."""

import logging
import sys
import tempfile
from typing import Any

from stages.lib.command import project_root
from stages.lib.devices import check_device
from stages.lib.trainers import Conversation, Job, LossPoint, Trained, TrainingError

log = logging.getLogger("distillery.train")


def train(job: Job) -> Trained:
    """Train, merge, save; the conversations longer than ``arm.cutoff_len`` are left out, none is cut."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    check_device(job.run.device)
    torch.set_num_threads(job.run.threads)
    set_seed(job.train.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    if not tokenizer.chat_template:
        raise TrainingError(f"{job.student}: the tokenizer has no chat template. Choose an instruction-tuned student.")
    fitting, lengths = _fitting(job, tokenizer)
    # bf16 is the precision of the arithmetic: the weights stay fp32, or small updates would round away
    model = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
    scratches = project_root() / ".cache" / "training"
    scratches.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{job.name}-", dir=scratches) as scratch:
        trainer = _trainer(job, model, tokenizer, fitting, scratch)
        trainer.train()
        _save(trainer, tokenizer, job)
    return _trained(job, trainer, lengths)


def _fitting(job: Job, tokenizer: Any) -> tuple[list[Conversation], list[int]]:
    """The conversations that fit into cutoff_len, and their lengths in tokens."""
    texts = [tokenizer.apply_chat_template(row.messages(), tokenize=False) for row in job.conversations]
    for row, text in zip(job.conversations, texts, strict=True):
        if row.assistant.strip() not in text:  # templates of some reasoning models drop what </think> ends
            raise TrainingError(
                f"{job.student}: its chat template leaves out part of the answer ({row.assistant[:40]!r}…). "
                "Choose other convert.markers, or another student."
            )
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    pairs = [
        (row, length) for row, length in zip(job.conversations, lengths, strict=True) if length <= job.arm.cutoff_len
    ]
    if len(pairs) < len(lengths):
        left_out = len(lengths) - len(pairs)
        log.warning("train: %d of %d rows are over cutoff_len and left out", left_out, len(lengths))
    if not pairs:
        raise TrainingError(
            f"arms.{job.name}.cutoff_len: all {len(lengths)} conversations are longer than {job.arm.cutoff_len} tokens "
            f"(the shortest has {min(lengths)}). Raise it."
        )
    return [row for row, _ in pairs], [length for _, length in pairs]


def _trainer(job: Job, model: Any, tokenizer: Any, conversations: list[Conversation], scratch: str) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    params, arm = job.train, job.arm
    config = SFTConfig(
        output_dir=scratch,
        per_device_train_batch_size=params.per_device_train_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        gradient_checkpointing=params.gradient_checkpointing,
        num_train_epochs=arm.num_train_epochs,
        max_steps=arm.max_steps or -1,
        learning_rate=arm.learning_rate,
        lr_scheduler_type=params.lr_scheduler_type,
        warmup_steps=params.warmup_ratio,  # a float below 1 is a share of all steps
        weight_decay=params.weight_decay,
        bf16=params.bf16,
        use_cpu=job.run.device == "cpu",
        seed=params.seed,
        max_length=None,  # rows that are too long were left out: nothing is cut
        completion_only_loss=True,
        logging_steps=1,
        disable_tqdm=not sys.stderr.isatty(),
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
    )
    lora = params.lora
    adapter = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    rows = [{"prompt": row.messages()[:-1], "completion": row.messages()[-1:]} for row in conversations]
    try:
        return SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=adapter if params.finetuning_type == "lora" else None,
        )
    except ValueError as error:  # such as target modules that the student does not have
        raise TrainingError(f"train: TRL refuses these params: {error!s:.300} Mend the train section.") from error


def _save(trainer: Any, tokenizer: Any, job: Job) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.train.finetuning_type == "lora":
        model = model.merge_and_unload()
    model.save_pretrained(job.out)
    tokenizer.save_pretrained(job.out)


def _trained(job: Job, trainer: Any, lengths: list[int]) -> Trained:
    state = trainer.state
    logs = [entry for entry in state.log_history if "loss" in entry]
    trained_per_epoch = sum(label != -100 for labels in trainer.train_dataset["labels"] for label in labels)
    return Trained(
        rows=len(lengths),
        rows_too_long=len(job.conversations) - len(lengths),
        steps=state.global_step,
        epochs=round(float(state.epoch), 4),
        tokens_seen=round(sum(lengths) * state.epoch),
        tokens_trained=round(trained_per_epoch * state.epoch),
        effective_batch=job.train.per_device_train_batch_size
        * job.train.gradient_accumulation_steps
        * trainer.accelerator.num_processes,
        losses=[LossPoint(round(entry["step"]), entry["loss"], entry["learning_rate"]) for entry in logs],
    )
