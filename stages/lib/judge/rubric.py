r"""Read the mark at the end of a judge's reply to a rubric: yes or no, or a score.

    read_yes_no("It keeps to the limit.\n**Verdict: Yes**")             → True
    read_score("准确，但有一处重复。\n得分：8分", low=1, high=10)           → 8
    read_score("Score: 4/5", low=1, high=10)                            → None: another scale
    read_score("Score (1-10):", low=1, high=10)                         → None: retry

Judges keep to the requested form more or less. A mark counts where it

- is labelled: "Score: 8", "得分：8", ``{"score": 8}``, ``[[8]]``; the last one counts;
- has its scale beside it: "8/10", "8 out of 10";
- is all that the last or the first line has.

A number anywhere else is not a score: "it misses 2 of the points".
"""

import re
import unicodedata

LABEL_EN = r"(?:score|rating|(?:grade|mark|overall|total)(?=[\s\"'*_`]{0,4}(?:[:=]|is\b)))(?![a-z])"
LABEL_ZH = r"(?:最终|综合|总体|最后)?(?:得分|评分|分数|打分|总分|评级)"
# after a label: the scale in brackets, decoration, "is"
SCALE = r"(?:\s*[(（\[][^()（）\[\]\n]{0,24}[)）\]])?"
GAP = r"[\s\"'*_`:：=>\[(（]*+(?:(?:is|of|was)[\s\"'*_`:：\[(（]++|(?:为|是|给|打)[\s\"'*_`:：\[(（]*+)?+"
NUMBER = r"(?P<number>-?\d+(?:\.\d+)?|[一二三四五六七八九十](?=\s*分))"
# what may follow: "/10", "out of 10", "分(满分10分)"; not the rest of a range, a list or another number
OF = r"(?:[\s*_`\])）]*(?:/|out of|of)\s*[*_`]*(?P<of>\d+(?:\.\d+)?))?"
END = r"(?![\d.]*\d|\s*[-–—~至到]\s*\d|\s*(?:or|或)\s*\d|%)"
LABELLED_SCORE = re.compile(rf"(?:{LABEL_EN}|{LABEL_ZH}){SCALE}{GAP}{NUMBER}{OF}{END}", re.IGNORECASE)
BRACKETED = re.compile(rf"\[\[\s*{NUMBER}\s*{OF}\]\]")
WITH_SCALE = re.compile(
    rf"(?<![\d.])(?P<number>\d+(?:\.\d+)?)[\s*_`]*(?:/|out of)\s*[*_`]*(?P<of>\d+(?:\.\d+)?){END}", re.I
)
ALONE_SCORE = re.compile(rf"[\W_]*?{NUMBER}{OF}\s*(?:分|points?)?[\W_]*", re.IGNORECASE)
CHINESE = {numeral: number for number, numeral in enumerate("一二三四五六七八九十", start=1)}

YES = r"(?:yes|是的?|对|通过)"
NO = r"(?:no|不是|否|不对|不通过)"
# the reply repeats the format, or hedges: these are no marks
OPEN = (
    r"(?:yes\s*(?:/|or|and|\|)\s*no|no\s*(?:/|or|and|\|)\s*yes"
    r"|是\s*(?:/|或者?|、|\|)\s*(?:否|不是)|是否|是不是|是部分|否则|否认|不是很)"
)
AFTER = r"(?![a-z]|\s*(?:/|or\b|\|))"
MARK = rf"(?!{OPEN})(?:(?P<no>{NO})|(?P<yes>{YES})){AFTER}"
LABEL_MARK = (
    r"(?:verdict|answer|judge?ment|decision|conclusion|result|pass(?:es|ed)?|acceptable|criteria met|mark)(?![a-z])"
    r"|(?:最终|最后)?(?:结论|判断|判定|答案|结果|评价|是否[^\n:：]{1,12})"
)
LABELLED_MARK = re.compile(
    rf"(?:{LABEL_MARK}){SCALE}[\s\"'*_`]*(?:[:：=?？]|\bis\b|为|是)[\s\"'*_`\[(（]*+{MARK}", re.IGNORECASE
)
BRACKETED_MARK = re.compile(rf"\[\[\s*{MARK}\s*\]\]", re.IGNORECASE)
# a line that is a mark, or that begins with one and a stop: "Yes, it does all."
LINE_MARK = re.compile(
    rf"[\W_]*+{MARK}(?:[\W_]*+\Z|[*_`\"']*\s*[,.;:!，。；：！—–-]\s*[\s*_]*(?!but\b|and no\b|但))", re.IGNORECASE
)


def read_score(reply: str, low: int, high: int) -> float | None:
    """The score; None where there is none, it is outside of the scale, or it is given on another scale."""
    text = unicodedata.normalize("NFKC", reply).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    found = list(LABELLED_SCORE.finditer(text)) or list(BRACKETED.finditer(text)) or list(WITH_SCALE.finditer(text))
    if not found:
        alone = (ALONE_SCORE.fullmatch(line) for line in (lines[-1], lines[0]))
        found = [match for match in alone if match][:1]
    if not found:
        return None
    number, of = found[-1]["number"], found[-1]["of"]
    score = float(CHINESE.get(number) or number)
    if (of and float(of) != high) or not low <= score <= high:
        return None
    return score


def read_yes_no(reply: str) -> bool | None:
    """Yes or no; None where there is neither, or where the first and the last line contradict each other."""
    text = unicodedata.normalize("NFKC", reply).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if found := list(LABELLED_MARK.finditer(text)) or list(BRACKETED_MARK.finditer(text)):
        return found[-1]["yes"] is not None
    marks = {match["yes"] is not None for line in (lines[-1], lines[0]) if (match := LINE_MARK.match(line))}
    return marks.pop() if len(marks) == 1 else None
