"""What a column holds: a value by the column's name, or by a path into it such as ``messages.0.content``."""

from collections.abc import Iterable, Mapping
from typing import Any

from stages.lib.params import Scalar, Where
from stages.lib.rows import DataError

NAMED_ROWS = 10  # so many rows that cannot be used are named for each reason


class Unusable(Exception):
    """A row that does not hold what it should; its text is the reason, such as ``no_question``."""


def value_at(row: Mapping[str, Any], column: str) -> Any:
    """The value, None where the row has none. A column of just that name comes before a path."""
    if column in row:
        return row[column]
    found: Any = row
    for part in column.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def has_column(row: Mapping[str, Any], column: str) -> bool:
    """Whether a row has the column, or the one that a path begins in."""
    return column in row or column.partition(".")[0] in row


def fits(row: Mapping[str, Any], where: Where) -> bool:
    """Whether each named column holds the value, or one of the values; CSV holds texts, so 5 is also "5"."""
    return all(_is_one_of(value_at(row, column), wanted) for column, wanted in where.items())


def _is_one_of(value: Any, wanted: Scalar | list[Scalar]) -> bool:
    return any(text_of(value) == text_of(each) for each in (wanted if isinstance(wanted, list) else [wanted]))


def text_of(value: Any) -> str | None:
    """A text, a number or a truth value as text; None for what is neither, a list or null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def text_in(row: Mapping[str, Any], column: str, what: str) -> str:
    """A column's text as it is; Unusable where it is a list, a mapping, empty or not there."""
    return text_from(value_at(row, column), what)


def text_from(value: Any, what: str) -> str:
    """A value as a text; Unusable, for example ``no_question`` or ``question_not_text``, where it is none."""
    text = text_of(value)
    if value is not None and text is None:
        raise Unusable(f"{what}_not_text")
    if not text or not text.strip():
        raise Unusable(f"no_{what}")
    return text


class SeenColumns:
    """Which of the columns that params name were in a row so far."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._missing = list(wanted)
        self._first: Mapping[str, Any] = {}
        self._rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Note the columns of a row."""
        self._first = self._first or row
        self._rows += 1
        if self._missing:
            self._missing = [column for column in self._missing if not has_column(row, column)]

    def require(self, table: str, keys: str) -> None:
        """DataError for a column that none of the rows has; ``keys`` are where params name it."""
        if self._missing and self._rows:
            raise DataError(
                f"{table} has no column '{self._missing[0]}' in {self._rows} rows. Its columns: "
                f"{', '.join(map(repr, self._first)) or 'none'}. Name them in {keys}."
            )
