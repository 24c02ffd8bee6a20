"""Read a benchmark's question from lm-eval's document, and verify a response to it.

    asked("mgsm_native_cot_zh", doc, 17)
    → Asked(id="zh/17", cluster="17", question="…", answer="18", language="zh", reply_language="zh")
    verify(question, "…答案是 18。")
    → Verdict("right", "18", "phrase", 18)

An lm-eval document has no id, except for our held-out questions. Its number in the test set identifies it; lm-eval
returns that with every sample as ``doc_id``.
"""

import re
from dataclasses import dataclass
from typing import Any

from stages.lib.answers import Verdict, rule_verdict
from stages.lib.evaluation.tasks import OWN
from stages.lib.params import HELDOUT
from stages.lib.texts.languages import LANGUAGES, language_of

MGSM = re.compile(rf"mgsm_(?P<kind>native_cot|direct|en_cot)_(?P<language>{'|'.join(LANGUAGES)})")
GSM8K = re.compile(r"gsm8k(?:_cot\w*)?")


@dataclass(frozen=True)
class Asked:
    """A question with its gold ``answer`` (the final value; None if it has none), and its ids in tables.

    ``cluster`` is shared by a question and its translations. ``language`` is the question's, ``reply_language`` the
    expected one of the answer (English for MGSM's ``en_cot``, else the same); None if it cannot be determined.
    """

    id: str
    cluster: str
    question: str
    answer: str | None
    language: str | None
    reply_language: str | None


def asked(task: str, doc: dict[str, Any], number: int) -> Asked | None:
    """The question behind a sample of a task: its document and its number in the test set (lm-eval's ``doc_id``).

    None for a task whose documents are not known (all but heldout, preference, gsm8k and mgsm).
    """
    if task in OWN:
        language = language_of(doc["question"])
        answer = doc["answer"] if task == HELDOUT else None
        return Asked(doc["id"], doc["id"], doc["question"], answer, language, language)
    if GSM8K.fullmatch(task):
        name, answer = f"gsm8k-test-{number}", doc["answer"].rpartition("####")[2].strip()
        return Asked(name, name, doc["question"], answer, "en", "en")
    mgsm = MGSM.fullmatch(task)
    return _mgsm(mgsm["kind"], mgsm["language"], doc, number) if mgsm else None


def _mgsm(kind: str, language: str, doc: dict[str, Any], number: int) -> Asked:
    in_english = kind == "en_cot"
    return Asked(
        id=f"en_cot_{language}/{number}" if in_english else f"{language}/{number}",
        cluster=str(number),
        question=doc["question"],
        answer=str(doc["answer_number"]),
        language=language,
        reply_language="en" if in_english else language,
    )


def verify(question: Asked, response: str) -> Verdict:
    """Verify a complete generation, including thought and markers, in any of the benchmarks' languages.

    The question must have a gold answer.
    """
    assert question.answer is not None
    if not response.strip():
        return Verdict("wrong", None, "empty")  # no reader could find a right answer in it
    return rule_verdict(question.question, response, question.answer, question.language or "en")
