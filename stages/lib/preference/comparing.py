"""Have a judge compare the answers of two arms to the same questions, each question in both orders.

    comparing = Comparing(params.prefer, params.run)
    comparing.ask(matches, store)          # matches: [Match("q7", "filtered", "base", "…?", "…", "…"), …]
    comparing.preference(match, store)     # → Preference(verdict="first", verdict_swapped="tie", outcome="tie", …)

An arm wins a question only where both orders agree, so a judge that prefers a position gives ties.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stages.lib.judge_rounds import JudgeRounds
from stages.lib.params import Prefer, Run, pairwise_prompt_text
from stages.lib.preference.verdicts import Verdict, read_verdict
from stages.lib.rows.preference import Preference, Side
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.asking import Respondent

SLOT = re.compile(r"\{(question|answer_a|answer_b)\}")
NO_ANSWER = "(empty)"  # an empty text between the marks would look like a mistake of the prompt
WITHOUT = "prefer to null"
SHOWN: dict[Verdict, Side] = {"A": "first", "B": "second", "tie": "tie"}
SWAPPED: dict[Verdict, Side] = {"A": "second", "B": "first", "tie": "tie"}


@dataclass(frozen=True)
class Match:
    """A question and the answers of two arms to it, as a judge reads them."""

    id: str
    first: str
    second: str
    question: str
    first_answer: str
    second_answer: str

    @property
    def is_identical(self) -> bool:
        """Whether both arms gave the same answer."""
        return self.first_answer == self.second_answer


class Comparing:
    """One judge for a run."""

    def __init__(self, params: Prefer, run: Run) -> None:
        respondent = Respondent("prefer", "prefer.judge", params.judge, "prefer")
        self._rounds: JudgeRounds[Verdict] = JudgeRounds(respondent, run, read_verdict, "verdicts", WITHOUT)
        self._prompt = pairwise_prompt_text("prefer.prompt", params.prompt)

    def ask(self, matches: Sequence[Match], store: AnswerStore) -> None:
        """Ask for the verdicts that the store lacks, two for each match."""
        asked = [match for match in matches if not match.is_identical]
        self._rounds.ask(lambda: (text for match in asked for text in self._texts(match)), store)

    def preference(self, match: Match, store: AnswerStore) -> Preference:
        """The row of a match that was asked about."""
        verdict: Side | Literal["unsure"] = "tie"
        swapped: Side | Literal["unsure"] = "tie"
        if not match.is_identical:
            shown, turned = (self._rounds.judgement(text, store) for text in self._texts(match))
            verdict, swapped = SHOWN[shown] if shown else "unsure", SWAPPED[turned] if turned else "unsure"
        return Preference(
            id=match.id,
            first=match.first,
            second=match.second,
            question=match.question,
            first_answer=match.first_answer,
            second_answer=match.second_answer,
            verdict=verdict,
            verdict_swapped=swapped,
            outcome=verdict if verdict == swapped and verdict != "unsure" else "tie",
        )

    def run_facts(self) -> dict[str, Any]:
        """What this run bought and what the store saved; complete when every match has its verdicts."""
        return self._rounds.run_facts()

    def _texts(self, match: Match) -> tuple[str, str]:
        """The prompt with the first arm's answer as A, and with it as B."""
        first, second = match.first_answer or NO_ANSWER, match.second_answer or NO_ANSWER
        return self._text(match.question, first, second), self._text(match.question, second, first)

    def _text(self, question: str, answer_a: str, answer_b: str) -> str:
        # in one pass, because an answer may hold the name of a slot
        slots = {"question": question, "answer_a": answer_a, "answer_b": answer_b}
        return SLOT.sub(lambda slot: slots[slot[1]], self._prompt)
