"""The embedded teacher as a judge of two answers: the one that covers more of the request's words in fewer words wins.

    answers("…===== Answer of assistant A =====\\n12\\n…")      → ("What is 7 + 5?", "12", "I do not know.")
    prefer(question, answer_a, answer_b, slip_share, seed)     → Worked(…, "…\\n\\n[[A]]")

A request that it can work out as a sum is judged by the sum. A judge is a model too: it slips on a set share, and keeps
to the form that it was asked for more or less.
"""

import hashlib
import re
from functools import cache

from stages.lib.params import prompt_text
from stages.lib.teacher.backends.embedded.solver import EXPRESSION, Worked, solve

PROMPTS = ("impartial", "impartial_zh")
SLOT = re.compile(r"\\\{(question|answer_a|answer_b)\\\}")
WORD = re.compile(r"[a-z0-9]{3,}|[\u4e00-\u9fff]")
NUMBER = re.compile(r"(?<!\d)-?\d+")
MARGIN = 0.05  # a smaller difference of the two scores is a tie
FORMS = (
    "A covers {a:.0%} of what was asked, B {b:.0%}.\n\n[[{verdict}]]",
    "A: {a:.0%}. B: {b:.0%}.\n\n**Final verdict: [[{verdict}]]**",
    "两个回答分别覆盖了请求的 {a:.0%} 和 {b:.0%}。\n\n[[{verdict}]]",
)


@cache
def _pattern(prompt: str) -> re.Pattern[str]:
    return re.compile(SLOT.sub(r"(?P<\1>.*)", re.escape(prompt_text(prompt))), re.DOTALL)


def answers(text: str) -> tuple[str, str, str] | None:
    """The request and the two answers that a pairwise prompt holds; None where the text is none."""
    found = next(filter(None, (_pattern(prompt).fullmatch(text) for prompt in PROMPTS)), None)
    return (found["question"], found["answer_a"], found["answer_b"]) if found else None


def prefer(question: str, answer_a: str, answer_b: str, slip_share: float, seed: int) -> Worked:
    """Which answer is better? Which pair is judged the wrong way round, and the reply's form, is a hash of it."""
    digest = hashlib.sha256(f"prefer:{seed}:{question}\0{answer_a}\0{answer_b}".encode()).digest()
    a, b = _score(question, answer_a), _score(question, answer_b)
    verdict = "TIE" if abs(a - b) < MARGIN else "A" if a > b else "B"
    if int.from_bytes(digest[:8], "big") < slip_share * 2**64:
        verdict = {"A": "B", "B": "A", "TIE": "A"}[verdict]
    reply = FORMS[digest[8] % len(FORMS)].format(a=a, b=b, verdict=verdict)
    return Worked(f"A {a:.2f}, B {b:.2f}: {verdict}", reply)


def _score(question: str, answer: str) -> float:
    """Between 0 and 1: the share of the request's words that an answer covers, less for what it repeats."""
    if EXPRESSION.search(question):
        wanted = NUMBER.findall(solve(question, 0.0, 0).response)[-1:]
        return float(NUMBER.findall(answer)[-1:] == wanted)
    asked, given = set(WORD.findall(question.lower())), WORD.findall(answer.lower())
    if not asked or not given:
        return 0.0
    return len(asked & set(given)) / len(asked) * len(set(given)) / len(given)
