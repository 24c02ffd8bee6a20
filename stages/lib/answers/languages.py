"""Answers in MGSM's languages, written as the rules for English and Chinese read them.

readings("Die Antwort lautet 1,5.", "de")    → ("the answer is 1.5.",)
readings("La respuesta es 1.000.", "es")     → ("the answer is 1000.", "the answer is 1.000.")
"""

from stages.lib.answers.reading import solution


def readings(response: str, language: str) -> tuple[str, ...]:
    """The solution's text in the rules' spelling; twice where its numbers can be read in two ways, thousands first."""
    return (response,) if language in ("en", "zh") else (solution(response),)
