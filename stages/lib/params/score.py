"""``score``: where the teacher's probabilities of the trained tokens come from."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.lib.params.base import Count, Section, Text, holds_no_secret
from stages.lib.params.train import Student


class FromAnswers(Section):
    """The probabilities that came with the answers (``distill.logprobs``)."""

    kind: Literal["answers"]


class Scorer(Section):
    """A server with the teacher's weights, whose ``/v1/completions`` gives the probabilities of an echoed prompt."""

    base_url: Annotated[str, AfterValidator(holds_no_secret)]
    model: Text


class FromTeacher(Section):
    """A teacher with the student's vocabulary reads each trained row: this process loads it, or ``served`` has it.

    Of a served one, ``teacher`` needs the tokenizer only; with the weights too, ``make doctor`` compares both.
    """

    kind: Literal["teacher"]
    teacher: Student
    served: Scorer | None
    top_k: Count
    dtype: Literal["float32", "bfloat16", "float16"]


Score = Annotated[FromAnswers | FromTeacher, Field(discriminator="kind")]
