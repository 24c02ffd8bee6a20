"""Repetition in a row's reasoning or response.

Two methods, for each of the two texts:

- its end is one part, repeated (texts/looping.py);
- more than ``max_repeated_share`` of its characters are in sequences of ten words that occurred before, the measure of
  Gopher's training data (Rae et al. 2021, arXiv 2112.11446, appendix A). A Chinese or Japanese character is a word. It
  finds loops that the text leaves again.
"""

import re

from stages.lib.checks import Failed, PreparedCheck, shown
from stages.lib.params import LoopsCheck, Student
from stages.lib.rows.distilled import Distilled
from stages.lib.texts.looping import loops

WORDS = 10
FEWEST = 3 * WORDS  # a shorter text has too few sequences for a share
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+|[^\w\s]")


def prepared(check: LoopsCheck, student: Student) -> PreparedCheck:
    """``loop``."""

    def failed(row: Distilled) -> Failed | None:
        for part, text in (("reasoning", row.reasoning), ("response", row.response)):
            if loops(text):
                return Failed("loop", f"{part}: its end repeats itself: '{shown(text[-200:].strip())}'")
            share = repeated_share(text)
            if share > check.max_repeated_share:
                return Failed("loop", f"{part}: {share:.0%} repeated, at most {check.max_repeated_share:.0%}")
        return None

    return failed


def repeated_share(text: str) -> float:
    """The share of the text's word characters in sequences of ten words that occurred before."""
    words = WORD.findall(text.lower())
    if len(words) < FEWEST:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = [False] * len(words)
    for start in range(len(words) - WORDS + 1):
        sequence = tuple(words[start : start + WORDS])
        if sequence in seen:
            repeated[start : start + WORDS] = [True] * WORDS
        seen.add(sequence)
    total = sum(map(len, words))
    return sum(len(word) for word, again in zip(words, repeated, strict=True) if again) / total
