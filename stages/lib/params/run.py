"""``run``: what no stage depends on, for it shapes speed and money and no result."""

from typing import Annotated, Literal

from pydantic import Field

from stages.lib.params.base import Count, NotNegative, Positive, Section, Text, Variable


class Price(Section):
    """What a model costs, per million tokens; ``cached_input`` is for what the provider's own cache served."""

    input: NotNegative
    cached_input: NotNegative
    output: NotNegative


class Prices(Section):
    """The price table: its currency, when it was read (a text), and the models; a model not there has no price."""

    currency: Text
    date: str
    models: dict[str, Price]


class EmbeddedServer(Section):
    """How long the embedded model thinks, and where its server listens (0: any free port)."""

    latency_s: NotNegative
    port: Annotated[int, Field(ge=0, le=65535)]


class ServedModels(Section):
    """Where the arms are served, under which name, and the variable that holds the key, if the server needs one."""

    base_url: Text
    model: Text
    api_key_variable: Variable


class ApiKeyVariables(Section):
    """The environment variables, or lines of .env, with the keys; one for each model behind an address."""

    teacher: Variable | None = None
    judge: Variable | None = None


class Run(Section):
    """Speed, money, and how long an answer is waited for (what times out is a failed row).

    What only some choices read is absent without them: ``api_key_variables`` (a model behind an address), ``embedded``
    (an embedded one), ``served`` (evaluate.backend local-…). So are ``prices`` and ``budget`` where nothing is paid.
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
        """That of the price table; empty where there is none, and no amount either."""
        return self.prices.currency if self.prices else ""

    def key_variable(self, of: Literal["teacher", "judge"]) -> str | None:
        """The variable with that model's key; None for one that needs none."""
        names = self.api_key_variables or ApiKeyVariables()
        return names.teacher if of == "teacher" else names.judge

    def price(self, model: str) -> Price | None:
        """What a model costs; None where that is not known."""
        return self.prices.models.get(model) if self.prices else None
