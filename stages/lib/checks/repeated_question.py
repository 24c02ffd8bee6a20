"""Responses that only repeat the question, as they begin with it and add nothing, or are most of it."""

import re

from stages.lib.checks import Failed, PreparedCheck, shown
from stages.lib.params import RepeatedQuestionCheck, Student
from stages.lib.rows.distilled import Distilled

NO_WORD = re.compile(r"[\W_]+")
LABEL = re.compile(r"question|answer|response|problem|solution|q|a|问题|题目|答案|回答|问|答")
MOST = 0.8  # of the question; a shorter part may be the answer: "red or blue?" – "blue"
FEWEST = 12  # characters


def prepared(check: RepeatedQuestionCheck, student: Student) -> PreparedCheck:
    """``repeats_question``."""

    def failed(row: Distilled) -> Failed | None:
        question, response = _bare(row.question), _bare(row.response)
        if len(question) < FEWEST or len(response) < MOST * len(question):
            return None
        rest = response.replace(question, "")
        is_part = response in question
        if is_part or (rest != response and not LABEL.sub("", rest)):
            return Failed("repeats_question", f"response: '{shown(row.response)}'")
        return None

    return failed


def _bare(text: str) -> str:
    return NO_WORD.sub("", text).casefold()
