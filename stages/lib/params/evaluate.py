"""``evaluate``, ``compare`` and ``report``: what the arms are asked, how they are compared, what the page shows."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from stages.lib.params.base import Count, Section, Seed

BENCHMARKS = ("heldout", "mgsm_cot_native", "mgsm_direct", "gsm8k", "mmlu")
LM_EVAL = "lm-eval:"  # before the name of any other task, group or tag of lm-eval
# arguments of lm-eval's model classes that come from other keys of params.yaml
OF_A_MODEL = {
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
    """``args`` go to lm-eval's class of that kind as they stand, for example ``{tensor_parallel_size: 8}``."""

    batch_size: Count
    dtype: Literal["float32", "bfloat16", "float16"]
    args: dict[str, JsonValue]

    @model_validator(mode="after")
    def _args_are_further(self) -> "_Backend":
        taken = sorted(OF_A_MODEL & set(self.args))
        if taken:
            raise ValueError(f"args holds {taken[0]!r}, which other keys say. Take it out of args")
        return self


class LoadedBackend(_Backend):
    """lm-eval loads the weights: by transformers (``hf``) or by ``vllm``."""

    kind: Literal["hf", "vllm"]


class ServedBackend(_Backend):
    """A server has the weights and is asked over HTTP (``run.served`` says where), ``batch_size`` questions at a time.

    ``dtype`` is what that server was started with. It cannot be seen from here, so it is said here: the metrics name
    it, ``compare`` warns where two arms differ in it, and an answer kept under one is not taken for one of another.
    """

    kind: Literal["local-completions", "local-chat-completions"]


Backend = Annotated[LoadedBackend | ServedBackend, Field(discriminator="kind")]


class Evaluate(Section):
    """What the arms are asked, how they answer, and which score counts.

    ``num_fewshot`` is by benchmark; one that is not named there gets its task's own number.
    """

    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]
    headline: Literal["verifier", "lm_eval"]
    backend: Backend
    base_prompt: Literal["plain", "same_as_trained"]
    chat_template: bool
    num_fewshot: dict[str, Annotated[int, Field(ge=0)]]
    max_gen_toks: Count
    limit: Count | None
    seed: Seed

    @model_validator(mode="after")
    def _chat_can(self) -> "Evaluate":
        if self.backend.kind == "local-chat-completions" and "mmlu" in self.benchmarks:
            raise ValueError(
                "mmlu needs log-likelihoods, which local-chat-completions does not give. "
                "Take local-completions, or leave mmlu out"
            )
        if self.backend.kind == "local-chat-completions" and not self.chat_template:
            raise ValueError("local-chat-completions always asks through a chat template. Set chat_template: true")
        return self

    @model_validator(mode="after")
    def _fewshot_is_asked(self) -> "Evaluate":
        for name in self.num_fewshot:
            if name not in self.benchmarks:
                raise ValueError(f"num_fewshot names {name!r}, which is not among the benchmarks")
        if self.num_fewshot.get("heldout"):
            raise ValueError("num_fewshot: heldout has no examples to show but its own questions; leave it out")
        return self


class Compare(Section):
    """Which pairs of arms are compared (the first minus the second; null: the usual ones), and how.

    ``interval`` is the method of a difference's interval and p. Where questions repeat a problem, as in MGSM, it is
    pseudo_pairs either way: Tango's is for independent pairs.
    """

    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None
    interval: Literal["pseudo_pairs", "tango"]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Report(Section):
    """What the page shows."""

    samples: Count
    seed: Seed
