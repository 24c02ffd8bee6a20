"""``convert``: how rows become ShareGPT conversations."""

from itertools import permutations
from typing import Literal

from pydantic import model_validator

from stages.lib.params.base import Name, Section, Text


class Markers(Section):
    """The texts around the thought and around the solution. The verifier knows those of the solution."""

    begin_of_thought: Text
    end_of_thought: Text
    begin_of_solution: Literal["<|begin_of_solution|>", "<answer>"]
    end_of_solution: Literal["<|end_of_solution|>", "</answer>"]

    @model_validator(mode="after")
    def _tell_apart(self) -> "Markers":
        if any(one in other for one, other in permutations(self.model_dump().values(), 2)):
            raise ValueError("one marker is equal to or part of another, so they cannot be told apart. Change one")
        return self


class Tags(Section):
    """The keys of a turn (role and content) and the names of the roles, as in the entry of dataset_info.json."""

    role_tag: Text
    content_tag: Text
    user_tag: Text
    assistant_tag: Text
    system_tag: Text

    @model_validator(mode="after")
    def _tell_apart(self) -> "Tags":
        if self.role_tag == self.content_tag:
            raise ValueError("role_tag and content_tag are the same key, so one would overwrite the other. Change one")
        if len({self.user_tag, self.assistant_tag, self.system_tag}) < 3:
            raise ValueError("user_tag, assistant_tag and system_tag must differ. Change the duplicate")
        return self


class Convert(Section):
    """How a row becomes a ShareGPT conversation."""

    system_prompt: Name
    ascii: bool
    markers: Markers
    tags: Tags
