"""``distill`` and its two kinds of teacher: the embedded model, and any model with an OpenAI-compatible API."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from stages.lib.params.base import Count, Name, NotNegative, Section, Seed, Share, holds_no_secret

# faults of a server: first those that a retry may fix, then the permanent ones (embedded/faults.py)
Fault = Literal[
    "rate_limit",
    "rate_limit_retry_after",
    "server_error",
    "bad_gateway",
    "unavailable",
    "hang",
    "reset",
    "body_cut",
    "truncated_json",
    "empty_body",
    "blank_lines",
    "error_object",
    "no_choices",
    "length",
    "empty_content",
    "empty_reasoning",
    "content_filter",
]
RESERVED_KEYS = {
    "endpoint",
    "sample",
    "draw",
    "model",
    "messages",
    "temperature",
    "top_p",
    "max_tokens",
    "n",
    "stream",
    "stream_options",
}


class EmbeddedTeacher(Section):
    """The model in this project: its share of wrong answers, the seed for them, and the share of each fault."""

    kind: Literal["embedded"]
    model: str
    max_tokens: Count | None
    slip_share: Share
    seed: Seed
    faults: dict[Fault, Share]

    @model_validator(mode="after")
    def _shares_fit(self) -> "EmbeddedTeacher":
        if sum(self.faults.values()) > 1:
            raise ValueError("the sum of all fault shares is above 1. Lower them")
        return self


class ServedTeacher(Section):
    """A model with an OpenAI-compatible API. Null sampling values are not sent: the endpoint's defaults apply.

    ``extra_body`` is sent unchanged and is part of the store's key: ``{enable_thinking: true}`` for DashScope's
    hybrid models, ``{chat_template_kwargs: {enable_thinking: true}}`` for some of vLLM's.
    """

    kind: Literal["openai_compatible"]
    base_url: Annotated[str, AfterValidator(holds_no_secret)]
    model: str
    temperature: NotNegative | None
    top_p: Share | None
    max_tokens: Count | None
    extra_body: dict[str, JsonValue]

    @model_validator(mode="after")
    def _extra_is_extra(self) -> "ServedTeacher":
        taken = sorted(RESERVED_KEYS & set(self.extra_body))
        if taken:
            raise ValueError(f"extra_body contains {taken[0]!r}, which other keys set or which is reserved. Remove it")
        return self


Teacher = Annotated[EmbeddedTeacher | ServedTeacher, Field(discriminator="kind")]


class Distill(Section):
    """The prompt, the samples per question, and the share of failed rows above which the stage fails.

    ``logprobs``: how many of the likeliest tokens the teacher is asked for at each place of its answer; null: none.
    """

    prompt: Name
    samples_per_question: Count
    max_failed_share: Share
    logprobs: Count | None
    teacher: Teacher

    @model_validator(mode="after")
    def _teacher_has_them(self) -> "Distill":
        if self.logprobs is None:
            return self
        if not isinstance(self.teacher, ServedTeacher):
            raise ValueError("logprobs: the embedded teacher has no probabilities. Set it to null, and use score")
        if taken := sorted({"logprobs", "top_logprobs"} & set(self.teacher.extra_body)):
            raise ValueError(f"teacher.extra_body contains {taken[0]!r}, which logprobs sets. Remove it there")
        return self
