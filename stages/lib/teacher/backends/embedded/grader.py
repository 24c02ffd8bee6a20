"""The embedded model as a judge with a rubric: it grades what it can compute.

    material("…<task>51 + 22 =</task><answer>It is 73.…")  → Material("51 + 22 =", "It is 73.", …)
    grade(material, slip_share=0.0, seed=0)                → Worked(…, "…\\nScore: 10")

A rubric is recognised by its text, which is a file of ``stages/prompts/judge`` with ``{question}`` and ``{response}``.

- A task with a sum: does the answer end in its result?
- Any other task: the share of the task's words that the answer takes up, and whether it ends with a full sentence.
"""

import hashlib
import re
from dataclasses import dataclass

from stages.lib.params import prompt_names, prompt_text
from stages.lib.teacher.backends.embedded.judge import last_number
from stages.lib.teacher.backends.embedded.solver import EXPRESSION, Worked, solve

SLOT = re.compile(r"\{(question|response)\}")
WORD = re.compile(r"[^\W\d_]{4,}|[\u4e00-\u9fff]{2}")
YES_OR_NO = re.compile(r"\byes\b|\bno\b|是\s*[/或]\s*否", re.IGNORECASE)
LOW, HIGH = 1, 10
SCORES = (
    "Score: {mark}",
    "**Score: {mark}/10**",
    "得分：{mark}分",
    '{{"score": {mark}}}',
    "I rate it {mark}/10.",
)
VERDICTS = ("Verdict: {mark}", "**{mark}**", "{mark}.", '{{"verdict": "{mark}"}}', "Final answer: {mark}")


@dataclass(frozen=True)
class Material:
    """What a rubric's prompt holds, and whether it asks for a score."""

    question: str
    response: str
    wants_score: bool


def material(text: str) -> Material | None:
    """The task and the answer of a rubric's prompt; None where the text is none."""
    for name in prompt_names("judge"):
        parts = SLOT.split(prompt_text(name))
        if len(parts) != 5 or {parts[1], parts[3]} != {"question", "response"}:
            continue
        before, first, between, second, after = parts
        if text.startswith(before) and text.endswith(after) and between in text[len(before) :]:
            one, _, two = text.removeprefix(before).removesuffix(after).partition(between)
            found = {first: one, second: two}
            last_line = after.strip().rpartition("\n")[2] or between
            return Material(found["question"], found["response"], not YES_OR_NO.search(last_line))
    return None


def grade(given: Material, slip_share: float, seed: int) -> Worked:
    """A mark with a reason. Which answers are graded the wrong way round, and the reply's form, is a hash of them."""
    digest = hashlib.sha256(f"grade:{seed}:{given.question}\n{given.response}".encode()).digest()
    quality, reason = _quality(given)
    if int.from_bytes(digest[:8], "big") < slip_share * 2**64:
        quality = 1 - quality
    if given.wants_score:
        form, mark = SCORES[digest[8] % len(SCORES)], str(LOW + round(quality * (HIGH - LOW)))
    else:
        form, mark = VERDICTS[digest[8] % len(VERDICTS)], "yes" if quality >= 0.5 else "no"
    return Worked(reason, f"{reason}\n{form.format(mark=mark)}")


def _quality(given: Material) -> tuple[float, str]:
    """From 0 to 1, and why."""
    if EXPRESSION.search(given.question):
        result = last_number(solve(given.question, slip_share=0.0, seed=0).response)
        found = last_number(given.response)
        same = found is not None and found == result
        return (1.0 if same else 0.1), f"The result is {result}, and the answer {'says so' if same else 'does not'}."
    asked = set(WORD.findall(given.question.lower()))
    taken = asked & set(WORD.findall(given.response.lower()))
    share = len(taken) / len(asked) if asked else 0.0
    ends = given.response.rstrip().endswith((".", "!", "?", "。", "！", "？", "”", ")", "`"))
    reason = f"It has {len(taken)} of the task's {len(asked)} words, and {'ends' if ends else 'does not end'} well."
    return min(1.0, 2 * share) * 0.8 + 0.2 * ends, reason
