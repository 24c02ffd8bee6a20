"""``filter.checks``: what may be wrong with a text whatever its answer. Each entry is a choice by its kind."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.lib.params.base import Count, Name, Section, Share

Language = Literal["bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"]  # those of texts/languages.py
Part = Literal["reasoning", "response"]


class LengthCheck(Section):
    """The shortest and the longest reasoning or response; tokens are those of the student's tokenizer."""

    kind: Literal["length"]
    of: Part
    unit: Literal["characters", "tokens"]
    min: Annotated[int, Field(ge=0)]
    max: Count

    @model_validator(mode="after")
    def _smallest_first(self) -> "LengthCheck":
        if self.min > self.max:
            raise ValueError("min is above max. Swap them")
        return self


class LanguageCheck(Section):
    """The language of the reasoning or the response: the question's own, or one of a list."""

    kind: Literal["language"]
    of: Part
    languages: Literal["as_question"] | Annotated[list[Language], Field(min_length=1)]


class MarkersCheck(Section):
    """Tokens of a chat template and tags of reasoning in the text."""

    kind: Literal["markers"]


class LoopsCheck(Section):
    """A text whose end repeats itself, or of which repeated parts make more than a share."""

    kind: Literal["loops"]
    max_repeated_share: Share


class RefusalsCheck(Section):
    """A response that begins with one of the phrases of ``stages/phrases/NAME.txt``."""

    kind: Literal["refusals"]
    phrases: Name


class RepeatedQuestionCheck(Section):
    """A response that only repeats the question."""

    kind: Literal["repeated_question"]


Check = Annotated[
    LengthCheck | LanguageCheck | MarkersCheck | LoopsCheck | RefusalsCheck | RepeatedQuestionCheck,
    Field(discriminator="kind"),
]
