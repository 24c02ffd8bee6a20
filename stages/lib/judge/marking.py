"""Read a judge's mark: does the strict teacher's reply say that both texts mean the same?

read_mark("第一段总结:…。\\n第二段翻译:…。\\n**含义是否一致：是的**")   → "right"
read_mark("含义是否一致:否。")                                      → "wrong"
read_mark("含义是否一致:部分一致")                                  → None: retry
"""

import re
from typing import Literal

Mark = Literal["right", "wrong"]

# "否则" and "一致性" are other words; "是部分" and similar phrases begin a hedged mark
YES = r"是的?+(?!部分|基本|大致|大体|非|指)(?:[^\w\n]*一致)?|(?:完全)?+一致(?!性|与否|吗)|yes(?![a-z])"
NO = r"是?不(?:一致|相同|同)|不是|否(?!则|定|认)|no(?![a-z])"
MARK = rf"(?:(?P<wrong>{NO})|(?P<right>{YES}))"
# every repetition is possessive, so that a reply of 100,000 asterisks is read as fast as any other
# the reply repeats the format before it fills it in: "(是/否)", or a form with a box before each
UNFILLED_FORM = r"是(?:[^\w。，,；;\n]|[_xX或])*+否(?!则|定|认)"
# colons of either kind, bold, brackets and line ends may stand before the mark; a comma or a full stop may not
GAP = r"(?:[^\w。，,、；;！!]|_)*+"
SUBJECT = r"(?:最终|最后|答案|结论|结果|回答|判断|前后|两段|两者|二者|的|含义)++"
NAMED = rf"(?:{SUBJECT}(?:为|是(?={GAP}(?:{YES}|{NO})))?+)?+"
ANSWERED = re.compile(rf"是否(?:一致|相同){GAP}(?:{UNFILLED_FORM}{GAP})?+{NAMED}{GAP}{MARK}", re.IGNORECASE)
ALONE = re.compile(rf"[\W_]*+(?!{UNFILLED_FORM}){NAMED}{GAP}{MARK}[\W_]*+", re.IGNORECASE)


def read_mark(reply: str) -> Mark | None:
    """The mark in the form that the prompt asks for, or a last line that holds a mark and nothing else.

    None where there is no mark, where it is hedged ("部分一致"), or where two marks contradict each other.
    """
    found = list(ANSWERED.finditer(reply))
    if not found:
        last = next((line for line in reversed(reply.splitlines()) if line.strip()), "")
        found = [alone] if (alone := ALONE.fullmatch(last)) else []
    marks: set[Mark] = {"wrong" if match["wrong"] else "right" for match in found}
    return marks.pop() if len(marks) == 1 else None
