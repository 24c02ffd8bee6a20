"""What ``prefer`` writes: one row for each question and pair of arms, and the counts of each pair.

{"id": "q7", "first": "filtered", "second": "base", "question": "…", "first_answer": "…", "second_answer": "…",
 "verdict": "first", "verdict_swapped": "first", "outcome": "first"}
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from stages.lib.rows import Row

Side = Literal["first", "second", "tie"]


class Preference(Row):
    """A judge's preference between the answers of two arms to one question.

    ``verdict`` is the one with the first arm's answer shown as A, ``verdict_swapped`` the one with it shown as B; both
    name the arm. ``outcome`` is an arm only where both verdicts name it, else a tie. Two identical answers are a tie
    that no judge was asked about.
    """

    first: str
    second: str
    question: str
    first_answer: str
    second_answer: str
    verdict: Side | Literal["unsure"]
    verdict_swapped: Side | Literal["unsure"]
    outcome: Side

    @property
    def key(self) -> str:
        """The pair and the question's id."""
        return f"{self.first}_vs_{self.second}/{self.id}"


class Counts(BaseModel):
    """A pair's counts in metrics/prefer.json. ``n = wins + losses + ties``, of the first arm.

    identical           ties because both answers are the same text; nobody was asked
    unsure              questions of which at least one verdict could not be read; it counts as a tie
    flipped             questions on which the verdict went with the position: A both times, or B both times
    flipped_to_a        those of them on which it was A, the answer that is shown first
    longer_wins         decided questions on which the longer answer won; ``shorter_wins``: the shorter one
    length_correlation  Spearman's, of the difference in length with the outcome; None where one of them is constant
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    first: str
    second: str
    n: int
    wins: int
    losses: int
    ties: int
    identical: int
    unsure: int
    flipped: int
    flipped_share: float
    flipped_to_a: int
    longer_wins: int
    shorter_wins: int
    length_correlation: float | None


class AskedJudge(BaseModel):
    """The judge's model and the name of its prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    prompt: str


class PreferenceMetrics(BaseModel):
    """metrics/prefer.json; without a judge there are no pairs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    judge: AskedJudge | None
    pairs: dict[str, Counts]
