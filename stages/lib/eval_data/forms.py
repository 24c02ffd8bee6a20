"""The form of each benchmark: the configurations, splits, counts and columns that unmodified lm-eval tasks need.

A task's ``dataset_path`` is the folder's name, its ``dataset_name`` a configuration. MMLU's validation split and its
training questions are left out, because no task reads them.
"""

from dataclasses import dataclass
from typing import Any

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
_SUBJECTS = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
professional_accounting professional_law professional_medicine professional_psychology public_relations
security_studies sociology us_foreign_policy virology world_religions
"""
SUBJECTS = tuple(_SUBJECTS.split())


@dataclass(frozen=True)
class Form:
    """A benchmark: ``examples`` names the split of the few-shot examples, ``rows`` holds the count of each split.

    ``columns`` are the features for ``datasets``. The counts are the authors' (arXiv 2110.14168, 2210.03057,
    2009.03300).
    """

    folder: str
    configs: tuple[str, ...]
    examples: str
    rows: dict[str, int]
    columns: list[dict[str, Any]]


def _text(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": "string"}


_LETTER = {"class_label": {"names": {"0": "A", "1": "B", "2": "C", "3": "D"}}}

FORMS = {
    "gsm8k": Form(
        folder="openai/gsm8k",
        configs=("main",),
        examples="train",
        rows={"train": 7473, "test": 1319},
        columns=[_text("question"), _text("answer")],
    ),
    "mgsm": Form(
        folder="juletxara/mgsm",
        configs=LANGUAGES,
        examples="train",
        rows={"train": 8 * 11, "test": 250 * 11},
        columns=[
            _text("question"),
            _text("answer"),
            {"name": "answer_number", "dtype": "int32"},
            _text("equation_solution"),
        ],
    ),
    "mmlu": Form(
        folder="cais/mmlu",
        configs=SUBJECTS,
        examples="dev",
        rows={"dev": 5 * 57, "test": 14042},
        columns=[
            _text("question"),
            _text("subject"),
            {"name": "choices", "sequence": "string"},
            {"name": "answer", "dtype": _LETTER},
        ],
    ),
}
