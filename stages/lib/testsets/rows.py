"""The row of each benchmark. Its fields have the names and order of the hub's datasets, so that lm-eval's hashes match.

    gsm8k   {"question": "…", "answer": "… #### 18"}
    mgsm    {"question": "…", "answer": null, "answer_number": 18, "equation_solution": null}
    mmlu    {"question": "…", "subject": "anatomy", "choices": ["…", "…", "…", "…"], "answer": 1}

In MGSM, an example for few-shot prompts has an ``answer``, the worked text; a test row has none.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class BenchmarkRow(BaseModel):
    """The field that every benchmark's row has."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    question: Text


class Gsm8kRow(BenchmarkRow):
    """``answer`` is the worked solution; it ends in ``#### 18``."""

    answer: str


class MgsmRow(BenchmarkRow):
    """``answer_number`` is the gold value."""

    answer: str | None
    answer_number: int
    equation_solution: str | None = None


class MmluRow(BenchmarkRow):
    """``answer`` is the index of the right one of four choices."""

    subject: str
    choices: Annotated[list[str], Field(min_length=4, max_length=4)]
    answer: Annotated[int, Field(ge=0, le=3)]


ROWS: dict[str, type[BenchmarkRow]] = {"gsm8k": Gsm8kRow, "mgsm": MgsmRow, "mmlu": MmluRow}
