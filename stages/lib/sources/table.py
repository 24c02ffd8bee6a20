"""Questions from a table: which rows are used, what their columns hold, and what is wrong with the others.

A table is read three times: to find the rows that hold a question, for those to hold out, and for those to train on.
Memory holds 8 bytes of each; 32 where they are shuffled, and their texts are in a temporary file then. The first
``train_size`` of them are trained on and the last ``heldout_size`` held out, in the table's order or, with
``shuffle_seed``, in a shuffled one.

    {"rows": 7473, "not_where": 0, "usable": 7471, "unusable": {"no_answer": {"count": 2, "rows": [12, 40]}}}

Rows are counted from 0; ``rows`` names the first ten of a kind.
"""

import logging
import random
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.lib.hygiene.seen import Seen
from stages.lib.params import Columns, Where
from stages.lib.rows import DataError
from stages.lib.rows.question import Question, Turn
from stages.lib.sources import Drawn
from stages.lib.tables.columns import NAMED_ROWS, SeenColumns, Unusable, fits, text_in, text_of, value_at
from stages.lib.tables.files import Rows
from stages.lib.tables.gold import READERS
from stages.lib.tables.messages import Message, read_messages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("distillery.collect")


@dataclass(frozen=True)
class Form:
    """How a table is read.

    ``key`` is where params name it. ``name`` and ``split`` make ids (``gsm8k-train-0``) and sources (``gsm8k/train``).
    """

    key: str
    name: str
    split: str
    columns: Columns
    gold: str | None
    where: Where
    shuffle_seed: int | None


@dataclass
class _Survey:
    """The rows of a table: the numbers of those that hold a question; of the others, how many there are by reason, and
    number and place of the first ones."""

    rows: int = 0
    not_where: int = 0
    usable: "array[int]" = field(default_factory=lambda: array("q"))  # 8 bytes each
    unusable: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def add_unusable(self, reason: str, number: int, place: str) -> None:
        """Count a row that holds no question."""
        self.unusable[reason] += 1
        if len(self.first[reason]) < NAMED_ROWS:
            self.first[reason].append((number, place))

    def facts(self) -> dict[str, Any]:
        """The counts for the metrics."""
        unusable = {
            reason: {"count": count, "rows": [number for number, _ in self.first[reason]]}
            for reason, count in sorted(self.unusable.items())
        }
        return {"rows": self.rows, "not_where": self.not_where, "usable": len(self.usable), "unusable": unusable}


def draw_of(table: Callable[[], Rows], form: Form, train: int, heldout: int) -> Drawn:
    """So many questions to train on and to hold out; ``table`` begins to read the rows at each call.

    DataError where a column is in no row, an id is there twice, or the table has fewer questions than asked for.
    """
    survey = _surveyed(table(), form)
    if not survey.rows:
        raise DataError(f"collect: {form.name} has no rows. Look at what {form.key}.path names.")
    _report(survey, form)
    if not survey.usable:
        reasons = [f"{count} {reason}" for reason, count in sorted(survey.unusable.items())]
        raise DataError(
            f"collect: none of the {survey.rows} rows of {form.name} is usable "
            f"({', '.join([*reasons, f'{survey.not_where} not in where'])}). "
            f"Check columns, gold and where of {form.key}."
        )
    if len(survey.usable) < train + heldout:
        raise DataError(
            f"collect: {train + heldout} questions are asked for, and {form.name} has {len(survey.usable)} in "
            f"{survey.rows} rows. Lower collect.train_size or collect.heldout_size."
        )
    order = survey.usable
    if form.shuffle_seed is not None:
        random.Random(form.shuffle_seed).shuffle(order)
    sets = (order[:train], order[len(order) - heldout :])
    candidates, held_out = (_Chosen(table, form, numbers) for numbers in sets)
    return Drawn(candidates, held_out, survey.facts())


def _surveyed(rows: Rows, form: Form) -> _Survey:
    survey, seen, ids = _Survey(), SeenColumns(_columns(form)), Seen()
    for number, (place, row) in enumerate(rows):
        survey.rows += 1
        seen.add(row)
        if not fits(row, form.where):
            survey.not_where += 1
            continue
        try:
            question = _question(row, number, form)
        except Unusable as reason:
            survey.add_unusable(str(reason), number, place)
            continue
        if form.columns.id:
            if other := ids.get(question.id):
                raise DataError(f"{place}: the id '{question.id}' is that of {other} too. Remove columns.id.")
            ids.add(question.id, place)
        survey.usable.append(number)
    seen.require(f"collect: {form.name}", f"columns and where of {form.key}")
    return survey


def _columns(form: Form) -> list[str]:
    """The columns that must be there."""
    return [column for column in (*form.columns.model_dump().values(), *form.where) if column]


def _question(row: Mapping[str, Any], number: int, form: Form) -> Question:
    columns = form.columns
    solution = value_at(row, columns.solution) if columns.solution else None
    name = text_of(value_at(row, columns.id)) if columns.id else f"{form.name}-{form.split}-{number}"
    if not name:
        raise Unusable("no_id")
    question, history, system = _asked(row, columns)
    return Question(
        id=name,
        question=question,
        answer=_gold(row, form),
        solution=solution if isinstance(solution, str) and solution.strip() else None,
        source=f"{form.name}/{form.split}",
        history=[Turn(role=turn.role, content=turn.content) for turn in history] or None,
        system=system,
    )


def _asked(row: Mapping[str, Any], columns: Columns) -> tuple[str, Sequence[Message], str | None]:
    """The question, the turns before it, and the row's own system text."""
    own = text_of(value_at(row, columns.system)) if columns.system else None
    own = own if own and own.strip() else None
    if columns.history is None:
        return text_in(row, str(columns.question), "question"), (), own
    dialogue = read_messages(value_at(row, columns.history))
    history, question = (dialogue.turns, "") if columns.question else dialogue.before_last_question()
    if history and history[-1].role == "user":
        raise Unusable("turns_do_not_alternate")  # the question would be the user's second turn in a row
    if columns.question:
        question = text_in(row, columns.question, "question")
        if any(turn.content.strip() == question.strip() for turn in history if turn.role == "user"):
            raise Unusable("question_in_history")  # else its answer would be in the prompt
    return question, history, own or dialogue.system


def _gold(row: Mapping[str, Any], form: Form) -> str | None:
    """The gold answer; None where the source has none."""
    if form.columns.answer is None or form.gold is None:
        return None
    answer = READERS[form.gold](text_in(row, form.columns.answer, "answer"))
    if answer is None:
        raise Unusable(f"answer_not_{form.gold}")
    return answer


def _report(survey: _Survey, form: Form) -> None:
    for reason, count in sorted(survey.unusable.items()):
        shown = ", ".join(place for _, place in survey.first[reason]) + (", …" if count > NAMED_ROWS else "")
        log.warning("collect: %s: %d of %d rows left out: %s (%s)", form.name, count, survey.rows, reason, shown)


class _Chosen:
    """The questions of these rows, in the order of ``numbers``; each iteration reads the table again."""

    def __init__(self, table: Callable[[], Rows], form: Form, numbers: "array[int]") -> None:
        self._table, self._form, self._numbers = table, form, numbers

    def __iter__(self) -> Iterator[Question]:
        if self._form.shuffle_seed is None:
            return self._in_order(self._numbers)
        return self._shuffled()

    def _in_order(self, numbers: "Sequence[int] | NDArray[np.int64]") -> Iterator[Question]:
        """The questions of rows whose numbers rise; DataError where the table has no longer a question there."""
        taken = 0
        for number, (_, row) in enumerate(self._table() if len(numbers) else ()):
            if number == numbers[taken]:
                try:
                    question = _question(row, number, self._form)
                except Unusable:
                    break
                yield question
                taken += 1
                if taken == len(numbers):
                    return
        if taken < len(numbers):
            raise DataError(f"collect: {self._form.name}: changed while it was read. Run the stage again.")

    def _shuffled(self) -> Iterator[Question]:
        """By way of a file without a name, which is read in the shuffled order."""
        import numpy as np

        numbers = np.array(self._numbers, np.int64)
        rising = np.argsort(numbers)
        places = np.empty(len(numbers), np.int64)
        with tempfile.TemporaryFile() as file:
            for which, question in zip(rising, self._in_order(numbers[rising]), strict=True):
                places[which] = file.tell()
                file.write(question.model_dump_json().encode() + b"\n")
            for place in places:
                file.seek(int(place))
                yield Question.model_validate_json(file.readline())
