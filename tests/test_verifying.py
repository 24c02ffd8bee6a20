"""The verifier of each benchmark: what lm-eval's documents ask, and the verdict in MGSM's eleven languages."""

from typing import Any

import pytest

from stages.lib.answers import rule_verdict
from stages.lib.evaluation.languages import LANGUAGES
from stages.lib.evaluation.verifying import Asked, asked, verify
from tests.answers import native


def asked_in(language: str, answer: str) -> Asked:
    return Asked(f"{language}/0", "0", "?", answer, language, language)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.language}-{i}") for i, row in enumerate(native.ROWS)])
def test_an_answer_in_any_language_is_judged_as_a_person_would(row: native.Native) -> None:
    verdict = verify(asked_in(row.language, row.answer), row.response)
    assert verdict.verdict == row.expected, verdict


def test_the_table_has_rows_of_each_language() -> None:
    assert set(native.FORMS) == set(LANGUAGES)
