"""Reading the judge's reply: a table of what models write where the prompt asks for 含义是否一致:是/否."""

import time

import pytest

from stages.lib.judge.marking import read_mark

R1_REPLY = """第一段总结:爸爸用分糖果的方法一步步教赛西,先算四月卖出48个,再算五月卖出一半是24个,合起来是72个。
第二段翻译:娜塔莉亚五月卖出48/2=24个发夹。四月和五月一共卖出48+24=72个发夹。
{mark}"""
# what stands inside <think> when a server leaves it in the content, and quotes the prompt
R1_THOUGHT = (
    "好的,我需要批阅这份试卷。首先总结第一段,然后翻译第二段,最后比较前后含义是否一致,用是或否来回答。"
    "格式是“第一段总结:xxx。第二段翻译:xxx。含义是否一致:是/否”。第一段得出72,第二段也是72,但是要注意单位。"
)

RIGHT = [
    "含义是否一致:是",
    "含义是否一致：是",
    "含义是否一致: 是。",
    "含义是否一致 ： 是",
    "含义是否一致:是的",
    "含义是否一致：是的，两段都得出72。",
    "含义是否一致:一致",
    "含义是否一致:是一致的",
    "含义是否一致:前后含义一致",
    "含义是否一致:完全一致",
    "含义是否一致：两段含义完全一致。",
    "含义是否一致:答案是一致的",
    "含义是否一致:「是」",
    '{"第一段总结": "…", "含义是否一致": "是"}',
    "| 含义是否一致 | 是 |",
    "**含义是否一致:是**",
    "**含义是否一致**:**是**",
    "**含义是否一致：** 是",
    "__含义是否一致__:__是__",
    "### 含义是否一致\n\n是",
    "含义是否一致:\n\n是",
    "- 含义是否一致:✅ 是",
    "含义是否一致?是",
    "含义是否一致:Yes",
    "前后含义是否一致:是",
    "含义是否一致(是/否):是",
    "含义是否一致:是/否 → 是",
    "好的,批阅如下。\n第一段总结:5。\n第二段翻译:5。\n\n**含义是否一致：是**\n以上是批阅结果。",
    "第一段总结:5。第二段翻译:5。含义是否一致:是。否则不会给分。",
    "含义是否一致:是\n\n(含义是否一致:是)",
    R1_REPLY.format(mark="含义是否一致:是"),
    R1_REPLY.format(mark="**含义是否一致：是的**"),
    R1_THOUGHT + "\n\n" + R1_REPLY.format(mark="含义是否一致:是"),
    "第一段总结:5。\n第二段翻译:5。\n是",
    "第一段总结:5。\n第二段翻译:5。\n**是的。**\n\n",
    "第一段总结:5。\n第二段翻译:5。\n结论:一致",
    "yes",
]
WRONG = [
    "含义是否一致:否",
    "含义是否一致：否。",
    "含义是否一致:否,第一段是96,第二段是72。",
    "含义是否一致:不一致",
    "含义是否一致:是不一致的",
    "含义是否一致:前后不一致",
    "含义是否一致:不同",
    "含义是否一致:不是",
    "含义是否一致:No",
    "含义是否一致:答案是:否",
    "**含义是否一致**：**否**",
    "**含义是否一致：不一致**\n以上是批阅结果。",
    "含义是否一致(是/否):否",
    "格式:含义是否一致:是/否\n含义是否一致:否",
    "含义是否一致:\n否",
    R1_REPLY.format(mark="含义是否一致:否"),
    R1_THOUGHT + "\n\n" + R1_REPLY.format(mark="**含义是否一致:否**(第一段少算了五月)"),
    "第一段总结:6。\n第二段翻译:5。\n否",
    "第一段总结:6。\n第二段翻译:5。\n结论:不一致。",
]
UNREADABLE = [
    "",
    "\n \n",
    "The answer is 5.",
    "第一段总结:5。\n第二段翻译:5。",
    "含义是否一致:",
    "含义是否一致:是/否",
    "含义是否一致:是或否",
    "含义是否一致:[ ] 是 [x] 否",
    "含义是否一致:部分一致",
    "含义是否一致:是部分一致",
    "含义是否一致:基本一致",
    "含义是否一致:不完全一致",
    "含义是否一致:并非完全一致",
    "含义是否一致:两段不完全一致",
    "含义是否一致:无法判断",
    "含义是否一致:一致性较低",
    "含义是否一致:none of it",
    "含义是否一致,是判断的关键。",
    "两段大致相同",
    "否则不给分",
    "是否",
    "是/否",
    "含义是否一致:是\n更正。含义是否一致:否",
    R1_THOUGHT,
]
CASES = [
    *((reply, "right") for reply in RIGHT),
    *((reply, "wrong") for reply in WRONG),
    *((reply, None) for reply in UNREADABLE),
]


@pytest.mark.parametrize(("reply", "mark"), CASES)
def test_a_mark_is_what_the_reply_says_and_nothing_where_it_says_none(reply: str, mark: str | None) -> None:
    assert read_mark(reply) == mark


@pytest.mark.parametrize(
    "reply", ["含义是否一致" * 20_000, "是否一致" + "*" * 100_000, "答案" * 50_000, "是否一致:是" + "/" * 100_000]
)
def test_a_reply_of_100_000_characters_is_read_at_once(reply: str) -> None:
    started = time.process_time()
    read_mark(reply)
    assert time.process_time() - started < 1
