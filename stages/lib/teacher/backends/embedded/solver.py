"""How the embedded teacher answers: it reads a sum from the question's text and works it out, sometimes with a slip.

    solve("… arithmetic problem: 51 + 22 - 80 =", slip_share=0.0, seed=0)
    → Worked(reasoning="51 + 22 = 73\\n73 - 80 = -7", response="The answer is -7.")

A slip is one wrong step, carried through to the end: the text is as long as a right one and shows no doubt.
Which questions are slipped on is a hash of the question, so asking again brings the same answer.
"""

import hashlib
import re
from dataclasses import dataclass

# the look-behind lets a number be tried from its first digit only: a text of 100,000 digits takes no minutes
EXPRESSION = re.compile(r"(?<!\d)-?\d+(?:\s*[+-]\s*\d+)+")
TERM = re.compile(r"([+-]?)\s*(\d+)")
SLIPS = (1, -1, 2, -2, 10, -10)


@dataclass(frozen=True)
class Worked:
    """A chain of thought, the answer given after it, and why it ended there."""

    reasoning: str
    response: str
    finish_reason: str = "stop"


def solve(text: str, slip_share: float, seed: int, sample: int = 0) -> Worked:
    """Work out the last sum in ``text``; say so where there is none."""
    expressions = EXPRESSION.findall(text)
    if not expressions:
        return Worked("There is no sum here that I can work out.", "I can only work out sums and differences.")
    terms = [int(sign + digits) for sign, digits in TERM.findall(expressions[-1])]
    slips = _slips(terms, slip_share, f"{seed}:{terms}" if sample == 0 else f"{seed}:{terms}:{sample}")
    total = terms[0]
    lines = []
    for term, slip in zip(terms[1:], slips, strict=True):
        before, total = total, total + term + slip
        lines.append(f"{before} {'+' if term >= 0 else '-'} {abs(term)} = {total}")
    return Worked("\n".join(lines), f"The answer is {total}.")


def _slips(terms: list[int], share: float, shape: str) -> list[int]:
    """What each step is wrong by: nothing, or one slip in one step for a ``share`` of all questions."""
    digest = hashlib.sha256(shape.encode()).digest()
    steps = [0] * (len(terms) - 1)
    if int.from_bytes(digest[:8], "big") < share * 2**64:
        steps[digest[8] % len(steps)] = SLIPS[digest[9] % len(SLIPS)]
    return steps
