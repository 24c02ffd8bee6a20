"""Estimate how long an evaluation takes before it starts; warn if ``hf`` takes days where a server takes hours.

warn_if_long(asking, found)    evaluate: 6819 answers of up to 4096 tokens: about 39 hours an arm with hf …
"""

import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

from stages.lib.evaluation.backends import Asking
from stages.lib.evaluation.tasks import Loaded

log = logging.getLogger("distillery.evaluate")

LONG_H = 12.0  # above it, a warning is logged
STEP_S = 0.04  # a batch's next token with hf on an accelerator; an assumption for 7B in bfloat16, not measured
CPU_STEP_S = 2.4  # the same on two CPU cores, per billion parameters; measured: 0.3 s with 0.135, batch 50
SERVED_TOKENS_PER_S = 2000.0  # of all answers together, from one card that serves 7B; an assumption, not measured
ANSWER_TOKENS = 1100  # of an R1-style answer to a question of GSM8K; of 995, 524 were over 1024
READ_TOKENS_PER_S = 5000.0  # of prompts, with hf on an accelerator; an assumption, not measured
CPU_READ_TOKENS_PER_S = 80.0  # the same on two CPU cores, divided by the billions of parameters; an assumption
QUESTION_TOKENS = 150  # of a question with choices


@dataclass(frozen=True)
class Forecast:
    """Estimated hours for one arm: with ``hf`` on this profile's device, and with a served model."""

    generations: int
    likelihoods: int
    hf_h: float
    served_h: float


def forecast(
    generations: int, likelihoods: int, max_gen_toks: int, batch_size: int, device: str, processes: int, billions: float
) -> Forecast:
    """Estimate the hours from the number of requests and the rates above.

    ``hf`` answers batch by batch, and a batch takes as long as its longest answer. One answer that loops makes a batch
    reach the limit, so each batch counts as ``max_gen_toks`` steps:

        hf:     generations / (batch_size × processes), rounded up, × max_gen_toks × seconds a step
                + likelihoods × 150 tokens / rate of reading
        served: generations × min(1100, max_gen_toks) tokens / 2000 a second + the same reading on an accelerator

    The estimate is right to a factor of about three: enough to separate hours from days.
    """
    on_cpu = device == "cpu"
    step_s = CPU_STEP_S * billions if on_cpu else STEP_S
    read_per_s = CPU_READ_TOKENS_PER_S / billions if on_cpu else READ_TOKENS_PER_S
    cards = 1 if on_cpu else processes
    batches = math.ceil(generations / (batch_size * cards))
    reading = likelihoods * QUESTION_TOKENS
    hf_s = batches * max_gen_toks * step_s + reading / (read_per_s * cards)
    served_s = generations * min(ANSWER_TOKENS, max_gen_toks) / SERVED_TOKENS_PER_S + reading / READ_TOKENS_PER_S
    return Forecast(generations, likelihoods, hf_s / 3600, served_s / 3600)


def warn_if_long(asking: Asking, found: list[Loaded]) -> None:
    """Log a warning if the evaluation would take ``hf`` more than ``LONG_H`` hours."""
    params, run = asking.params, asking.run
    if params.backend.kind != "hf":
        return
    generations, likelihoods = (
        [each.questions(kind, params.limit) for each in found] for kind in ("generate_until", "multiple_choice")
    )
    on, size = (run.device.partition(":")[0], run.processes, billions(asking.weights)), params.backend.batch_size
    expected = forecast(sum(generations), sum(likelihoods), params.max_gen_toks, size, *on)
    if params.churn:  # a second pass over some of the questions
        again = sum(min(number, params.churn.limit) for number in generations)
        second = forecast(again, 0, params.max_gen_toks, params.churn.batch_size, *on)
        expected = replace(expected, hf_h=expected.hf_h + second.hf_h)
    if expected.hf_h > LONG_H:
        log.warning("evaluate: %s", warning(expected, params.max_gen_toks))


def warning(expected: Forecast, max_gen_toks: int) -> str:
    """The estimates, and what to change."""
    return (
        f"{expected.generations} answers of up to {max_gen_toks} tokens and {expected.likelihoods} choices: about "
        f"{expected.hf_h:.0f} hours an arm with evaluate.backend.kind: hf, about {expected.served_h:.1f} with "
        "a served one (vllm, local-completions). Change the backend, raise batch_size, or set a limit"
    )


def billions(weights: Path) -> float:
    """Billions of parameters, from the files' size: two bytes each, or four if the config says float32."""
    config = json.loads((weights / "config.json").read_bytes())
    wide = "32" in str(config.get("dtype") or config.get("torch_dtype") or "float32")
    size = sum(path.stat().st_size for path in weights.glob("*.safetensors"))
    return max(size / (4 if wide else 2) / 1e9, 0.001)
