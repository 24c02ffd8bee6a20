"""The tokenizer that a student is trained and saved with, and its chat template."""

import logging
from dataclasses import dataclass
from typing import Any

from stages.lib.chat_template import align
from stages.lib.training import Job, TrainingError

log = logging.getLogger("distillery.train")


def aligned_tokenizer(job: Job) -> Any:
    """The student's tokenizer; its chat template gives the same prompts in training and evaluation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.student)
    if not tokenizer.chat_template:
        raise TrainingError(f"{job.student}: the tokenizer has no chat template. Choose an instruction-tuned student.")
    shape = job.shape
    if align(tokenizer, job.markers, job.train.system_prompt, shape.with_system, bool(shape.several)):
        log.info("train: %s: chat template rewritten, for the same prompts in training and evaluation", job.name)
    return tokenizer


def end_of_turn(job: Job, tokenizer: Any) -> str:
    """The special token that the chat template writes after an answer, at which a trained student stops.

    TrainingError if there is none. It is not always the tokenizer's own one: Qwen2.5-7B names <|endoftext|>, which its
    template never writes, so generation would continue after every answer.
    """
    row = job.shape.first
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


@dataclass(frozen=True)
class Ends:
    """Of how many rows, how many have no end token with a loss, and how many such tokens all have."""

    rows: int
    without: int
    ends: int


def check_end_is_trained(job: Job, found: Ends, answers: int, tokenizer: Any) -> None:
    """TrainingError if the end token of a row, or of an earlier one of these answers that is trained, has no loss."""
    if found.without:
        raise TrainingError(
            f"{job.student}: in {found.without} of {found.rows} rows {tokenizer.eos_token} has no loss, so the student "
            "would not learn to stop. Choose another student."
        )
    if job.train.loss_on == "every" and found.ends < answers:
        raise TrainingError(
            f"{job.student}: its chat template does not write {tokenizer.eos_token} after each earlier answer, so the "
            "student would not learn to stop there. Set train.loss_on: last, or choose another student."
        )
