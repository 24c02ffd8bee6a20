"""``distill`` and the two kinds of model that it asks: the embedded one, and any behind an OpenAI-compatible API."""

from typing import Annotated, Literal

from pydantic import AfterValidator, AnyHttpUrl, Field, JsonValue, model_validator

from stages.lib.params.base import Count, Name, NotNegative, Section, Seed, Share

# what a server of the protocol may do wrong: first what passes when asked again, then what stays (embedded/faults.py)
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
OF_A_REQUEST = {
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


def _holds_no_secret(text: str) -> str:
    url = AnyHttpUrl(text)
    if url.username or url.password or url.query:
        raise ValueError("a base_url is stored and shown, so it holds no user, password or query; use API_KEY")
    return text


class EmbeddedTeacher(Section):
    """The model in this project: how often it slips, on which questions, and the share of each fault it commits."""

    kind: Literal["embedded"]
    model: str
    max_tokens: Count | None
    slip_share: Share
    seed: Seed
    faults: dict[Fault, Share]

    @model_validator(mode="after")
    def _shares_fit(self) -> "EmbeddedTeacher":
        if sum(self.faults.values()) > 1:
            raise ValueError("the shares of all faults come to more than 1")
        return self


class ServedTeacher(Section):
    """A model behind an address of the OpenAI protocol. Null sampling values are not sent: the endpoint's own hold.

    ``extra_body`` is sent as it stands and is part of the store's key: ``{enable_thinking: true}`` for DashScope's
    hybrid models, ``{chat_template_kwargs: {enable_thinking: true}}`` for some of vLLM's.
    """

    kind: Literal["openai_compatible"]
    base_url: Annotated[str, AfterValidator(_holds_no_secret)]
    model: str
    temperature: NotNegative | None
    top_p: Share | None
    max_tokens: Count | None
    extra_body: dict[str, JsonValue]

    @model_validator(mode="after")
    def _extra_is_extra(self) -> "ServedTeacher":
        taken = sorted(OF_A_REQUEST & set(self.extra_body))
        if taken:
            raise ValueError(f"extra_body holds {taken[0]!r}, which is not extra: it has a key or a meaning of its own")
        return self


Teacher = Annotated[EmbeddedTeacher | ServedTeacher, Field(discriminator="kind")]


class Distill(Section):
    """What is asked, how often, and the share of failed rows above which the stage fails."""

    prompt: Name
    samples_per_question: Count
    max_failed_share: Share
    teacher: Teacher
