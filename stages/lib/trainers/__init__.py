"""Training a student on conversations: one module a backend, chosen by ``train.backend``.

Each offers ``train(job) -> Trained``: it reads the job's dataset, and writes final weights, tokenizer and chat
template, merged and as safetensors, into ``job.out``.
"""

from dataclasses import dataclass
from pathlib import Path

from stages.lib.command import DistilleryError
from stages.lib.params import Arm, Run, Train


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


@dataclass(frozen=True)
class Job:
    """A training: what on, from which weights, how, where to."""

    name: str
    conversations: list[Conversation]
    student: Path
    train: Train
    arm: Arm
    run: Run
    out: Path


@dataclass(frozen=True)
class LossPoint:
    """One optimizer step: the mean loss of its trained tokens."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """What a training saw; tokens are those of all rows times the epochs, ``tokens_trained`` those with a loss."""

    rows: int
    rows_too_long: int
    steps: int
    epochs: float
    tokens_seen: int
    tokens_trained: int
    effective_batch: int
    losses: list[LossPoint]
