"""The embedded teacher as the strict teacher of ``stages/prompts/strict_teacher.txt``: it compares two final numbers.

    material("…# 来自考场的材料\\nThe answer is 12.\\n\\n\\n\\n\\n4 * 3 = 12")  → ("The answer is 12.", "4 * 3 = 12")
    mark(response, gold, slip_share=0.0, seed=0)                       → Worked(…, "…含义是否一致:是")

A judge is a model too: it marks a set share wrongly, and keeps to the form that it was asked for more or less.
"""

import hashlib
import re
from decimal import Decimal

from stages.lib.params import prompt_text
from stages.lib.teacher.backends.embedded.solver import Worked

PROMPT = "strict_teacher"
BETWEEN = "\n" * 5  # the teacher's response, five line ends, the gold's worked solution
NUMBER = re.compile(r"(?<!\d)-?\d+(?:,\d{3})*(?:\.\d+)?")
FORMS = (
    "第一段总结:{found}。\n第二段翻译:{gold}。\n含义是否一致:{verdict}",
    "第一段总结：{found}。\n第二段翻译：{gold}。\n含义是否一致：{verdict}。",
    "**第一段总结**:{found}。\n**第二段翻译**:{gold}。\n**含义是否一致**:**{verdict}**",
    "好的,批阅如下。\n第一段总结:{found}。\n第二段翻译:{gold}。\n\n**含义是否一致：{verdict}**\n以上是批阅结果。",
    "第一段总结: {found}。\n第二段翻译: {gold}。\n含义是否一致: {verdict}。两段的结论是这样比较的。\n",
)


def material(text: str) -> tuple[str, str] | None:
    """The response and the gold solution that a marking prompt holds; None where the text is none."""
    before, _, after = prompt_text(PROMPT).partition("{question}")
    if not (text.startswith(before) and text.endswith(after)):
        return None
    # a response may hold as many empty lines as it likes: the last ones part it from the gold
    response, parted, gold = text.removeprefix(before).removesuffix(after).rpartition(BETWEEN)
    return (response, gold) if parted else None


def mark(response: str, gold: str, slip_share: float, seed: int) -> Worked:
    """Do both end in the same number? Which material is marked wrongly, and the reply's form, is a hash of it."""
    digest = hashlib.sha256(f"mark:{seed}:{response}{BETWEEN}{gold}".encode()).digest()
    slips = int.from_bytes(digest[:8], "big") < slip_share * 2**64
    found, wanted = last_number(response), last_number(gold)
    same = (found is not None and found == wanted) != slips
    reply = FORMS[digest[8] % len(FORMS)].format(found=_said(found), gold=_said(wanted), verdict="是" if same else "否")
    return Worked(f"第一段{_said(found)},标准答案{_said(wanted)},{'一致' if same else '不一致'}。", reply)


def last_number(text: str) -> Decimal | None:
    """The last number of a text; None where there is none."""
    numbers = NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None


def _said(number: Decimal | None) -> str:
    return "没有给出数字" if number is None else f"结果是{number}"
