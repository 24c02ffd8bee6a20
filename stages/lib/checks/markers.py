r"""Tokens of a chat template and tags of reasoning in a row's reasoning or response.

The teacher's reasoning was separated from its response, so a tag that is left is one without its other half.

    <|im_end|>  <|eot_id|>  <｜end▁of▁sentence｜>  [INST]  <<SYS>>  <start_of_turn>  <think>  </answer>  </s> at the end
"""

import re

from stages.lib.checks import Failed, PreparedCheck, shown
from stages.lib.params import MarkersCheck, Student
from stages.lib.rows.distilled import Distilled

MARKER = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>"  # most templates; the second bar is DeepSeek's
    r"|</?(?:think|thinking|thought|reasoning|answer|solution)>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|\[gMASK\]"
    r"|\A\s*<s>|</s>\s*\Z"  # elsewhere they strike text out in HTML
    r"|<tool_call>|</tool_call>"
)


def prepared(check: MarkersCheck, student: Student) -> PreparedCheck:
    """``marker_in_text``."""

    def failed(row: Distilled) -> Failed | None:
        for part, text in (("reasoning", row.reasoning), ("response", row.response)):
            if found := MARKER.search(text):
                near = text[max(0, found.start() - 20) : found.end() + 20]
                return Failed("marker_in_text", f"{part}: {found[0].strip()} in '{shown(near)}'")
        return None

    return failed
