"""The reasoning and the response in what a model wrote, as published with or without tags.

    <think>1 + 1</think>2                                                            ("1 + 1", "2")
    <|begin_of_thought|>1 + 1<|end_of_thought|><|begin_of_solution|>2<|end_of_solution|>   the same
    <think>1 + 1                                                                     Unusable: cut_off

Tags of the reasoning are those that ``distill`` reads in an answer (stages/lib/replies/thoughts.py).
"""

import re

from stages.lib.replies.thoughts import PAIRS, split_thought
from stages.lib.tables.columns import Unusable

SOLUTION = (("<|begin_of_solution|>", "<|end_of_solution|>"), ("<answer>", "</answer>"))
OPENINGS = re.compile("|".join(rf"^\s*{re.escape(opening)}" for opening, _ in PAIRS), re.IGNORECASE | re.MULTILINE)


def parted(reasoning: str, text: str) -> tuple[str, str]:
    """Reasoning and response; ``reasoning`` is what has a column of its own, or empty.

    Unusable where the text ends within the reasoning or the solution (``cut_off``), or has one of the two not at all.
    """
    thought, response = split_thought(reasoning, text)
    if not reasoning.strip() and OPENINGS.search(response):
        raise Unusable("cut_off")
    if not thought:
        raise Unusable("no_reasoning")
    for begin, end in SOLUTION:
        response = _without_tags(response, begin, end)
    if not response:
        raise Unusable("no_response")
    return thought, response


def _without_tags(response: str, begin: str, end: str) -> str:
    """The text without the tags around its solution; what stands before or after them is part of the response."""
    before, opened, rest = response.partition(begin)
    if not opened or (before.strip() and begin == "<answer>"):  # a tag in a sentence
        return response
    inside, closed, after = rest.rpartition(end)
    if not closed:
        raise Unusable("cut_off")
    return "\n\n".join(part.strip() for part in (before, inside, after) if part.strip())
