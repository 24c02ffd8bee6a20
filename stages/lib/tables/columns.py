"""What a column holds: a value by the column's name, or by a path into it such as ``messages.0.content``."""

from collections.abc import Mapping
from typing import Any

Scalar = str | int | float | bool


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


def fits(row: Mapping[str, Any], where: Mapping[str, Scalar | list[Scalar]]) -> bool:
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
