"""What a judge is asked about a row, and how its reply is read: against the gold answer, or by a rubric.

Both kinds offer ``text(row)``, the one user message, and ``read(reply)``, the mark, or None to retry.
"""

import re
from dataclasses import dataclass
from typing import Literal, Protocol

from stages.lib.judge.marking import read_mark
from stages.lib.judge.rubric import read_score, read_yes_no
from stages.lib.params import RESPONSE, ParamsError, Reply, ScoreReply, slotted_prompt_text
from stages.lib.rows.distilled import Distilled

SEPARATOR = "\n" * 5  # the article's: the response, five newlines, the gold solution
KEY = "filter.judge.prompt"


@dataclass(frozen=True)
class Mark:
    """``right`` is fit to be kept, ``unsure`` where no reply could be read; ``score`` where the rubric has one."""

    verdict: Literal["right", "wrong", "unsure"]
    score: float | None = None


UNSURE = Mark("unsure")


class Marking(Protocol):
    """What a judge is asked, and how it is read."""

    def text(self, row: Distilled) -> str:
        """The message that asks about a row."""

    def read(self, reply: str) -> Mark | None:
        """The mark in a reply; None where it cannot be read."""


class AgainstGold:
    """The article's marking: do the response and the gold solution mean the same?"""

    def __init__(self, prompt: str) -> None:
        self._prompt = slotted_prompt_text(KEY, prompt, "response")

    def text(self, row: Distilled) -> str:
        """The response, five newlines, the gold solution or, without one, the gold answer."""
        texts = row.response + SEPARATOR + (row.solution or row.answer or "")
        return self._prompt.replace("{question}", texts)

    def read(self, reply: str) -> Mark | None:
        """What follows 含义是否一致 (marking.py)."""
        found = read_mark(reply)
        return Mark(found) if found else None


class ByRubric:
    """A rubric: the prompt holds ``{question}`` and ``{response}``, the reply ends in a score, or in yes or no."""

    def __init__(self, prompt: str, reply: Reply) -> None:
        self._prompt, self._reply = slotted_prompt_text(KEY, prompt, "question"), reply
        if RESPONSE not in self._prompt:
            raise ParamsError(
                f"params.yaml: {KEY}: stages/prompts/judge/{prompt}.txt has no placeholder for the response, which "
                f"strategy judge_rubric needs. Write {RESPONSE} into it, or choose another prompt."
            )

    def text(self, row: Distilled) -> str:
        """The prompt with both texts, each as it is: a placeholder inside of them is text."""
        texts = {"{question}": row.transcript, RESPONSE: row.response}
        return re.sub(r"\{(?:question|response)\}", lambda slot: texts[slot[0]], self._prompt)

    def read(self, reply: str) -> Mark | None:
        """The score against ``at_least``, or yes or no (rubric.py)."""
        if isinstance(self._reply, ScoreReply):
            score = read_score(reply, self._reply.low, self._reply.high)
            return None if score is None else Mark("right" if score >= self._reply.at_least else "wrong", score)
        passed = read_yes_no(reply)
        return None if passed is None else Mark("right" if passed else "wrong")
