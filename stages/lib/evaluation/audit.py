"""Defects of generated answers other than a wrong result: flags for one answer, shares for many, examples.

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
from stages.lib.texts.languages import language_of
from stages.lib.texts.looping import loops

EXAMPLES = 5  # of each kind


@dataclass(frozen=True)
class Generated:
    """A complete generation, including its thought, and what was expected of it.

    - ``language``: the expected language of the answer, None if that is not known;
    - ``stops``: the task's own stop strings (``own_stops``), which did not end the generation;
    - ``end_marker``: what ends a trained student's solution, None for an arm that was not trained to write it;
    - ``tokens``: includes the thought, even if a server removed it from the response;
    - ``cut_off``: what the server reported, None if it reported nothing.
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
    """The defects of one answer; None where a flag does not apply or cannot be determined.

    ``cut_off``         the limit ended it: the server reports that, or its number of tokens reaches the limit
    ``task_stop``       it contains one of the task's stop strings: lm-eval's defaults would have cut it there
    ``no_end_marker``   the end marker of the solution is missing (None: the arm writes none)
    ``unread``          the verifier read no answer with certainty (None: the task has no verifier)
    ``other_language``  the solution is not in the expected language (None: too short to determine)
    ``looping``         its end repeats itself
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
    answer: str | None
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
    """A task's stop strings, without those that always end a turn (``<|im_end|>``, ``</s>``)."""
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
    return generated.tokens >= generated.limit - token_tolerance(generated.limit)


def token_tolerance(limit: int) -> int:
    """The tolerance in tokens: the text may split into fewer tokens than were generated."""
    return max(2, limit // 100)


def _in_other_language(text: str, language: str | None) -> bool | None:
    found = language_of(solution(text)) if language else None
    return None if found is None else found != language


def summary(rows: Sequence[Audited]) -> dict[str, Any]:
    """The audit's metrics of one benchmark (or of one of its languages), from at least one row.

    ``differ`` counts the answers that lm-eval and the verifier score differently; the flags are shares of all rows,
    None if the flag applies to no row.
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
    """Up to five answers of each kind, sampled with the seed, in the order of the rows.

    The kinds are the flags and the two disagreements: ``differ_lm_eval_only`` (right only for lm-eval) and
    ``differ_verifier_only``.
    """
    rows = list(rows)
    return [example for kind, is_one in _kinds().items() for example in _sampled(rows, kind, is_one, seed)]


def _kinds() -> dict[str, Callable[[Audited], bool]]:
    def flagged(kind: str) -> Callable[[Audited], bool]:
        return lambda row: getattr(row.flags, kind) is True

    return {
        "differ_lm_eval_only": lambda row: row.lm_eval is True and row.verifier is False,
        "differ_verifier_only": lambda row: row.lm_eval is False and row.verifier is True,
        **{kind: flagged(kind) for kind in KINDS},
    }


def _sampled(rows: list[Audited], kind: str, is_one: Callable[[Audited], bool], seed: int) -> list[dict[str, Any]]:
    places = [index for index, row in enumerate(rows) if is_one(row)]
    # one generator for each kind, so that the examples of one kind do not depend on another's number
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
