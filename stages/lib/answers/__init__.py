"""Judge by rule whether a response states the gold answer.

from stages.lib.answers import rule_verdict
rule_verdict("What is 2 + 2?", "2 + 2 = 4. The answer is **4**.", "4")
→ Verdict(verdict="right", prediction="4", rule="label", value=Fraction(4), start=28, end=29)

stated_answer("What is 2 + 2?", "2 + 2 = 4. The answer is **4**.")
→ "4", where no gold answer is known

values (numbers and their spans) → statements (where a value is stated as the answer, and how strongly) → verdict.
"""

from stages.lib.answers.stated import stated_answer
from stages.lib.answers.verdict import Verdict, rule_verdict

__all__ = ["Verdict", "rule_verdict", "stated_answer"]
