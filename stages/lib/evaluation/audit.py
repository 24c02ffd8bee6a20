"""What is wrong with a generated answer besides its being wrong: flags for one answer, shares for many, examples.

flags(Generated(question, response, tokens=4096, limit=4096, …), verdict)
→ Flags(cut_off=True, task_stop=False, no_end_marker=True, unread=False, other_language=None, looping=True)
summary(rows)  → {"differ": 1, "cut_off": 0.12, …, "tokens_median": 52, "tokens_p95": 110}
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from stages.lib.answers import Verdict
from stages.lib.answers.statements import solution
from stages.lib.evaluation.languages import language_of
from stages.lib.evaluation.looping import loops

EXAMPLES = 5  # of each kind


@dataclass(frozen=True)
class Generated:
    """A whole generation with its thought, and what it was asked for.

    ``language`` is the one that the answer is expected in (None where that is not known); ``stops`` are the task's
    own stop strings (``own_stops``), though generation went on; ``end_marker`` closes a trained student's solution
    (None for an arm that was not trained to write one). ``tokens`` are those of the thought too, even where a server
    took it out of the response; ``cut_off`` is what the server said of it, None where nobody said.
    """

    question: str
    response: str
    tokens: int
    limit: int
    language: str | None
    stops: tuple[str, ...]
    end_marker: str | None
    cut_off: bool | None = None


@dataclass(frozen=True)
class Flags:
    """What is wrong with one answer; None where the question does not arise or cannot be told.

    ``cut_off``         the limit ended it: the server says so or, where none does, its tokens reach the limit
    ``task_stop``       one of the task's own stop strings stands in it: lm-eval's defaults would have cut it there
    ``no_end_marker``   the marker that closes a solution is lacking (None: the arm writes none)
    ``unread``          the verifier found no answer that it is sure of (None: the task has no verifier)
    ``other_language``  the solution is in another language than asked (None: too short to tell)
    ``looping``         its tail repeats itself
    """

    cut_off: bool
    task_stop: bool
    no_end_marker: bool | None
    unread: bool | None
    other_language: bool | None
    looping: bool


KINDS = tuple(field.name for field in fields(Flags))


@dataclass(frozen=True)
class Audited:
    """One answer with its flags and both scores: ``lm_eval`` is its own (gsm8k, mgsm: flexible-extract)."""

    id: str
    question: str
    answer: str
    response: str
    tokens: int
    flags: Flags
    lm_eval: bool | None
    verdict: Literal["right", "wrong", "unsure"] | None

    @property
    def verifier(self) -> bool | None:
        """The verifier's score: an unsure verdict counts as not right."""
        return None if self.verdict is None else self.verdict == "right"


def own_stops(until: Iterable[str]) -> tuple[str, ...]:
    """A task's stop strings without those that end a turn in any case (``<|im_end|>``, ``</s>``)."""
    return tuple(stop for stop in until if not (stop.startswith("<") and stop.endswith(">")))


def flags(generated: Generated, verdict: Verdict | None) -> Flags:
    """The flags of one answer; ``verdict`` is the verifier's, None where the task has none."""
    text = generated.response
    return Flags(
        cut_off=_reaches_limit(generated) if generated.cut_off is None else generated.cut_off,
        task_stop=any(stop in text for stop in generated.stops),
        no_end_marker=None if generated.end_marker is None else generated.end_marker not in text,
        unread=None if verdict is None else verdict.verdict == "unsure",
        other_language=_in_other_language(text, generated.language),
        looping=loops(text),
    )


def _reaches_limit(generated: Generated) -> bool:
    return generated.tokens >= generated.limit - recount(generated.limit)


def recount(limit: int) -> int:
    """Tokens are counted in the text, which may split into so many less than were generated."""
    return max(2, limit // 100)


def _in_other_language(text: str, language: str | None) -> bool | None:
    found = language_of(solution(text)) if language else None
    return None if found is None else found != language


def summary(rows: Sequence[Audited]) -> dict[str, Any]:
    """The audit's keys of one benchmark (or of one of its languages), from at least one row.

    ``differ`` counts the answers that lm-eval and the verifier score differently; the flags are shares of all rows,
    None where the flag arises in no row.
    """
    tokens = [row.tokens for row in rows]
    both = [row for row in rows if row.lm_eval is not None and row.verifier is not None]
    return {
        "differ": sum(row.lm_eval != row.verifier for row in both) if both else None,
        **{kind: _share([getattr(row.flags, kind) for row in rows]) for kind in KINDS},
        "tokens_median": round(float(np.median(tokens)), 1),
        "tokens_p95": round(float(np.percentile(tokens, 95)), 1),
    }


def _share(found: list[bool | None]) -> float | None:
    if all(each is None for each in found):
        return None
    return round(sum(each is True for each in found) / len(found), 4)


def examples(rows: Iterable[Audited], seed: int) -> list[dict[str, Any]]:
    """Five answers of each kind, drawn by the seed, in the order of the rows; fewer where there are fewer.

    The kinds are the flags and the two ways to differ: ``differ_lm_eval_only`` (right for lm-eval alone) and
    ``differ_verifier_only``.
    """
    rows = list(rows)
    return [example for kind, is_one in _kinds().items() for example in _drawn(rows, kind, is_one, seed)]


def _kinds() -> dict[str, Callable[[Audited], bool]]:
    def flagged(kind: str) -> Callable[[Audited], bool]:
        return lambda row: getattr(row.flags, kind) is True

    return {
        "differ_lm_eval_only": lambda row: row.lm_eval is True and row.verifier is False,
        "differ_verifier_only": lambda row: row.lm_eval is False and row.verifier is True,
        **{kind: flagged(kind) for kind in KINDS},
    }


def _drawn(rows: list[Audited], kind: str, is_one: Callable[[Audited], bool], seed: int) -> list[dict[str, Any]]:
    places = [index for index, row in enumerate(rows) if is_one(row)]
    # a generator for each kind: so the examples of one do not move with the number of another's
    chosen = sorted(random.Random(f"{seed}/{kind}").sample(places, min(EXAMPLES, len(places))))
    return [_example(kind, rows[index]) for index in chosen]


def _example(kind: str, row: Audited) -> dict[str, Any]:
    return {
        "kind": kind,
        "id": row.id,
        "question": row.question,
        "answer": row.answer,
        "response": row.response,
        "tokens": row.tokens,
        "lm_eval": row.lm_eval,
        "verdict": row.verdict,
    }
