"""Training a student on conversations: a job, and what every trainer shares.

The trainers are in ``trainers/``, one package a kind. Each offers ``train(job) -> Trained``: it reads the job's
dataset, and writes final weights, tokenizer and chat template, merged and as safetensors, into ``job.out``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stages.lib.command import DistilleryError
from stages.lib.params import Arm, Markers, Run, Train
from stages.lib.rows import Row
from stages.lib.runtime.versions import versions

LIBRARIES = ("torch", "torch-npu", "transformers", "trl", "accelerate", "peft", "deepspeed")


class TrainingError(DistilleryError):
    """A training that cannot begin, or did not end."""


@dataclass(frozen=True)
class Conversation:
    """One training sample: the text of its three turns."""

    system: str
    user: str
    assistant: str

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages, the answer last."""
        turns = (("system", self.system), ("user", self.user), ("assistant", self.assistant))
        return [{"role": role, "content": content} for role, content in turns if content]


class TooLong(Row):
    """A conversation that is not trained on: its ``id`` is its dataset and its place there, from 0.

    ``cannot_be_shortened``: too long even with one sentence of its reasoning, or without markers around it.
    """

    reason: Literal["too_long", "cannot_be_shortened"]
    tokens: int
    cutoff_len: int
    system: str
    user: str
    assistant: str


@dataclass(frozen=True)
class Job:
    """A training: what on, from which weights, how, where to; ``markers`` say where the reasoning is."""

    name: str
    conversations: list[Conversation]
    student: Path
    train: Train
    arm: Arm
    run: Run
    markers: Markers
    out: Path


@dataclass(frozen=True)
class LossPoint:
    """One optimizer step: the mean loss of its trained tokens."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """What a training saw; tokens are those of all rows times the epochs, ``tokens_trained`` those with a loss.

    ``rows_shortened`` of the ``rows`` had their reasoning shortened; ``left_out`` were not trained on. The last three
    are of the run and not of what was learned: the step of the checkpoint that it resumed from, what its first process
    measured (``{"padding_share": 0.12}``), and what trained it.
    """

    rows: int
    rows_shortened: int
    left_out: list[TooLong]
    steps: int
    epochs: float
    tokens_seen: int
    tokens_trained: int
    effective_batch: int
    losses: list[LossPoint]
    resumed_at: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions(LIBRARIES))
