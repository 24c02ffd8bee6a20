"""The length of a row's reasoning or response, in characters, or in tokens of the student's tokenizer."""

from collections.abc import Callable

from stages.lib.checks import Failed, PreparedCheck
from stages.lib.params import LengthCheck, Student
from stages.lib.rows.distilled import Distilled


def prepared(check: LengthCheck, student: Student) -> PreparedCheck:
    """``too_short`` or ``too_long``; white space at the ends does not count."""
    measure = _tokens(student) if check.unit == "tokens" else len

    def failed(row: Distilled) -> Failed | None:
        length = measure((row.reasoning if check.of == "reasoning" else row.response).strip())
        if length < check.min:
            return Failed("too_short", f"{check.of}: {length:,} {check.unit}, at least {check.min:,}")
        if length > check.max:
            return Failed("too_long", f"{check.of}: {length:,} {check.unit}, at most {check.max:,}")
        return None

    return failed


def _tokens(student: Student) -> Callable[[str], int]:
    from stages.lib.students import student_tokenizer

    tokenizer = student_tokenizer(student)
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
