"""``train``, ``datasets`` and ``arms``: the student, the trainer, what is trained of the weights, and on what."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from stages.lib.params.base import Count, FilePath, Name, NotNegative, Positive, Section, Seed, Share

SystemPrompt = Literal["as_system", "in_user_turn"]


class LocalStudent(Section):
    """Weights that are on this disk: a folder, or an installed package that ships them."""

    kind: Literal["package", "path"]
    name: str

    @property
    def revision(self) -> None:
        """What is on the disk has none."""


class PublishedStudent(Section):
    """Weights by their id on ModelScope, Modelers or a hub; ``revision`` null: the newest."""

    kind: Literal["modelscope", "modelers", "hub"]
    name: str
    revision: str | None


Student = Annotated[LocalStudent | PublishedStudent, Field(discriminator="kind")]


class Full(Section):
    """All weights are trained."""

    kind: Literal["full"]


class Lora(Section):
    """Low-rank adapters, merged into the weights when the student is saved; ``keep_adapter`` saves them apart too."""

    kind: Literal["lora"]
    r: Count
    alpha: Count
    dropout: Share
    target_modules: str | list[str]
    keep_adapter: bool


Finetuning = Annotated[Full | Lora, Field(discriminator="kind")]


class Trl(Section):
    """TRL in this environment; both keys spare padding, each in its way."""

    kind: Literal["trl"]
    group_by_length: bool
    packing: bool

    @model_validator(mode="after")
    def _one_way_to_spare_padding(self) -> "Trl":
        if self.packing and self.group_by_length:
            raise ValueError("packing fills rows up to one length, so group_by_length has nothing to do; set one false")
        return self


class OpenMind(Section):
    """openMind in an environment of its own: how it is started, and keys of its training YAML that are its own.

    What is null is not written in the YAML. ``merge_into`` is for a version without ``custom_dataset_info``: the path
    of its own dataset_info.json, which gets our entry while it trains. ``extra`` holds any further keys of the YAML.
    """

    kind: Literal["openmind"]
    version: Literal["1.0.0", "git"]
    command: str | None
    template: Literal["qwen"] | None
    merge_into: FilePath | None
    logging_steps: Count
    extra: dict[str, JsonValue]

    @model_validator(mode="after")
    def _version_can(self) -> "OpenMind":
        if self.version == "1.0.0" and self.template:
            raise ValueError("release 1.0.0 refuses the key template and chooses by itself; set template: null")
        if self.version == "git" and not self.template:
            raise ValueError("openMind from its repository is told the template; set template: qwen")
        return self


Trainer = Annotated[Trl | OpenMind, Field(discriminator="kind")]


class Train(Section):
    """What the trainings of all arms share; ``deepspeed`` is the file of its settings.

    ``system_prompt``: where a conversation's system text goes. ``save_dtype``: the numbers of the saved weights,
    ``auto`` those of the student as published.
    """

    student: Student
    trainer: Trainer
    finetuning: Finetuning
    system_prompt: SystemPrompt
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"]
    on_too_long: Literal["drop", "error", "shorten_reasoning"]
    per_device_train_batch_size: Count
    gradient_accumulation_steps: Count
    gradient_checkpointing: bool
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_ratio: Share
    weight_decay: NotNegative
    bf16: bool
    deepspeed: FilePath | None
    seed: Seed

    @model_validator(mode="after")
    def _system_text_is_trained(self) -> "Train":
        trainer = self.trainer
        if isinstance(trainer, OpenMind) and trainer.version == "1.0.0" and self.system_prompt == "as_system":
            raise ValueError("openMind 1.0.0 drops the system text of a sample; set system_prompt: in_user_turn")
        return self

    @property
    def packing(self) -> bool:
        """Whether the trainer packs several rows into one."""
        return isinstance(self.trainer, Trl) and self.trainer.packing

    @property
    def group_by_length(self) -> bool:
        """Whether the trainer puts rows of similar length in a step."""
        return isinstance(self.trainer, Trl) and self.trainer.group_by_length

    @property
    def lora(self) -> Lora | None:
        """The adapters; None where all weights are trained."""
        return self.finetuning if isinstance(self.finetuning, Lora) else None


class Dataset(Section):
    """A training set: the file of distilled rows that it is made from."""

    rows: str


class Arm(Section):
    """A training: which dataset, how long, how fast. ``max_steps`` (or null) overrides the epochs."""

    dataset: Name
    num_train_epochs: Positive
    max_steps: Count | None
    learning_rate: Positive
    cutoff_len: Count
