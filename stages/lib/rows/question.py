"""The rows that ``collect`` and ``difficulty`` write: questions, and those that ``collect`` leaves out.

{"id": "gsm8k-train-0", "question": "…", "answer": "72", "solution": "…", "source": "gsm8k/train"}

A question in a conversation also has its earlier turns, and one with a system text of its own has that; a row without
them has no such key:

{…, "history": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "system": "…"}

``difficulty`` adds {"pass_rate": {"solved": 1, "unsure": 0, "samples": 4}} where it asked the untrained student.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stages.lib.rows import Row


def is_none(value: Any) -> bool:
    """Whether a field's key is not written: rows that lack it are the bytes that they were without the field."""
    return value is None


class Turn(BaseModel):
    """What a user asked, or what an assistant answered, without its thought."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    role: Literal["user", "assistant"]
    content: str = Field(pattern=r"\S")


def _alternating(turns: list[Turn]) -> list[Turn]:
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise ValueError("the earlier turns must be user, assistant, user, assistant, …, the last by the assistant")
    return turns


class PassRate(BaseModel):
    """How many of the untrained student's answers are right, how many the rule is unsure of, and how many there are."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    solved: int
    unsure: int
    samples: int


class Question(Row):
    """A question with its gold answer: ``answer`` the final value, ``solution`` the worked text or None.

    ``history`` has the earlier turns of its conversation, ``system`` the system text of the row itself, ``pass_rate``
    how often the untrained student solved it.
    """

    question: str = Field(min_length=1)
    answer: Annotated[str, Field(min_length=1)] | None
    solution: str | None = None
    source: str = "unknown"
    history: Annotated[list[Turn], AfterValidator(_alternating)] | None = Field(default=None, exclude_if=is_none)
    system: str | None = Field(default=None, pattern=r"\S", exclude_if=is_none)
    pass_rate: PassRate | None = Field(default=None, exclude_if=is_none)

    @property
    def user_turns(self) -> list[str]:
        """What the user asks in each turn, the question last."""
        return [*(turn.content for turn in self.history or () if turn.role == "user"), self.question]

    @property
    def user_text(self) -> str:
        """All that the user asks: the question, after the user's earlier turns."""
        return "\n\n".join(self.user_turns)

    @property
    def all_texts(self) -> str:
        """All that the question brings to a prompt: its system text, the earlier turns, the question itself."""
        earlier = [turn.content for turn in self.history or ()]
        return "\n\n".join([*([self.system] if self.system else ()), *earlier, self.question])

    @property
    def transcript(self) -> str:
        """The question, after the row's own system text and the earlier turns."""
        return transcript(self.question, self.history, self.system)

    def messages(self, question: str) -> list[dict[str, str]]:
        """The chat messages of the conversation, the last one ``question``: this row's, or a prompt with it."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        earlier = [{"role": turn.role, "content": turn.content} for turn in self.history or ()]
        return [*system, *earlier, {"role": "user", "content": question}]


def transcript(question: str, history: list[Turn] | None, system: str | None) -> str:
    """The question alone, or the whole of what was asked, each text after the name of its speaker."""
    turns = [(turn.role, turn.content) for turn in history or ()]
    spoken = [*([("system", system)] if system else []), *turns, ("user", question)]
    return question if len(spoken) == 1 else "\n\n".join(f"{role.capitalize()}: {text}" for role, text in spoken)


class BenchmarkHit(BaseModel):
    """A benchmark question's text and the first ``ngram`` (words in lower case) that a training question shares."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    benchmark: str
    question: str
    ngram: str


class LeftOut(Question):
    """A question that ``collect`` left out.

    ``same_as`` is the id of the kept row that it repeats (None where it repeats none); ``benchmark_hits`` has one entry
    for each benchmark that it shares an n-gram with (none but where contaminated).
    """

    reason: Literal["duplicate", "near_duplicate", "in_heldout", "near_heldout", "contaminated", "control_token"]
    same_as: str | None
    benchmark_hits: list[BenchmarkHit]


class NearlySame(LeftOut):
    """A ``near_duplicate`` or ``near_heldout`` question; ``similarity`` is the exact one to the row ``same_as``."""

    similarity: float
