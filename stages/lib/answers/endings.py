"""What a tutor adds after the answer, cut off: a new practice question, a check, advice, a likeness.

    body("所以一共 72 个！\\n考考你：如果五月卖 20 个，一共几个呢？")  → "所以一共 72 个！"

Nothing is cut before a first result, so a lesson that opens with "Let's think: what if …" is left whole. A sentence
that opens practice in so many words (练习, 小挑战, your turn) ends the lesson; one that may be part of it (考考你,
想一想) ends it only where no result comes after its paragraph. What says "final answer" or stands in a box counts
wherever it is. Texts come from ``spelling.normalise``: in lower case.
"""

import re

# how a sentence opens, in Chinese: the words within its first few characters
OPENS_CHINESE = re.compile(
    r"(?=[练挑思延举小测拓变再类新问题作互动脑加巩留出提陷易常验检核代复生考想试反猜轮换赛你如假要就好相比例打记下以悄知])"
    r"(?:(?P<practice>练习|练一练|练练|挑战|思考题|思考时间|思考问题|延伸思考|举一反三|小?测试|测验|拓展|延伸|变式|再来[一1][题道个]"
    r"|类似的|新的?(?:问题|题目|题)|作业|小问题|小提问|小考验|小任务|小游戏|互动|动动?脑|脑筋|加油站|巩固|留给你"
    r"|出[一1]?[个道](?:新|小)?[题问]|问题时间|提问时间)"
    r"|(?P<check>陷阱|易错|常见错误|验证|验算|检验|检查|核对|代入|复习|再来?确认|小秘密|小知识|小口诀|小技巧|小窍门"
    r"|生活中?的?小?例子|生活中的?应用)"
    r"|(?P<maybe>考考?你|考[一1]考|问问?你|问你|想[一1]想|试[一1]?试|反问|猜[一1]?猜|轮到|换[一1成个你]|赛西(?:来|能|可以|你)"
    r"|你(?:能|会|可以|知道|说|觉得|还|猜|来)|反过来|思考[一1]?下|如果|假如|要是|假设)"
    r"|(?P<aside>就好?像|好像|好比|相当于|比如|例如|打个比方|举个例子|记住|记得|下次|以后|小贴士|小提示|小秘诀|提示[:：]"
    r"|悄悄告诉你|知识点))"
)
OPENS_ENGLISH = re.compile(
    r"\W*(?:(?:now|so|ok|okay|and|here(?:'s| is)|let'?s|let us|a|an|one|your|mini|quick|quickly|new|extra|bonus|fun"
    r"|little|next|more|similar|another|we can|you can|to)\b[,\s-]*){0,5}"
    r"(?:(?P<practice>practi[cs]e\b|try (?:this|it|one|another|a similar)|(?<=your )turn\b|turn for|challenge\b|quiz\b"
    r"|bonus\b|exercise\b|homework\b|(?:(?<=another )|(?<=similar )|(?<=more ))(?:question|problem|example|one)\b"
    r"|(?:(?<=new )|(?<=next )|(?<=bonus ))(?:question|problem)\b|(?:question|problem) (?:for you|to (?:try|think))"
    r"|follow-?up\b|extension\b|think(?: about this\b|:)|for (?:extra )?practi[cs]e)"
    r"|(?P<maybe>what if\b|can you\b|could you\b|you try\b|what would\b|how about\b|if\b|suppose\b|imagine\b"
    r"|what happens if\b)"
    r"|(?P<check>(?:double|sanity)[- ]?check|check\b(?! (?:for|of|from))|verif\w+|proof\b|common mistake|watch out)"
    r"|(?P<aside>for example|for instance|e\.g\.|remember\b|tip\b|hint\b|note\b|it'?s like\b|just like\b|fact\b"
    r"|(?<=next )time\b|great job\b))"
)
FIRST_LETTER = re.compile(r"\W*[a-z]")
ASKED = re.compile(r"[?？][\s*_)\"”』」（）()😊🤔✨🎉~～]*$")
ASKED_OF_A_RESULT = re.compile(
    r"(?:对[吗吧不]|对了[吗吧]|是[吗吧不]|没错吧|right|correct|okay|see|明白|懂)[^?？]{0,6}[?？]"
)
RESULT = re.compile(
    r"(?=[=≈*\\#答a所因一总共合就等得剩sth])(?:[=≈]\s{0,3}[*$\\(\[]{0,4}-?[$¥€£]?\.?\d|\*\*[^*\n]{0,40}\d[^*\n]{0,80}\*\*|\\boxed|####|答案|answer\b"
    r"|(?:所以|因此|一共|总共|共[有赚花卖用需要得是]|总计|合计|就是|等于|得到|剩)[^。！？!?\n]{0,80}[\d二三四五六七八九十百千]"
    r"|(?:so|therefore|thus|hence|total|altogether)\b[^。！？!?\n]{0,80}\d)"
)
HEADING = re.compile(r"\s*(?:#|\*\*[^*]+\*\*[:：\s]*$)")
FINAL = re.compile(r"\\boxed|####|最终的?答案|final answer|原题的?答案|^a[:：]")
SENTENCE = re.compile(r"[^\n。！？!?.]*(?:\.(?!\s)[^\n。！？!?.]*)*(?:[。！？!?]+[*_)）”\"』」]*|\.[*_)\"”]*)?|\n")


def sentences(text: str) -> list[str]:
    """Sentences and single newlines, in order; together they are the text."""
    return [sentence for sentence in SENTENCE.findall(text) if sentence]


def body(text: str) -> str:
    """The text up to its practice questions, without checks, likenesses and advice after the first result."""
    return "".join(body_sentences(text))


def body_sentences(text: str) -> list[str]:
    """The body's sentences and newlines."""
    parts = sentences(text)
    states = [part != "\n" and RESULT.search(part) is not None for part in parts]
    last_result = max((index for index, stated in enumerate(states) if stated), default=-1)
    kept: list[str] = []
    solved, skipping, heading = False, False, False
    for index, part in enumerate(parts):
        if part == "\n":
            skipping = skipping and not _section_ends(parts, index, heading)
            kept.append("\n")
            continue
        opening = _opening(part) if solved else None
        if opening == "practice" or (opening == "maybe" and _ends_the_lesson(parts, index, last_result)):
            final = [later for later in parts[index:] if FINAL.search(later)]
            kept += final if not FINAL.search("".join(kept)) else []
            break
        if opening == "check" or (opening == "maybe" and _asks(parts, index)):
            skipping, heading = not FINAL.search(part), _is_heading(part)
        elif not (skipping or opening == "aside") or FINAL.search(part):
            kept.append(part)
        solved = solved or (states[index] and not is_question(part))
    return kept


def is_question(sentence: str) -> bool:
    """Whether it asks for a number instead of stating one (是 10 吗？; but not: 一共 72 个，对吗？)."""
    return bool(ASKED.search(sentence)) and not ASKED_OF_A_RESULT.search(sentence)


def _opening(text: str) -> str | None:
    """What a sentence opens: practice, maybe practice, a check, an aside, or none of these."""
    found = OPENS_CHINESE.search(text, 0, 22) if not text.isascii() else None
    if not found and FIRST_LETTER.match(text):
        found = OPENS_ENGLISH.match(text)
    return found.lastgroup if found else None


def _is_heading(text: str) -> bool:
    return HEADING.match(text) is not None


def _section_ends(parts: list[str], index: int, heading: bool) -> bool:
    """A section that has a heading ends at the next one, else at a blank line."""
    following = parts[index + 1] if index + 1 < len(parts) else ""
    return _is_heading(following) or following.startswith("---") or (not heading and following == "\n")


def _asks(parts: list[str], index: int) -> bool:
    """Whether a question is put in this sentence or the rest of its line."""
    for part in parts[index : index + 6]:
        if part == "\n":
            return False
        if ASKED.search(part):
            return True
    return False


def _ends_the_lesson(parts: list[str], index: int, last_result: int) -> bool:
    """A question that may be practice is the end where its paragraph is the last with a result."""
    end = index
    while end < len(parts) and not (parts[end] == "\n" and _section_ends(parts, end, heading=False)):
        end += 1
    return last_result < end and any(is_question(part) for part in parts[index:end])
