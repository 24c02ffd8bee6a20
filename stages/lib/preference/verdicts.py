"""Read a judge's verdict on two answers: the last one in brackets, or a last line that holds nothing but a verdict.

read_verdict("A invents a date. B keeps to the text.\\n\\n[[B]]")        → "B"
read_verdict("**Final verdict: [[A>>B]]**")                            → "A"
read_verdict("两个回答都准确。\\n最终判断：平局")                          → "tie"
read_verdict("A is better in style, B in substance.")                  → None: retry
read_verdict("[[A]] if A is better, [[B]] if B is better")             → None: the format repeated, no verdict

The forms are those of the prompts here, of MT-Bench ([[C]] is a tie), Arena-Hard and OpenCompass. Explanations name
labels too: where a line states the verdict and nothing else, the labels before it that stand in sentences do not count.
Two statements that contradict each other are no verdict.
"""

import re
from typing import Literal

Verdict = Literal["A", "B", "tie"]

BRACKETS = re.compile(r"(?:\[\[|【【|［［|\\\[\\\[)([^\[\]【】［］\n]{1,24})(?:\\?\]\\?\]|】】|］］)")
DECORATION = re.compile(r"[\s*_`\"'“”\\]+")
NAMED = r"(?:assistant|answer|response|model|option|回答|答案|助手|回复|选项)?"
BETTER = r"(?:isbetter|wins|win|更好|更优|较好|胜出|获胜|胜)?"
A = re.compile(rf"{NAMED}a{BETTER}|a>{{1,2}}b|b<{{1,2}}a")
B = re.compile(rf"{NAMED}b{BETTER}|b>{{1,2}}a|a<{{1,2}}b")
TIE = re.compile(r"c|tie|tied|draw|a={1,2}b|b={1,2}a|平局|平手|打平|不分(?:上下|胜负|伯仲)")
# words before a verdict that stands alone on the last line, without white space and decoration
LEAD = re.compile(
    r"(?:so|therefore|thus|hence|因此|所以|综上|综上所述)?[,，:：]?(?:my|the|我的)?"
    r"(?:final|overall|最终|最后|总体|综合)?"
    r"(?:verdict|judge?ment|decision|choice|winner|结论|判断|判定|裁决|评判|选择|结果)(?:is|是|为)?[:：]?"
)
BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]{1,24})\}{1,2}")
ENDS = "#-.。!！$()（）[]【】"
LONGEST_LINE = 200  # characters of a line without brackets that can be a verdict


def read_verdict(reply: str) -> Verdict | None:
    """The verdict of a reply; None where there is none, or where its last line holds contradictory ones."""
    lines = [line for line in reply.splitlines() if line.strip()]
    labels = [(line, {_label(label, with_c=True) for label in BRACKETS.findall(line)}) for line in lines]
    labels = [(line, found) for line, found in labels if found]
    if not labels:
        return _alone(lines[-1]) if lines and len(lines[-1]) <= LONGEST_LINE else None
    statements = [place for place, (line, _) in enumerate(labels) if _is_statement(line)]
    # what counts: all statements, and every label after the last of them
    counting = [labels[place] for place in statements] + labels[statements[-1] if statements else 0 :]
    verdicts = {verdict for _, found in counting for verdict in found}
    return verdicts.pop() if len(verdicts) == 1 else None


def _is_statement(line: str) -> bool:
    """Whether a line states the verdict and nothing else."""
    bare = DECORATION.sub("", BRACKETS.sub("", line)).lower().strip(ENDS)
    return not bare or LEAD.fullmatch(bare) is not None


def _alone(line: str) -> Verdict | None:
    if boxed := BOXED.search(line):
        line = line[: boxed.start()] + boxed[1] + line[boxed.end() :]
    bare = DECORATION.sub("", line).lower().strip(ENDS)
    lead = LEAD.match(bare)
    return _label((bare[lead.end() :] if lead else bare).strip("[]【】()（）:："), with_c=False)


def _label(text: str, *, with_c: bool) -> Verdict | None:
    """The verdict that a label names. Without brackets, C is not known to be a tie."""
    bare = DECORATION.sub("", text).lower()
    if A.fullmatch(bare):
        return "A"
    if B.fullmatch(bare):
        return "B"
    return "tie" if TIE.fullmatch(bare) and (with_c or bare != "c") else None
