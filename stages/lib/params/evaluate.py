"""``evaluate``, ``prefer``, ``compare`` and ``report``: the questions for the arms, the comparisons, the page."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from stages.lib.params.base import Count, Name, Section, Seed
from stages.lib.params.teacher import Teacher

HELDOUT, PREFERENCE = "heldout", "preference"  # the held-out questions: scored by the gold answer, compared by a judge
BENCHMARKS = (HELDOUT, PREFERENCE, "mgsm_cot_native", "mgsm_direct", "gsm8k", "mmlu")
LM_EVAL = "lm-eval:"  # prefix of any other task, group or tag of lm-eval
# arguments of lm-eval's model classes that other keys of params.yaml set
RESERVED_ARGS = {
    "base_url",
    "batch_size",
    "device",
    "dtype",
    "header",
    "max_gen_toks",
    "max_retries",
    "model",
    "num_concurrent",
    "pretrained",
    "seed",
    "think_end_token",
    "timeout",
    "tokenizer",
    "tokenizer_backend",
}


def _known_benchmark(name: str) -> str:
    if name not in BENCHMARKS and not (name.startswith(LM_EVAL) and name.removeprefix(LM_EVAL).strip()):
        raise ValueError(f"no benchmark {name!r}. Known: {', '.join(BENCHMARKS)}; of lm-eval any other: {LM_EVAL}TASK")
    return name


Benchmark = Annotated[str, AfterValidator(_known_benchmark)]


class _Backend(Section):
    """``args`` are passed unchanged to lm-eval's class of that kind, for example ``{tensor_parallel_size: 8}``."""

    batch_size: Count
    dtype: Literal["float32", "bfloat16", "float16"]
    args: dict[str, JsonValue]

    @model_validator(mode="after")
    def _args_are_additional(self) -> "_Backend":
        taken = sorted(RESERVED_ARGS & set(self.args))
        if taken:
            raise ValueError(f"args contains {taken[0]!r}, which other keys set. Remove it from args")
        return self


class LoadedBackend(_Backend):
    """lm-eval loads the weights: by transformers (``hf``) or by ``vllm``."""

    kind: Literal["hf", "vllm"]


class ServedBackend(_Backend):
    """A server has the weights, at the address in ``run.served``; ``batch_size`` requests are in flight at a time.

    ``dtype`` is the one that the server was started with, which cannot be found out from here. The metrics have it,
    ``compare`` warns if two arms differ in it, and cached answers of another dtype are not used.
    """

    kind: Literal["local-completions", "local-chat-completions"]


Backend = Annotated[LoadedBackend | ServedBackend, Field(discriminator="kind")]


class Churn(Section):
    """A second pass of the same weights, with another ``batch_size``, over at most ``limit`` questions a benchmark."""

    batch_size: Count
    limit: Count


class Evaluate(Section):
    """The benchmarks, the generation of answers, and the score that counts.

    ``num_fewshot`` is by benchmark. Benchmarks that are not in it use their task's own number. ``churn`` null: each
    question is asked once.
    """

    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]
    headline: Literal["verifier", "lm_eval"]
    backend: Backend
    base_prompt: Literal["plain", "same_as_trained"]
    chat_template: bool
    num_fewshot: dict[str, Annotated[int, Field(ge=0)]]
    max_gen_toks: Count
    limit: Count | None
    churn: Churn | None
    seed: Seed

    @model_validator(mode="after")
    def _churn_differs(self) -> "Evaluate":
        if self.churn is None:
            return self
        if self.churn.batch_size == self.backend.batch_size:
            raise ValueError(
                f"churn: its batch_size is that of the backend ({self.backend.batch_size}), so the second pass would "
                "repeat the first. Set another one, or churn: null"
            )
        if self.backend.kind == "vllm" and self.backend.args.get("data_parallel_size", 1) != 1:
            raise ValueError(
                "churn: with data_parallel_size, lm-eval's vllm ignores the batch size. Remove data_parallel_size from "
                "backend.args, or set churn: null"
            )
        return self

    @model_validator(mode="after")
    def _chat_can(self) -> "Evaluate":
        if self.backend.kind == "local-chat-completions" and "mmlu" in self.benchmarks:
            raise ValueError(
                "mmlu needs log-likelihoods, which local-chat-completions does not give. "
                "Set local-completions, or remove mmlu"
            )
        if self.backend.kind == "local-chat-completions" and not self.chat_template:
            raise ValueError("local-chat-completions always asks through a chat template. Set chat_template: true")
        return self

    @model_validator(mode="after")
    def _fewshot_is_asked(self) -> "Evaluate":
        for name in self.num_fewshot:
            if name not in self.benchmarks:
                raise ValueError(f"num_fewshot has {name!r}, which is not among the benchmarks. Remove it")
        for name in (HELDOUT, PREFERENCE):
            if self.num_fewshot.get(name):
                raise ValueError(f"num_fewshot: {name} has no examples but its own questions. Remove it")
        return self


class Prefer(Section):
    """The judge that compares the arms' answers to ``preference`` in pairs, and its prompt."""

    judge: Teacher
    prompt: Name


class Compare(Section):
    """The pairs of arms to compare (the first minus the second; null: the default ones), and the method.

    ``interval`` is the method for a difference's interval and p. If questions repeat a problem, as in MGSM, it is
    always pseudo_pairs, because Tango's needs independent pairs.
    """

    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None
    interval: Literal["pseudo_pairs", "tango"]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Report(Section):
    """The settings of the page."""

    samples: Count
    seed: Seed
    max_mb: Annotated[float, Field(gt=0)]  # of the packed rows in the page; the others lie in files beside it
    max_rows: Count  # answers of the teacher and dropped questions; of more, a random sample of so many
