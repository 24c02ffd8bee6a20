"""Reading a judge's mark: does the strict teacher's reply say that both texts mean the same?

read_mark("第一段总结:…。\\n第二段翻译:…。\\n**含义是否一致：是的**")   → "right"
read_mark("含义是否一致:否。")                                      → "wrong"
read_mark("两段大致相同")                                           → None: ask once more
"""

import re
from typing import Literal

Mark = Literal["right", "wrong"]

ECHOES = ("是/否", "是或否", "是否")  # the format repeated, before it is filled in
WORDS: dict[str, Mark] = {
    "是": "right",
    "一致": "right",
    "yes": "right",
    "否": "wrong",
    "不是": "wrong",
    "不一致": "wrong",
    "no": "wrong",
}
# colons of either kind, bold, brackets and line ends may stand before the mark, words may not
ANSWERED = re.compile(rf"含义是否一致[^\w]*({'|'.join(ECHOES)}|不一致|不是|一致|是|否|yes|no)?", re.IGNORECASE)
ALONE = re.compile(r"[^\w]*(不一致|不是|一致|是的|是|否|yes|no)[^\w]*", re.IGNORECASE)


def read_mark(reply: str) -> Mark | None:
    """The mark of a reply in the form that the prompt asks for, or of a last line that is a mark and nothing else.

    None where there is none, where it is hedged ("部分一致"), or where two marks contradict each other.
    """
    marks = {WORDS.get(word.lower()) for word in ANSWERED.findall(reply) if word not in ECHOES}
    if not marks:
        last = next((line for line in reversed(reply.splitlines()) if line.strip()), "")
        alone = ALONE.fullmatch(last)
        marks = {WORDS.get(alone[1].removesuffix("的").lower())} if alone else set()
    return marks.pop() if len(marks) == 1 else None
