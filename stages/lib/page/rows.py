"""The rows that a reader of the page searches: every answer of the teacher and of the students, and what was dropped.

    entries(Sources(kept=[…], rejected=[…], students={"base": [Evaluated(…), …]}, …))
    → [Entry(question={…}, row={"kind": "student", "arm": "base", "mark": "right", "text": "…", …}, rank=Rank.OTHER), …]

A row is a dict of what the page's script reads (assets/data.js); a key without a value is absent. Positions in a text
count UTF-16 units, as the script does. A question and a row name the formulas in their texts:
``{"formulas": {"text": [[start, end, tree], …]}}``.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import chain, tee
from typing import Any

from stages.lib.answers import rule_verdict
from stages.lib.answers.statements import LONGEST, marked_solution
from stages.lib.comparison.table import FLAGS
from stages.lib.page.formulas import formulas
from stages.lib.reviews import text_sha256
from stages.lib.rows.distilled import Distilled, Failure
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.filtered import Disagreement, Filtered, Rejected
from stages.lib.rows.preference import Preference
from stages.lib.rows.question import LeftOut, Question, transcript
from stages.lib.texts.languages import language_of
from stages.lib.workers import map_rows

Packed = dict[str, Any]
Judged = tuple[str, str, str, str]  # question, response, gold answer, language
Texts = dict[str, str]
Read = tuple[Texts, Judged | None, Texts | None]  # a row's texts, what was judged, the texts of a question not read yet
TEXTS = ("text", "thought", "second_text")  # of a row, in which formulas are drawn
TEXTS_OF_QUESTION = ("question", "earlier")

_language = lru_cache(maxsize=1024)(language_of)  # several rows ask one question, one after the other


class Rank(Enum):
    """Where the page has no room for all rows: what it has first, next and last."""

    COMPARED = 0  # what the arms or the verdicts differ in, and the samples
    DROPPED = 1  # rejected answers, and questions that a stage dropped
    OTHER = 2


@dataclass(frozen=True)
class Entry:
    """One row with its question."""

    question: Packed
    row: Packed
    rank: Rank


@dataclass(frozen=True)
class Sources:
    """The rows of a run, iterated once; ``students`` and ``drawn``, the keys of the page's samples, by arm."""

    kept: Iterable[Filtered]
    rejected: Iterable[Rejected]
    disagreements: Iterable[Disagreement]
    left_out: Iterable[LeftOut]
    too_easy: Iterable[Question]
    failures: Iterable[Failure]
    preferences: Iterable[Preference]
    students: Mapping[str, Sequence[Evaluated]]
    drawn: Mapping[str, frozenset[str]] = field(default_factory=dict)


def entries(sources: Sources) -> Iterator[Entry]:
    """All rows of the page: the teacher's answers, what was dropped, the students' by question, the judge's choices."""
    drafts, read = tee(_drafts(sources))
    found = map_rows(_found, _to_read(read))  # most of the time, so on all cores
    of_question: Packed = {}
    for (entry, _), (span, of_row, of_new) in zip(drafts, found, strict=True):
        of_question = of_question if of_new is None else of_new
        row = entry.row | _present({"span": span, "formulas": of_row or None})
        yield Entry(entry.question | _present({"formulas": of_question or None}), row, entry.rank)


def _to_read(drafts: Iterable[tuple[Entry, Judged | None]]) -> Iterator[Read]:
    """What ``_found`` reads of each row; rows that ask one question stand together, and the first brings its texts."""
    before: Texts | None = None
    for entry, judged in drafts:
        of_question = _texts(entry.question, TEXTS_OF_QUESTION)
        yield _texts(entry.row, TEXTS), judged, None if of_question == before else of_question
        before = of_question


def _drafts(sources: Sources) -> Iterator[tuple[Entry, Judged | None]]:
    """The entries without a span, and the answers that the rule judged."""
    disagreed = {row.key: row.kind for row in sources.disagreements}
    for answer in chain(sources.kept, sources.rejected):
        language = _language(answer.question)
        yield _teacher(answer, disagreed.get(answer.key)), _judged(answer, answer.rule_verdict, language or "en")
    for stage, dropped in _dropped(sources):
        yield _of_question(dropped, stage), None
    for arm, row, is_compared in _students(sources):
        yield _student(arm, row, is_compared), _judged(row, row.verdict, row.language or "en")
    for preference in sources.preferences:
        yield _preference(preference), None


def _judged(row: Filtered | Evaluated, verdict: str | None, language: str) -> Judged | None:
    return (row.question, row.response, row.answer, language) if verdict and row.answer is not None else None


def differs_from_gold(row: Filtered) -> bool:
    """Whether an answer counts as right although the rule reads another value than the gold one."""
    return row.verdict == "right" and row.answer is not None and row.rule_verdict == "wrong"


def _teacher(row: Filtered, disagreement: str | None) -> Entry:
    flags = [name for name in (disagreement, "differs_from_gold" if differs_from_gold(row) else None) if name]
    known = {
        "kind": "rejected" if isinstance(row, Rejected) else "kept",
        "id": row.key,
        "language": _language(row.question),
        "mark": row.verdict if row.verdict != "unfit" else "wrong",
        "verdict": row.verdict,
        "by": row.decided_by,
        "rule": row.rule_verdict,
        "judge": row.judge_verdict,
        "prediction": row.prediction,
        "reason": row.reason if isinstance(row, Rejected) else None,
        "stage": "filter" if isinstance(row, Rejected) else None,
        "detail": row.detail,
        "score": row.score,
        "finish": row.finish_reason,
        "tokens": _completion_tokens(row),
        "flags": flags or None,
        "model": row.model,
        "server": row.served_by,
        "thought": row.reasoning or None,
        "text": row.response,
        "sha": text_sha256(row),
    }
    rank = Rank.COMPARED if flags else Rank.DROPPED if isinstance(row, Rejected) else Rank.OTHER
    return Entry(_asked(row), _present(known), rank)


def _completion_tokens(row: Distilled) -> int | None:
    tokens = row.usage.get("completion_tokens")
    return tokens if isinstance(tokens, int) else None


def _dropped(sources: Sources) -> Iterator[tuple[str, Question]]:
    for stage, rows in (
        ("collect", sources.left_out),
        ("difficulty", sources.too_easy),
        ("distill", sources.failures),
    ):
        yield from ((stage, row) for row in rows)


def _of_question(row: Question, stage: str) -> Entry:
    """A question that a stage dropped before the filter."""
    known: Packed = {"kind": "dropped", "id": row.key, "stage": stage, "language": _language(row.question)}
    if isinstance(row, LeftOut):
        benchmarks = [hit.benchmark for hit in row.benchmark_hits]
        detail = ", ".join([*([row.same_as] if row.same_as else ()), *benchmarks])
        known |= {"reason": row.reason, "detail": detail or None}
    elif isinstance(row, Failure):
        known |= {"reason": row.reason, "detail": row.error or None}
    else:
        rate = row.pass_rate
        known |= {"reason": "too_easy", "detail": f"{rate.solved}/{rate.samples}" if rate else None}
    return Entry(_asked(row), _present(known), Rank.DROPPED)


def _students(sources: Sources) -> Iterator[tuple[str, Evaluated, bool]]:
    """The students' answers, all arms' to one question beside each other: like texts pack best together."""
    by_question: dict[str, list[tuple[str, Evaluated]]] = {}
    for arm, rows in sources.students.items():
        for row in rows:
            by_question.setdefault(row.key, []).append((arm, row))
    for key, answers in by_question.items():
        discordant = len({row.correct for _, row in answers}) > 1
        for arm, row in answers:
            yield arm, row, discordant or key in sources.drawn.get(arm, ())


def _student(arm: str, row: Evaluated, is_compared: bool) -> Entry:
    flags = [name for name in FLAGS if getattr(row, name)]
    if row.verdict is not None and row.lm_eval is not None and row.lm_eval != (row.verdict == "right"):
        flags.append("marks_differ")
    start, _ = marked_solution(row.response[-LONGEST:])
    start += max(0, len(row.response) - LONGEST) if start else 0
    known = {
        "kind": "student",
        "id": row.id,
        "arm": arm,
        "benchmark": row.benchmark,
        "language": row.language or _language(row.question),
        "mark": _mark(row),
        "verdict": row.verdict,
        "by": row.decided_by,
        "lm": None if row.lm_eval is None else "right" if row.lm_eval else "wrong",
        "correct": row.correct,
        "prediction": row.prediction if row.answer is not None else None,
        "tokens": row.tokens,
        "flags": flags or None,
        "text": row.response,
        "thought_end": _units(row.response, [start])[0] or None,
    }
    is_compared = is_compared or any(name not in ("no_end_marker", "unread") for name in flags)
    return Entry(_asked(row), _present(known), Rank.COMPARED if is_compared else Rank.OTHER)


def _mark(row: Evaluated) -> str | None:
    if row.correct is None:
        return None
    unsure = row.verdict == "unsure" and row.decided_by.startswith("rule:")
    return "right" if row.correct else "unsure" if unsure else "wrong"


def _preference(row: Preference) -> Entry:
    known = {
        "kind": "preference",
        "id": row.id,
        "benchmark": "preference",
        "language": _language(row.question),
        "arm": row.first,
        "second": row.second,
        "outcome": row.outcome,
        "verdicts": [row.verdict, row.verdict_swapped],
        "text": row.first_answer,
        "second_text": row.second_answer,
    }
    return Entry({"id": row.id, "question": row.question}, _present(known), Rank.OTHER)


def _asked(row: Question | Evaluated) -> Packed:
    """The question as the page shows it; rows of one question share it."""
    earlier = transcript("", row.history, row.system).strip() if row.history or row.system else None
    known = {"id": row.id, "question": row.question, "gold": row.answer, "earlier": earlier}
    return _present(known | {"solution": row.solution if isinstance(row, Question) else None})


def _texts(of: Packed, names: Iterable[str]) -> Texts:
    return {name: of[name] for name in names if name in of}


def _found(read: Read) -> tuple[list[int] | None, Packed, Packed | None]:
    """The part of a row that the verdict rests on, its formulas, and those of its question if that was given."""
    texts, judged, of_question = read
    return _span(judged) if judged else None, _drawn(texts), None if of_question is None else _drawn(of_question)


def _drawn(texts: Texts) -> Packed:
    """The formulas of each text: start, end and MathML of each."""
    drawn = {}
    for name, text in texts.items():
        if found := formulas(text):
            places = _units(text, [place for one in found for place in (one.start, one.end)])
            all_of = zip(places[::2], places[1::2], found, strict=True)
            drawn[name] = [[start, end, one.tree] for start, end, one in all_of]
    return drawn


def _span(judged: Judged) -> list[int] | None:
    """The part of a response that the rule's verdict rests on."""
    found = rule_verdict(*judged)
    response = judged[1]
    return _units(response, [found.start, found.end]) if found.end else None


def _units(text: str, positions: Sequence[int]) -> list[int]:
    """The positions in UTF-16 units, in which a browser counts."""
    if text.isascii() or max(text) <= "\uffff":
        return list(positions)
    wide = [place for place, character in enumerate(text) if character > "\uffff"]
    return [position + bisect_left(wide, position) for position in positions]


def _present(known: Packed) -> Packed:
    return {key: value for key, value in known.items() if value is not None}
