"""The language of a row's reasoning or response (texts/languages.py): the question's, or one of a list.

Only a text whose language is certain can fail: too little prose (``72``) or unclear prose passes.
"""

from stages.lib.checks import Failed, PreparedCheck
from stages.lib.params import LanguageCheck, Student
from stages.lib.rows.distilled import Distilled
from stages.lib.texts.languages import language_of


def prepared(check: LanguageCheck, student: Student) -> PreparedCheck:
    """``other_language``."""

    def failed(row: Distilled) -> Failed | None:
        found = language_of(row.reasoning if check.of == "reasoning" else row.response)
        if found is None:
            return None
        asked = [language_of(row.question)] if check.languages == "as_question" else list(check.languages)
        if None in asked or found in asked:
            return None
        wanted = ", ".join(filter(None, asked))
        return Failed("other_language", f"{check.of}: {found}, expected {wanted}")

    return failed
