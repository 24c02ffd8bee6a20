r"""Detect a text that ends in a loop: one part of it, repeated until the limit.

    loops("Wait, let me check this again. " * 5)                   → True
    loops("".join(f"Step {n}: add 3.\n" for n in range(1, 40)))    → True: only the counter changes
    loops("So 3 + 4 = 7.\n3 + 5 = 8.\nThe answer is **8**.")       → False

The end of a text is a loop if it is one part repeated, cut anywhere:

- an unchanged part, at least ``REPEATS`` times and over at least ``SPAN`` characters;
- a part in which only numbers change, at least ``COUNTED_REPEATS`` times and over at least ``COUNTED_SPAN`` characters.
  The limits are higher because a table or a long sum looks the same.

Any white space counts as one space, and case is ignored. A loop whose words vary is not detected, and neither is a loop
that the text leaves again.
"""

import re
from collections.abc import Sequence

WINDOW = 6_000  # characters of the end that are read: three times the longest part that can be found
REPEATS, SPAN = 3, 60
COUNTED_REPEATS, COUNTED_SPAN = 10, 150
MARKER = re.compile(r"(?:<\|[a-z_]+\|>|</?(?:answer|think)>)\s*$")
SPACE = re.compile(r"\s+")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def loops(text: str) -> bool:
    """Whether the end of the text repeats itself."""
    tail = SPACE.sub(" ", MARKER.sub("", text[-WINDOW:])).strip().lower()
    if _repeats(tail, REPEATS, SPAN):
        return True
    return _repeats(NUMBER.sub("0", tail), COUNTED_REPEATS, COUNTED_SPAN)


def _repeats(tail: str, repeats: int, span: int) -> bool:
    """Whether the last ``span`` characters or more are one part, ``repeats`` times or more."""
    lengths = _match_lengths(tail[::-1])
    return any(
        piece + same >= max(span, repeats * piece)
        for piece, same in enumerate(lengths[: len(tail) // repeats + 1])
        if piece
    )


def _match_lengths(text: Sequence[str]) -> list[int]:
    """For each position, how many characters from there equal the beginning (Z-function, linear time)."""
    lengths = [0] * len(text)
    left = right = 0
    for place in range(1, len(text)):
        same = min(right - place, lengths[place - left]) if place < right else 0
        while place + same < len(text) and text[same] == text[place + same]:
            same += 1
        lengths[place] = same
        if place + same > right:
            left, right = place, place + same
    return lengths
