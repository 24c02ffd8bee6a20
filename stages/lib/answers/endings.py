"""What a tutor adds after the answer, cut off: a new practice question, a check, advice, a likeness.

    body("所以一共 72 个！\\n考考你：如果五月卖 20 个，一共几个呢？")  → "所以一共 72 个！"

Nothing is cut before a first result, so a lesson that opens with "Let's think: what if …" is left whole. A sentence that
opens practice in so many words (练习, 小挑战, your turn) ends the lesson; one that may be part of it (考考你, 想一想) ends it
only where no result comes after its paragraph. What says "final answer" or stands in a box counts wherever it is.
"""

import re
from typing import NamedTuple

OPENING = r"^[^\w\n]*(?:[^\n:：,，。!！]{0,10}[,，:：!！]\s*)?[^\w\n]*"
ASKS = r"(?:爸爸|老师|我|咱们|我们)?(?:再|来|想|要|也|就|现在|最后|给你|还){0,3}"
PRACTICE = re.compile(
    rf"{OPENING}(?:现在|最后|接下来|好啦|那么?|附加|课后|互动|拓展|趣味|小|爸爸的?|今日|{ASKS})*"
    r"(?:练习|练一练|练练|挑战|思考题|思考时间|思考问题|举一反三|小?测试|测验|拓展|延伸|变式|再来[一1][题道个]|类似的|"
    r"新的?(?:问题|题目)|作业|小问题|小考验|小任务|小游戏|互动|动动?脑|脑筋|加油站|巩固|留(?:给你)?[一1]?[个道]|"
    r"出[一1]?[个道](?:新|小)?[题问]|问题时间|提问时间)"
    r"|^[^\w\n]*(?:now,?\s|so,?\s|ok(?:ay)?,?\s|and\s|here(?:'s| is)\s|let'?s\s|a\s|an\s|one\s|your\s|mini[- ]|quick\s|\w+,\s)*"
    r"(?:(?:new|extra|bonus|fun|little|quick|next|more|similar|another|mini)[- ])*"
    r"(?:practi[cs]e\b|try (?:this|it|one|another|a similar)|your turn|turn for you|challenge\b|quiz\b|bonus\b|exercise\b|"
    r"homework\b|(?:another|new|similar|bonus|follow-?up) (?:question|problem|example|one)\b|question for you|"
    r"problem for you|(?:question|problem) to (?:try|think)|follow-?up\b|extension\b|think about this\b|for (?:extra )?practi[cs]e)",
    re.IGNORECASE,
)
MAYBE_PRACTICE = re.compile(
    rf"{OPENING}(?:那么?|现在|最后|好啦|接下来|来|{ASKS})*(?:考考?你|考[一1]?考|问问?你|问你|想[一1]想|试[一1]?试|试试看|"
    r"反问|猜[一1]?猜|轮到|换[一1成个你]|(?:请|让)?赛西(?:来|也|能|可以|你)|你(?:能|会|可以|知道|说|觉得|还|猜)|你来|反过来|思考[一1]?下|如果|假如|要是|假设)"
    r"|^[^\w\n]*(?:now,?\s|so,?\s|ok(?:ay)?,?\s|and\s|\w+,\s)*"
    r"(?:what if\b|can you\b|could you\b|now you\b|what would\b|how about\b|if\b|suppose\b|imagine\b|what happens if\b)",
    re.IGNORECASE,
)
HYPOTHETICAL = re.compile(r"如果|假如|要是|假设|若是|换成|\b(?:if|suppose|imagine)\b", re.IGNORECASE)
CHECK = re.compile(
    r"^[^\w\n]*(?:[^\n,，:：。]{0,8}[,，:：]\s*)?[^\w\n]*(?:我们|咱们|爸爸|最后|现在|再|来|一起|带你|让|还可以|可以|也|用|倒着|快速|反过来)*"
    r"(?:验证|验算|检验|检查|核对|代入|复习|小秘密|小知识|小口诀|小技巧|小窍门|生活中?的?小?例子|生活中的?应用)"
    r"|^[^\w\n]*(?:now,?\s|so,?\s|ok(?:ay)?,?\s|and\s|we can\s|you can\s|to\s|let'?s\s|let us\s|quick(?:ly)?\s)*"
    r"(?:(?:double|sanity)[- ]?)?(?:check(?:ing)?\b|verif\w+|proof\b)",
    re.IGNORECASE,
)
ASIDE = re.compile(
    r"^[^\w\n]*(?:(?:这)?就?(?:好?像是?|好比|相当于)|比如|例如|打个比方|举个例子|记住|记得|下次|以后|小贴士|小提示|小窍门|小秘诀|"
    r"提示|悄悄告诉你|温馨提示|知识点|"
    r"for example|for instance|e\.g\.|remember\b|tip\b|hint\b|note\b|it'?s like\b|just like\b|fun fact|next time\b|great job\b)",
    re.IGNORECASE,
)
ASKED = re.compile(r"[?？][\s*_)\"”』」（）()😊🤔✨🎉~～]*$")
ASKED_OF_A_RESULT = re.compile(
    r"(?:对[吗吧不]|是[吗吧不]|没错吧|right|correct|okay|see|明白|懂)[^?？]{0,6}[?？]", re.IGNORECASE
)
RESULT = re.compile(
    r"[=≈]\s{0,3}[*$\\(\[]{0,4}-?[$¥€£]?\.?\d|\*\*[^*\n]{0,40}\d[^*\n]{0,80}\*\*|\\boxed|####|答案|\banswer\b"
    r"|(?:所以|因此|一共|总共|共[有赚花卖用需要得是]|总计|合计|就是|等于|得到|剩|\b(?:so|therefore|thus|hence|total|altogether)\b)"
    r"[^。！？!?\n]{0,80}[\d二三四五六七八九十百千]",
    re.IGNORECASE,
)
FINAL = re.compile(r"\\boxed|####|最终的?答案|final answer|原题的?答案|^A[:：]", re.IGNORECASE)
SENTENCE = re.compile(
    r"[^\n。！？!?]+?(?:[。！？!?]+[*_)）”\"』」]*|(?<=[^\s\d.])\.(?=\s)|(?<=\d)\.(?=\s)|(?=\n)|\Z)|\n"
)


class Sentence(NamedTuple):
    """A sentence, or a line's rest, with its place in the text."""

    start: int
    text: str

    @property
    def is_question(self) -> bool:
        """Whether it asks for a number instead of stating one (是 10 吗？; but not: 一共 72 个，对吗？)."""
        return bool(ASKED.search(self.text)) and not ASKED_OF_A_RESULT.search(self.text)


def sentences(text: str) -> list[Sentence]:
    """Sentences and single newlines, in order; together they are the text."""
    return [Sentence(match.start(), match.group()) for match in SENTENCE.finditer(text)]


def body(text: str) -> str:
    """The text up to its practice questions, without checks, likenesses and advice after the first result."""
    parts = sentences(text)
    kept: list[str] = []
    solved, skipping, heading = False, False, False
    last_result = max((index for index, part in enumerate(parts) if _states(part.text)), default=-1)
    for index, part in enumerate(parts):
        if part.text == "\n":
            skipping = skipping and not _section_ends(parts, index, heading)
            kept.append("\n")
        elif not solved:
            kept.append(part.text)
            solved = _states(part.text) and not part.is_question
        elif PRACTICE.search(part.text) or _ends_the_lesson(parts, index, last_result):
            final = [later.text for later in parts[index:] if FINAL.search(later.text)]
            kept += final if not FINAL.search("".join(kept)) else []
            break
        elif CHECK.search(part.text) or (MAYBE_PRACTICE.search(part.text) and _asks(parts, index)):
            skipping, heading = not FINAL.search(part.text), _is_heading(part.text)
        elif not (skipping or ASIDE.search(part.text)) or FINAL.search(part.text):
            kept.append(part.text)
    return "".join(kept)


def _states(text: str) -> bool:
    return bool(RESULT.search(text))


def _paragraph_ends(parts: list[Sentence], index: int) -> bool:
    """A blank line, a heading or a line in bold comes next."""
    following = parts[index + 1].text if index + 1 < len(parts) else ""
    return following == "\n" or following.lstrip().startswith(("#", "---"))


def _is_heading(text: str) -> bool:
    return bool(re.match(r"\s*(?:#|\*\*[^*]+\*\*[:：\s]*$)", text))


def _section_ends(parts: list[Sentence], index: int, heading: bool) -> bool:
    """A section that has a heading ends at the next one, else at a blank line."""
    following = parts[index + 1].text if index + 1 < len(parts) else ""
    return _is_heading(following) or following.startswith("---") or (not heading and following == "\n")


def _asks(parts: list[Sentence], index: int) -> bool:
    """Whether a question is put in this sentence or the rest of its line."""
    for part in parts[index : index + 6]:
        if part.text == "\n":
            return False
        if ASKED.search(part.text):
            return True
    return False


def _ends_the_lesson(parts: list[Sentence], index: int, last_result: int) -> bool:
    """A question that may be practice is the end where its paragraph is the last with a result."""
    if not MAYBE_PRACTICE.search(parts[index].text):
        return False
    end = index
    while end < len(parts) and not (parts[end].text == "\n" and _paragraph_ends(parts, end)):
        end += 1
    return last_result < end and any(part.is_question for part in parts[index:end])
