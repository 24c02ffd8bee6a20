"""The sizes of student's and teacher's output layers, which may have more rows than the vocabulary has tokens.

Qwen2.5 up to 3B has 151,936 rows and from 7B on 152,064, for the same 151,665 tokens. The rows that only the teacher
has belong to no token: they are cut off, for the divergence needs one size. A teacher with fewer is refused.
"""

import json
from pathlib import Path
from typing import Any

from stages.lib.training import TrainingError


def check_sizes(student: Path, teacher: Path) -> None:
    """TrainingError if the teacher's output layer has fewer rows than the student's. Only configs are read."""
    needed, found = rows_of_output(student), rows_of_output(teacher)
    if found < needed:
        raise TrainingError(
            f"{teacher}: its output layer has {found} rows, the student's ({student}) {needed}. The tokens are the "
            "same, but not the padding. Choose a teacher of the student's size or larger."
        )


def rows_of_output(folder: Path) -> int:
    """``vocab_size`` in a model's config.json."""
    config = json.loads((folder / "config.json").read_bytes())
    return int((config.get("text_config") or config)["vocab_size"])


def fit_to_student(teacher: Any, student: Any) -> None:
    """Cut the rows off the teacher's layers that the student does not have."""
    needed = student.config.get_text_config().vocab_size
    if teacher.config.get_text_config().vocab_size > needed:
        teacher.resize_token_embeddings(needed, mean_resizing=False)
