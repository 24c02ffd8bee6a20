"""The types of metrics/compare.json, which ``compare`` writes, and which the table and the page show.

{"confidence": 0.95,
 "arms": {"filtered": {"training": {"steps": 30, …}, "system_prompt": "brief", "benchmarks": {"heldout": {…}}}},
 "pairs": {"filtered_vs_base": {"first": "filtered", "second": "base", "benchmarks": {"heldout": {…}}}},
 "warnings": [{"code": "steps", "arms": ["filtered", "unfiltered"], "values": {"first": "filtered", "steps": 30, …}}]}
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.lib.rows.preference import AskedJudge, Counts

Finding = Literal["better", "worse", "no detectable difference"]
Interval = Literal["pseudo_pairs", "tango"]
Spread = Literal["trainings", "questions", "none"]


class Part(BaseModel):
    """A part of the file. Unknown fields are ignored, because a later version may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Rollouts(Part):
    """What an on-policy arm learned from: its own answers to ``prompts``, each token scored by its teacher."""

    prompts: int
    tokens_prompted: int
    tokens_rolled_out: int
    tokens_of_teacher: int
    share_cut_off: float


class Training(Part):
    """An arm's training (metrics/train/ARM.json), as far as the comparison shows it.

    An on-policy arm has ``start_from``, the arm whose weights it began with, and ``on_policy``.
    """

    rows: int
    rows_shortened: int
    rows_too_long: int
    steps: int
    epochs: float
    tokens_trained: int
    start_from: str | None = Field(default=None, exclude_if=lambda name: name is None)
    on_policy: Rollouts | None = Field(default=None, exclude_if=lambda found: found is None)


class LanguageScore(Part):
    """A benchmark's score in one of its languages."""

    value: float
    n: int


class Churn(Part):
    """A second pass over ``n`` questions with another batch size (metrics/eval/ARM.json, ``evaluate.churn``).

    flipped    right in one pass and wrong in the other; None where no answer is right or wrong
    net        the change of the score that the flips make, on these questions
    differ     another text, flipped or not
    """

    batch_size: int
    n: int
    flipped: int | None = None
    net: float | None = None
    differ: int


class Audit(Part):
    """The audit of an arm's ``n`` answers to one benchmark (metrics/eval/ARM.json), shares between 0 and 1.

    A count is None where it cannot be determined; all are None where no text was generated (mmlu).
    """

    n: int
    differ: int | None = None
    cut_off: float | None = None
    task_stop: float | None = None
    no_end_marker: float | None = None
    unread: float | None = None
    other_language: float | None = None
    looping: float | None = None
    tokens_median: float | None = None
    tokens_p95: float | None = None
    churn: Churn | None = None

    @property
    def is_audited(self) -> bool:
        """Whether there was a text to audit."""
        return self.tokens_median is not None


class Score(Audit):
    """An arm's score on one benchmark, shares between 0 and 1, and the audit of its answers.

    value              one of the two scores ``lm_eval`` and ``verifier``; ``headline`` says which
    verifier           counts an unsure verdict as not right; None where a benchmark has no verifier
    if_unsure_wrong    the verifier's score if all unsure answers were wrong; None like ``verifier``
    if_unsure_right    the verifier's score if all unsure answers were right; None like ``verifier``
    """

    headline: Literal["verifier", "lm_eval"]
    value: float
    lm_eval: float | None = None
    verifier: float | None = None
    if_unsure_wrong: float | None = None
    if_unsure_right: float | None = None
    languages: dict[str, LanguageScore] | None = None


class ComparedScore(Score):
    """A score with its interval, and how many of the ``n`` answers were right."""

    low: float
    high: float
    correct: int


class Arm(Part):
    """An arm's training (None for the base arm), the name of its system text, and its score on each benchmark.

    ``unscored`` are the benchmarks whose answers are neither right nor wrong (preference).
    """

    training: Training | None
    system_prompt: str | None
    benchmarks: dict[str, ComparedScore]
    unscored: dict[str, Audit] = {}


class ChurnOfPair(Part):
    """The churn of both arms of a pair, and how far it moves their difference if both are evaluated once more.

    alone            at the confidence of the comparison, from the flips that were seen
    alone_at_most    the same from the upper ends of the intervals of the two shares of flips
    """

    first: Churn
    second: Churn
    alone: float
    alone_at_most: float


class Trainings(Part):
    """The same difference after other trainings, one for each seed (metrics/seeds.json), and Student's t interval.

    low, high    None where all seeds of the same questions have the same difference: no spread was seen
    spread       "questions" where the differences lie closer together than the choice of questions lets them: then the
                 standard error of that choice stands for their spread; "none" where there is no interval
    questions    "drawn again" where each seed had other questions: the interval covers their choice too; "the same"
                 where it is about these questions alone
    """

    seeds: list[str]
    differences: list[float]
    mean: float
    low: float | None
    high: float | None
    spread: Spread = "trainings"
    questions: str


class Difference(Part):
    """The first minus the second on the same questions of one benchmark.

    interval          the method of ``low``, ``high`` and ``p``
    mcnemar_p         McNemar's exact p; None where questions repeat a problem, as the test needs independent pairs
    p_holm            ``p`` with Holm's correction for the number of differences; ``finding`` depends on it
    if_unsure_low     the difference if the first arm's unsure answers were all wrong and the second's all right
    if_unsure_high    the difference in the opposite case

    These two are set only where the verifier's score is compared.

    churn             None where the arms were not evaluated twice
    trainings         None where the arms were not trained on several seeds
    """

    difference: float
    low: float
    high: float
    interval: Interval = "pseudo_pairs"
    p: float
    mcnemar_p: float | None = None
    p_holm: float
    only_first: int
    only_second: int
    n: int
    clusters: int
    detectable: float | None
    if_unsure_low: float | None = None
    if_unsure_high: float | None = None
    churn: ChurnOfPair | None = None
    trainings: Trainings | None = None
    finding: Finding


class Pair(Part):
    """Two arms and their differences, by benchmark; ``preference`` has the judge's counts, None without a judge.

    The difference on the benchmark ``preference`` is the net win rate: wins minus losses, as a share of all questions.
    """

    first: str
    second: str
    benchmarks: dict[str, Difference]
    preference: Counts | None = None

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.first} − {self.second}"


class Warned(Part):
    """A warning about the ``arms``, or about a method where there are none.

    ``code`` names its text in comparison/warnings, which has places for the ``values``.
    """

    code: str
    arms: list[str]
    values: Mapping[str, int | str]


class Comparison(Part):
    """The whole file."""

    confidence: float
    arms: dict[str, Arm]
    pairs: dict[str, Pair]
    warnings: list[Warned]
    judge: AskedJudge | None = None

    @property
    def benchmarks(self) -> list[str]:
        """All benchmarks with scores of any arm, in their order."""
        return list(dict.fromkeys(name for arm in self.arms.values() for name in arm.benchmarks))

    @property
    def unscored(self) -> list[str]:
        """All benchmarks of any arm whose answers are neither right nor wrong."""
        return list(dict.fromkeys(name for arm in self.arms.values() for name in arm.unscored))
