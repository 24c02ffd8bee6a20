"""The churn of an arm's answers: the same weights asked the same questions twice, with another batch size.

A batch size changes no weight and no prompt. It changes the padding and the order in which floating-point numbers are
added, and so the last digits of the logits. Where two tokens are nearly equally likely, the answer becomes another one.
What flips between the two passes is noise of the measurement: no training made it.

churn(first_rows, second_rows, batch_size=7)
→ {"batch_size": 7, "n": 100, "flipped": 3, "gained": 1, "lost": 2, "net": -0.01, "flipped_share": 0.03, …}

The sampled questions are asked in the second pass. lm-eval runs on all questions both times, so that it builds the same
prompts (few-shot examples are drawn one question after the other); all others are answered from the first pass's cache.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.evaluation.tasks import Loaded
from stages.lib.rows.evaluated import Again, Evaluated
from stages.lib.statistics.shares import wilson_interval

CONFIDENCE = 0.95  # of the intervals of the two shares


class SecondPass:
    """Requests of the sampled questions go to ``second``, all others to ``first``, which has their answers."""

    def __init__(self, first: Any, second: Any, sample: set[tuple[str, int]]) -> None:
        self._first, self._second, self._sample = first, second, sample

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """The answers, in the order of the requests."""
        return self._split("generate_until", requests)

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """The log-likelihoods, in the order of the requests."""
        return self._split("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
        """The log-likelihoods, in the order of the requests."""
        return self._split("loglikelihood_rolling", requests)

    def _split(self, kind: str, requests: list[Any]) -> list[Any]:
        chosen = [(request.task_name, request.doc_id) in self._sample for request in requests]
        answers = {
            again: iter(
                getattr(model, kind)([request for request, one in zip(requests, chosen, strict=True) if one is again])
            )
            for model, again in ((self._first, False), (self._second, True))
        }
        return [next(answers[again]) for again in chosen]


def sample_of(found: Loaded, limit: int, of_each_task: int | None, seed: int) -> set[tuple[str, int]]:
    """At most ``limit`` questions of a benchmark, by task and number; ``of_each_task`` is ``evaluate.limit``."""
    sizes: Mapping[str, int] = {name: len(task.eval_docs) for name, task in found.tasks.items()}
    asked = [(name, number) for name, size in sizes.items() for number in range(min(size, of_each_task or size))]
    return set(random.Random(seed).sample(asked, min(limit, len(asked))))


def with_second_answers(first: Sequence[Evaluated], second: Sequence[Evaluated]) -> list[Evaluated]:
    """The first pass's rows; those whose text differs in the second pass have the second answer too."""
    again = {row.key: row for row in second}
    return [_with(row, again[row.key]) if row.key in again else row for row in first]


def _with(row: Evaluated, other: Evaluated) -> Evaluated:
    if row.response == other.response:
        return row
    again = Again(response=other.response, prediction=other.prediction, correct=other.correct)
    return row.model_copy(update={"again": again})


def churn(first: Sequence[Evaluated], second: Sequence[Evaluated], batch_size: int) -> dict[str, Any]:
    """How many of the ``n`` questions of the second pass changed, and by how much that changes their score.

    flipped    right in one pass, wrong in the other: ``gained`` are right in the second only, ``lost`` in the first
    net        the share that the second pass got right minus that of the first, on these questions
    differ     another text (multiple choice: another choice), whether it flipped or not

    The keys of the score are absent where no answer is right or wrong (preference).
    """
    before = {row.key: row for row in first}
    pairs = [(before[row.key], row) for row in second]
    n, differ = len(pairs), sum(one.response != other.response for one, other in pairs)
    found: dict[str, Any] = {"batch_size": batch_size, "n": n}
    if all(row.correct is not None for row in second):
        gained = sum(bool(other.correct) and not one.correct for one, other in pairs)
        lost = sum(bool(one.correct) and not other.correct for one, other in pairs)
        found |= {"flipped": gained + lost, "gained": gained, "lost": lost, "net": round((gained - lost) / n, 4)}
        found |= _share("flipped", gained + lost, n)
    return found | {"differ": differ} | _share("differ", differ, n) | {"confidence": CONFIDENCE}


def _share(name: str, count: int, of: int) -> dict[str, float]:
    low, high = wilson_interval(count, of, CONFIDENCE)
    values = {"share": count / of, "low": low, "high": high}
    return {f"{name}_{key}": round(value, 4) for key, value in values.items()}
