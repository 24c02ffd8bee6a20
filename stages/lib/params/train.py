"""``train``, ``datasets`` and ``arms``: the student, the trainer, the trained weights, and the training data."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from stages.lib.params.base import Count, FilePath, Name, NotNegative, Positive, Section, Seed, Share

SystemPrompt = Literal["as_system", "in_user_turn"]


class LocalStudent(Section):
    """Local weights: a folder, or an installed package that contains them."""

    kind: Literal["package", "path"]
    name: str

    @property
    def revision(self) -> None:
        """None: local weights have no revision."""


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
    """Low-rank adapters, merged into the weights when the student is saved. ``keep_adapter`` also saves them alone."""

    kind: Literal["lora"]
    r: Count
    alpha: Count
    dropout: Share
    target_modules: str | list[str]
    keep_adapter: bool


Finetuning = Annotated[Full | Lora, Field(discriminator="kind")]


class Trl(Section):
    """TRL in this environment. The first two keys reduce padding.

    ``fsdp2``: each of several processes holds a part of the weights, gradients and optimizer (torch's FSDP2).
    """

    kind: Literal["trl"]
    group_by_length: bool
    packing: bool
    fsdp2: bool

    @model_validator(mode="after")
    def _one_way_to_reduce_padding(self) -> "Trl":
        if self.packing and self.group_by_length:
            raise ValueError(
                "packing fills rows to one length, so group_by_length has no effect. Set one of them to false"
            )
        return self


class ExternalTrainer(Section):
    """A trainer in its own environment: the command that starts it (null: its program), and its training YAML.

    ``extra`` has any other keys of the YAML.
    """

    command: str | None
    logging_steps: Count
    extra: dict[str, JsonValue]


class OpenMind(ExternalTrainer):
    """openMind: the keys that only its training YAML has.

    Null values are not written in the YAML. ``merge_into`` is for a version without ``custom_dataset_info``: the path
    of its own dataset_info.json, which gets our entry during the training.
    """

    kind: Literal["openmind"]
    version: Literal["1.0.0", "git"]
    template: Literal["qwen"] | None
    merge_into: FilePath | None

    @model_validator(mode="after")
    def _version_can(self) -> "OpenMind":
        if self.version == "1.0.0" and self.template:
            raise ValueError("release 1.0.0 refuses the key template and chooses one itself. Set template: null")
        if self.version == "git" and not self.template:
            raise ValueError("openMind from its repository needs a template. Set template: qwen")
        return self


class TemplateTrainer(ExternalTrainer):
    """The name of a trainer's own template, which must give the tokens of the student's chat template."""

    # keys of its YAML that change which rows or tokens it trains on: those are chosen by other params
    own_rows: ClassVar[tuple[str, ...]]

    template: str

    @model_validator(mode="after")
    def _rows_are_ours(self) -> Self:
        if own := [key for key in self.own_rows if key in self.extra]:
            raise ValueError(f"extra: {', '.join(own)}: changes which rows or tokens are trained on. Remove it")
        return self


class LlamaFactory(TemplateTrainer):
    """LLaMA-Factory: the name of its template."""

    own_rows = ("packing", "neat_packing", "val_size", "max_samples", "streaming", "train_on_prompt", "tokenized_path")

    kind: Literal["llamafactory"]


class Swift(TemplateTrainer):
    """ms-swift: the name of its template, and of the student's type there.

    ``model_type`` null: ms-swift finds it by the weights' architecture, which fits several types for Qwen2.5.
    """

    own_rows = (
        *("packing", "streaming", "split_dataset_ratio", "val_dataset", "cached_dataset", "columns"),
        *("truncation_strategy", "loss_scale", "use_chat_template", "template_backend"),
    )

    kind: Literal["swift"]
    model_type: str | None


Trainer = Annotated[Trl | OpenMind | LlamaFactory | Swift, Field(discriminator="kind")]


class Train(Section):
    """The settings that all arms share; ``deepspeed`` is the path of its settings file.

    ``system_prompt``: where a conversation's system text goes. ``loss_on``: whether every answer of a conversation of
    several turns is trained, or the last one. ``save_dtype``: the dtype of the saved weights; ``auto``
    keeps that of the published student.
    """

    student: Student
    trainer: Trainer
    finetuning: Finetuning
    system_prompt: SystemPrompt
    loss_on: Literal["every", "last"]
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
            raise ValueError("openMind 1.0.0 drops the system text of a sample. Set system_prompt: in_user_turn")
        return self

    @model_validator(mode="after")
    def _one_way_to_shard(self) -> "Train":
        if self.fsdp2 and self.deepspeed:
            raise ValueError("fsdp2 and deepspeed both shard the training. Set trainer.fsdp2: false or deepspeed: null")
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
    def fsdp2(self) -> bool:
        """Whether torch's FSDP2 shards the training over its processes."""
        return isinstance(self.trainer, Trl) and self.trainer.fsdp2

    @property
    def lora(self) -> Lora | None:
        """The adapters; None if all weights are trained."""
        return self.finetuning if isinstance(self.finetuning, Lora) else None


class Dataset(Section):
    """A training set: its file of distilled rows."""

    rows: str


class TrainedArm(Section):
    """A training: its dataset, length and learning rate. ``max_steps``, unless null, overrides the epochs."""

    dataset: Name
    num_train_epochs: Positive
    max_steps: Count | None
    learning_rate: Positive
    cutoff_len: Count


class Arm(TrainedArm):
    """An arm that is trained on its dataset's answers.

    ``alpha`` is the weight of the divergence from the teacher's probabilities in the loss; 0: none of it.
    """

    alpha: Share


class TokenTeacher(Section):
    """The teacher of an on-policy arm: another arm, or an entry of ``teachers``.

    ``worked_examples``: how many questions of the dataset, each with its answer, it sees before the student's question.
    """

    source: Name
    worked_examples: Annotated[int, Field(ge=0)]


class OnPolicyArm(TrainedArm):
    """An arm that starts from another one, answers questions, and learns the teacher's probabilities of its tokens.

    ``cutoff_len`` limits a prompt and its ``max_new_tokens`` together. ``temperature`` and ``top_k`` (0: all) are those
    of the answers. ``beta``: 1 is the reverse KL divergence, 0 the forward one, between them Jensen-Shannon's.
    """

    start_from: Name
    teacher: TokenTeacher
    max_new_tokens: Count
    temperature: Positive
    top_k: Annotated[int, Field(ge=0)]
    beta: Share

    @model_validator(mode="after")
    def _prompts_fit(self) -> "OnPolicyArm":
        if self.max_new_tokens >= self.cutoff_len:
            raise ValueError(
                f"max_new_tokens: {self.max_new_tokens} leaves no token of cutoff_len: {self.cutoff_len} for a prompt. "
                "Raise cutoff_len"
            )
        return self

    @property
    def alpha(self) -> float:
        """0: no probabilities of the dataset's answers are read."""
        return 0.0
