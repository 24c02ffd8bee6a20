"""Reading a final answer and judging it by rule.

from stages.lib.answers import rule_verdict
rule_verdict("What is 2 + 2?", "2 + 2 = 4. The answer is **4**.", "4")
→ Verdict(verdict="right", prediction="4", rule="phrase")
"""

from stages.lib.answers.verdict import Verdict, rule_verdict

__all__ = ["Verdict", "rule_verdict"]
