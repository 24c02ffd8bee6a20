"""``convert``: how a row becomes a ShareGPT conversation."""

from itertools import permutations
from typing import Literal

from pydantic import model_validator

from stages.lib.params.base import Name, Section, Text


class Markers(Section):
    """What stands around the thought and the solution; those of the solution are the ones that a reader knows."""

    begin_of_thought: Text
    end_of_thought: Text
    begin_of_solution: Literal["<|begin_of_solution|>", "<answer>"]
    end_of_solution: Literal["<|end_of_solution|>", "</answer>"]

    @model_validator(mode="after")
    def _tell_apart(self) -> "Markers":
        if any(one in other for one, other in permutations(self.model_dump().values(), 2)):
            raise ValueError("one marker is, or is a part of, another, so a reader could not tell them apart")
        return self


class Tags(Section):
    """A turn's keys (who speaks, and what) and the speakers' names, as the entry in dataset_info.json has them."""

    role_tag: Text
    content_tag: Text
    user_tag: Text
    assistant_tag: Text
    system_tag: Text

    @model_validator(mode="after")
    def _tell_apart(self) -> "Tags":
        if self.role_tag == self.content_tag:
            raise ValueError("role_tag and content_tag are the same key, so one text would replace the other")
        if len({self.user_tag, self.assistant_tag, self.system_tag}) < 3:
            raise ValueError("user_tag, assistant_tag and system_tag do not tell the speakers apart")
        return self


class Convert(Section):
    """How a row becomes a ShareGPT conversation."""

    system_prompt: Name
    ascii: bool
    markers: Markers
    tags: Tags
