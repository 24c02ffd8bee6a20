"""TRL's SFTTrainer: LoRA or full, loss on the answer alone, on a CPU, a GPU or (with torch_npu) an NPU."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.devices import check_device
from stages.lib.trainers import Conversation, Job, LossPoint, Trained, TrainingError
from stages.lib.trainers.checkpoints import last_checkpoint, scratch_folder
from stages.lib.trainers.length import Fitting, fitting
from stages.lib.trainers.resources import Size, check_disk, check_memory, check_weights_there, memory_told

log = logging.getLogger("distillery.train")


@dataclass(frozen=True)
class _Row:
    """A conversation and its tokens, the chat template's among them."""

    conversation: Conversation
    tokens: int

    def fits(self, cutoff_len: int) -> bool:
        return self.tokens <= cutoff_len


def train(job: Job) -> Trained:
    """Train, merge, save; no conversation is cut at ``arm.cutoff_len``: see length.py."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    check_device(job.run.device)
    check_weights_there(job.student)
    torch.set_num_threads(job.run.threads)
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    if not tokenizer.chat_template:
        raise TrainingError(f"{job.student}: the tokenizer has no chat template. Choose an instruction-tuned student.")
    dataset = fitting(job, lambda conversations: _measured(job, conversations, tokenizer))
    tokenizer.eos_token = end_of_turn(job, tokenizer)  # the trainer tells it to generation_config too
    conversations = [row.conversation for row in dataset.rows]
    with scratch_folder(job, conversations) as scratch, memory_told(job):
        check_needs(job, scratch)
        set_seed(job.train.seed)  # the adapters begin at random
        # bf16 is the precision of the arithmetic: the weights stay fp32, or small updates would round away
        model = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
        trainer = _trainer(job, model, tokenizer, conversations, str(scratch))
        check_end_is_trained(job, trainer.train_dataset["labels"], tokenizer)
        trainer.train(resume_from_checkpoint=_text(last_checkpoint(scratch)))
        _save(trainer, tokenizer, job)
    return _trained(job, trainer, dataset)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def check_needs(job: Job, scratch: Path) -> None:
    """TrainingError where disk or memory cannot be enough; the weights are not loaded for it."""
    size = reckoned(job)
    check_disk(job, size, scratch)
    check_memory(job, size)


def reckoned(job: Job) -> Size:
    """The parameters of the student and of its adapters, counted on a model without values."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.student))
        if job.train.finetuning_type == "lora":
            with _refused_by_trl():
                model = get_peft_model(model, _adapter(job))
    numbers = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return Size(sum(count for count, _ in numbers), sum(count for count, trained in numbers if trained))


@contextmanager
def _refused_by_trl() -> Iterator[None]:
    """Name the params in what TRL and peft raise, such as for target modules that the student does not have."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"train: TRL refuses these params: {error!s:.300} Mend the train section.") from error


def end_of_turn(job: Job, tokenizer: Any) -> str:
    """The special token that the chat template writes after an answer: what a trained student stops at.

    TrainingError where there is none. It is not always the tokenizer's own: Qwen2.5-7B names <|endoftext|>, which its
    template never writes, so that generation would go on after every answer.
    """
    row = job.conversations[0]
    text = tokenizer.apply_chat_template(row.messages(), tokenize=False)
    after = tokenizer(text.rpartition(row.assistant.strip())[2], add_special_tokens=False)["input_ids"]
    ends = [token for token in tokenizer.convert_ids_to_tokens(after) if token in _special(tokenizer)]
    if not ends:
        raise TrainingError(
            f"{job.student}: its chat template writes no special token after an answer, so the student would never "
            "learn to stop. Choose another student, or give it a chat template that does."
        )
    if ends[0] != tokenizer.eos_token:
        log.warning("train: the student will stop at %s, not at %s", ends[0], tokenizer.eos_token)
    return str(ends[0])


def _special(tokenizer: Any) -> set[str]:
    return {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}


def check_end_is_trained(job: Job, labels: list[list[int]], tokenizer: Any) -> None:
    """TrainingError where a row's loss leaves out the end of its turn."""
    without = sum(tokenizer.eos_token_id not in row for row in labels)
    if without:
        raise TrainingError(
            f"{job.student}: in {without} of {len(labels)} rows {tokenizer.eos_token} bears no loss, so the student "
            "would not learn to stop. Choose another student."
        )


def _measured(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[_Row]:
    """The conversations with their lengths; TrainingError where the template would not train all of an answer."""
    texts = [tokenizer.apply_chat_template(row.messages(), tokenize=False) for row in conversations]
    for row, text in zip(conversations, texts, strict=True):
        if row.assistant.strip() not in text:  # templates of some reasoning models drop what </think> ends
            raise TrainingError(
                f"{job.student}: its chat template leaves out part of the answer ({row.assistant[:40]!r}…). "
                "Choose other convert.markers, or another student."
            )
    tokens = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [_Row(row, len(ids)) for row, ids in zip(conversations, tokens, strict=True)]


def _trainer(job: Job, model: Any, tokenizer: Any, conversations: list[Conversation], scratch: str) -> Any:
    from datasets import Dataset
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
        save_strategy="steps" if params.save_steps else "no",
        save_steps=params.save_steps or 1,
        save_total_limit=1,
        report_to="none",
        dataloader_pin_memory=False,
    )
    rows = [{"prompt": row.messages()[:-1], "completion": row.messages()[-1:]} for row in conversations]
    with _refused_by_trl():
        return SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_adapter(job) if params.finetuning_type == "lora" else None,
        )


def _adapter(job: Job) -> Any:
    from peft import LoraConfig

    lora = job.train.lora
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _save(trainer: Any, tokenizer: Any, job: Job) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.train.finetuning_type == "lora":
        model = model.merge_and_unload()
    model.save_pretrained(job.out)
    tokenizer.save_pretrained(job.out)


def _trained(job: Job, trainer: Any, dataset: Fitting[_Row]) -> Trained:
    state = trainer.state
    logs = [entry for entry in state.log_history if "loss" in entry]
    trained_per_epoch = sum(label != -100 for labels in trainer.train_dataset["labels"] for label in labels)
    return Trained(
        rows=len(dataset.rows),
        rows_shortened=dataset.shortened,
        left_out=dataset.left_out,
        steps=state.global_step,
        epochs=round(float(state.epoch), 4),
        tokens_seen=round(sum(row.tokens for row in dataset.rows) * state.epoch),
        tokens_trained=round(trained_per_epoch * state.epoch),
        effective_batch=job.train.per_device_train_batch_size
        * job.train.gradient_accumulation_steps
        * trainer.accelerator.num_processes,
        losses=[LossPoint(round(entry["step"]), entry["loss"], entry["learning_rate"]) for entry in logs],
    )
