"""``run``: what affects speed and cost, but no result. No stage depends on it."""

from typing import Annotated, Literal

from pydantic import Field

from stages.lib.params.base import Count, NotNegative, Positive, Section, Text, Variable


class Price(Section):
    """The price of a model per million tokens; ``cached_input`` is for tokens from the provider's own cache."""

    input: NotNegative
    cached_input: NotNegative
    output: NotNegative


class Prices(Section):
    """The price table: its currency, its date (a text), and the models. A model that is not in it has no price."""

    currency: Text
    date: str
    models: dict[str, Price]


class EmbeddedServer(Section):
    """The latency of the embedded model, and the port of its server (0: any free port)."""

    latency_s: NotNegative
    port: Annotated[int, Field(ge=0, le=65535)]


class ServedModels(Section):
    """The address of the served arms, their name, and the variable with the key, if the server needs one."""

    base_url: Text
    model: Text
    api_key_variable: Variable


class ApiKeyVariables(Section):
    """The environment variables, or lines of .env, with the keys; one for each served model."""

    teacher: Variable | None = None
    judge: Variable | None = None
    prefer: Variable | None = None
    score: Variable | None = None
    student: Variable | None = None


class Run(Section):
    """Speed, cost and timeouts (a timeout makes a failed row).

    Some keys are absent unless something reads them: ``api_key_variables`` (a served teacher, judge, scorer, or student
    of collect.keep_hard), ``embedded`` (an embedded teacher or judge), ``served`` (evaluate.backend local-…). Without
    costs, ``prices`` and ``budget`` are absent.
    """

    concurrency: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    timeout_s: Positive
    max_attempts: Count
    backoff_s: Positive
    longest_wait_s: Positive
    outage_s: Positive
    grace_s: Positive
    stream: bool
    offline: bool
    api_key_variables: ApiKeyVariables | None = None
    embedded: EmbeddedServer | None = None
    served: ServedModels | None = None
    prices: Prices | None = None
    budget: Positive | None = None
    processes: Count
    threads: Count
    device: Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]
    checkpoint_steps: Count | None
    resume: bool

    @property
    def currency(self) -> str:
        """The currency of the price table; empty without one."""
        return self.prices.currency if self.prices else ""

    def key_variable(self, of: Literal["teacher", "judge", "prefer", "score", "student"]) -> str | None:
        """The variable with that model's key; None if it needs no key."""
        variable: str | None = getattr(self.api_key_variables or ApiKeyVariables(), of)
        return variable

    def price(self, model: str) -> Price | None:
        """The price of a model; None if it is not known."""
        return self.prices.models.get(model) if self.prices else None
