"""``run``: what affects speed and cost, but no result. No stage depends on it."""

import shlex
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from stages.lib.params.base import Count, NotNegative, Positive, Section, Text, Variable, holds_no_secret

Role = Literal["teacher", "judge", "prefer", "student"]


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


# by their names in transformers
Tracker = Literal["swanlab", "tensorboard", "mlflow", "wandb", "dvclive"]


class Server(Section):
    """One of several servers of a model: its share of the calls in flight is by ``weight``.

    ``key_variable`` null: that of run.api_key_variables. The other null values: no limit but that of ``run``.
    """

    base_url: Annotated[str, AfterValidator(holds_no_secret)]
    weight: Positive
    key_variable: Variable | None
    concurrency: Count | None
    requests_per_minute: Count | None
    tokens_per_minute: Count | None


class Servers(Section):
    """The servers of one model, and the ``name`` that stands in the store's keys instead of its base_url.

    An answer under base_url, the address of a server or one of the ``aliases`` counts as one under the name. Name null:
    base_url.
    """

    name: Text | None
    aliases: list[Text]
    servers: Annotated[list[Server], Field(min_length=1)]

    @model_validator(mode="after")
    def _addresses_differ(self) -> "Servers":
        addresses = [server.base_url.rstrip("/") for server in self.servers]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"{address} is listed twice. Give one entry a higher weight instead")
        return self


class Endpoints(Section):
    """Where the calls to a served model really go, if not to its own base_url alone."""

    teacher: Servers | None = None
    judge: Servers | None = None
    prefer: Servers | None = None
    student: Servers | None = None


class Batch(Section):
    """A model's calls as files of the server's batch API, and that API's limits: requests and megabytes of a file.

    ``enqueued_tokens``: the most prompt tokens at the server at once; null: no limit. ``poll_s``: the shortest wait
    between two looks at a batch. ``price_factor``: the batch price as a share of that in ``prices``.
    """

    completion_window: Annotated[str, Field(pattern=r"^[1-9][0-9]*[hd]$")]
    price_factor: Annotated[float, Field(gt=0, le=1)]
    max_requests: Count
    max_mb: Count
    enqueued_tokens: Count | None
    poll_s: Positive


class Batches(Section):
    """The models that are asked in batches, and not call by call."""

    teacher: Batch | None = None
    judge: Batch | None = None
    prefer: Batch | None = None


class Launcher(Section):
    """A command in front of a stage's own, such as ``srun -N1 --gres=npu:8``; null: none."""

    train: Text | None
    evaluate: Text | None

    @field_validator("train", "evaluate")
    @classmethod
    def _words(cls, command: str | None) -> str | None:
        try:
            shlex.split(command or "")
        except ValueError as error:
            raise ValueError(f"not a command line ({error})") from error
        return command


class LocalEngine(Section):
    """Processes on this machine; ``workers`` null: one for each core that a stage may use."""

    kind: Literal["local"]
    workers: Count | None


class RayEngine(Section):
    """The nodes of a running Ray cluster, of which this machine is one.

    ``address``: that of its head (host:port), or ``auto``, the cluster of this machine. ``workers`` null: one for each
    of its CPUs; of those that ask a model, one for each node.
    """

    kind: Literal["ray"]
    address: Annotated[str, Field(pattern=r"^(auto|[^\s/]+:[0-9]{1,5})$")]
    workers: Count | None


Engine = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]


class Run(Section):
    """Speed, cost and timeouts (a timeout makes a failed row).

    Some keys are absent unless something reads them: ``api_key_variables`` (a served teacher, judge, scorer, or student
    of collect.keep_hard), ``embedded`` (an embedded teacher or judge), ``served`` (evaluate.backend local-…). Without
    costs, ``prices`` and ``budget`` are absent; unless a model has several servers, ``endpoints`` is; unless one is
    asked in batches, ``batch`` is. Without ``engine``, stages compute on all cores of this machine.
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
    endpoints: Endpoints | None = None
    batch: Batches | None = None
    embedded: EmbeddedServer | None = None
    served: ServedModels | None = None
    prices: Prices | None = None
    budget: Positive | None = None
    engine: Engine | None = None
    processes: Count
    threads: Count
    device: Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]
    launcher: Launcher
    checkpoint_steps: Count | None
    resume: bool
    report_to: list[Tracker]
    shard_rows: Count

    @property
    def currency(self) -> str:
        """The currency of the price table; empty without one."""
        return self.prices.currency if self.prices else ""

    def key_variable(self, of: Role | Literal["score"]) -> str | None:
        """The variable with that model's key; None if it needs no key."""
        variable: str | None = getattr(self.api_key_variables or ApiKeyVariables(), of)
        return variable

    def servers(self, of: Role) -> list[Server]:
        """The servers of that model; empty if its own base_url is all."""
        group = self._group(of)
        return group.servers if group else []

    def name(self, of: Role) -> str | None:
        """That model's name in the store's keys; None: its base_url."""
        group = self._group(of)
        return group.name if group else None

    def aliases(self, of: Role) -> list[str]:
        """Names and addresses under which answers of that model may be in the store, beside its own base_url."""
        group = self._group(of)
        return [*group.aliases, *(server.base_url for server in group.servers)] if group else []

    def _group(self, of: Role) -> Servers | None:
        group: Servers | None = getattr(self.endpoints or Endpoints(), of)
        return group

    def batch_of(self, role: Role) -> Batch | None:
        """How that model is asked in batches; None: call by call."""
        batch: Batch | None = getattr(self.batch, role, None)
        return batch

    def price(self, model: str, role: Role) -> Price | None:
        """The price of a model, that of its batches if it is asked so; None if it is not known."""
        price = self.prices.models.get(model) if self.prices else None
        batch = self.batch_of(role)
        if not price or not batch:
            return price
        return Price(**{name: value * batch.price_factor for name, value in price})
