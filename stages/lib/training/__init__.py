"""Training a student on conversations: a job, and what all trainers share.

The trainers are in ``trainers/``, one package for each kind. Each offers ``train(job) -> Trained``. It reads the job's
dataset and writes the final weights (merged, as safetensors), the tokenizer and the chat template into ``job.out``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.lib.command import DistilleryError
from stages.lib.params import Arm, Markers, OnPolicyArm, Run, Train
from stages.lib.rows import Row, read_rows
from stages.lib.runtime.versions import versions
from stages.lib.training.dataset import Conversation as Conversation
from stages.lib.training.dataset import Conversations, Shape, shape_of

LIBRARIES = ("torch", "torch-npu", "transformers", "trl", "accelerate", "peft", "deepspeed")


class TrainingError(DistilleryError):
    """A training cannot start, or it failed."""


class TooLong(Row):
    """A conversation that is not trained on. Its ``id`` is its dataset and its position there, from 0.

    ``cannot_be_shortened``: it is too long even with one sentence of its reasoning, or its reasoning has no markers.
    """

    reason: Literal["too_long", "cannot_be_shortened"]
    tokens: int
    cutoff_len: int
    system: str
    history: list[tuple[str, str]] = Field(default=[], exclude_if=lambda pairs: not pairs)
    user: str
    assistant: str


@dataclass(frozen=True)
class LeftOut:
    """The conversations that are not trained on, in a file."""

    path: Path
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[TooLong]:
        return read_rows(self.path, TooLong, "Start the training again.")


@dataclass(frozen=True)
class Nodes:
    """The hosts that train together: how many, which of them this is, and the address and port of node 0."""

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Job:
    """A training: its conversations, initial weights, settings and output. ``markers`` delimit the reasoning.

    ``loss`` is the file of the loss curve, which grows while it trains (progress.py).
    ``scores`` is the file with the teacher's probabilities, which an arm with ``alpha`` reads.
    ``teacher`` has the weights of an on-policy arm's teacher; ``student`` is then the arm that it starts from.
    ``rows`` is a folder for what a training writes of its rows, to read it again; it is removed after the training.
    """

    name: str
    conversations: Conversations
    student: Path
    train: Train
    arm: Arm | OnPolicyArm
    run: Run
    markers: Markers
    out: Path
    teacher: Path | None = None
    loss: Path | None = None
    scores: Path = Path()
    nodes: Nodes = Nodes()
    rows: Path = field(kw_only=True)

    @property
    def shape(self) -> Shape:
        """What is known of all its conversations."""
        return shape_of(self.conversations)

    @property
    def base_name(self) -> str:
        """The name of the initial weights: the published student's, or an arm's."""
        return self.arm.start_from if isinstance(self.arm, OnPolicyArm) else self.train.student.name

    @property
    def batch(self) -> int:
        """The rows of an optimizer's step, as params give them: on all processes of TRL, on each card elsewhere."""
        return self.train.per_device_train_batch_size * self.train.gradient_accumulation_steps

    @property
    def processes(self) -> int:
        """How many processes train, on all nodes."""
        return self.run.processes * self.nodes.count


@dataclass(frozen=True)
class LossPoint:
    """One optimizer step: the mean loss of its trained tokens."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Rollouts:
    """The answers that a student wrote while it learned on-policy: one to each of ``prompts``, which may repeat.

    ``tokens_scored`` are those that the teacher scored, ``tokens_of_teacher`` all that it read, its prompts among them.
    ``share_cut_off`` of the answers reached ``max_new_tokens``.
    """

    prompts: int
    tokens_prompted: int
    tokens_rolled_out: int
    tokens_scored: int
    tokens_of_teacher: int
    share_cut_off: float


@dataclass(frozen=True)
class Trained:
    """The result of a training. Tokens are those of all rows times the epochs, ``tokens_trained`` those with a loss.

    ``rollouts`` are an on-policy arm's; its losses are divergences from the teacher.
    ``tokens_with_teacher`` are those that have the teacher's probabilities; None for an arm without ``alpha``.
    ``rows_shortened`` of the ``rows`` had their reasoning shortened; ``left_out`` were not trained on. The last three
    fields describe the run, not what was learned:

    - ``resumed_at``: the step of the checkpoint that it resumed from;
    - ``measured``: what its first process measured, ``{"padding_share": 0.12}``;
    - ``versions``: the libraries that trained it.
    """

    rows: int
    rows_shortened: int
    left_out: LeftOut
    steps: int
    epochs: float
    tokens_seen: int
    tokens_trained: int
    effective_batch: int
    losses: list[LossPoint]
    tokens_with_teacher: int | None = None
    rollouts: Rollouts | None = None
    resumed_at: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions(LIBRARIES))
