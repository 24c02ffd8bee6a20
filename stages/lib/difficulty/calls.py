"""The requests to the untrained student, and the pass rate that its stored answers give."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from stages.lib.answers import rule_verdict
from stages.lib.chat_template import in_user_turn
from stages.lib.replies.reading import Answer, BodyError
from stages.lib.rows.question import PassRate, Question
from stages.lib.store.answer_file import AnswerFile
from stages.lib.teacher.draws import answer_that_counts
from stages.lib.texts.languages import question_language

Settings = dict[str, Any]  # a request without its messages and its sample number


class Calls:
    """``samples`` requests for each question; ``system`` is the system text of the base arm, or None."""

    def __init__(self, settings: Settings, system: str | None, system_in_user_turn: bool, samples: int) -> None:
        self._settings = settings
        self._system = system
        self._in_user_turn = system_in_user_turn
        self._samples = samples

    def of(self, question: Question) -> list[dict[str, Any]]:
        """The requests for one question; its own system text replaces that of the base arm, as in the evaluation."""
        messages = question.messages(question.question)
        if self._system and not question.system:
            messages.insert(0, {"role": "system", "content": self._system})
        turns = in_user_turn(messages) if self._in_user_turn else messages
        return [{**self._settings, "messages": turns, "sample": sample} for sample in range(self._samples)]

    def requests(self, questions: Iterable[Question]) -> Callable[[], Iterator[dict[str, Any]]]:
        """A function that returns all requests, in the order of the questions."""
        return lambda: (request for question in questions for request in self.of(question))

    def answers(self, question: Question, store: AnswerFile) -> list[Answer | None]:
        """The stored answers to a question; None for a request that the server refused."""
        return [_answer(request, store) for request in self.of(question)]


def _answer(request: dict[str, Any], store: AnswerFile) -> Answer | None:
    try:
        return answer_that_counts(request, store)
    except (KeyError, BodyError):
        return None


def pass_rate(question: Question, answers: Sequence[Answer | None]) -> PassRate:
    """How many answers are right; one that is missing, or that the rule cannot read, is unsure."""
    verdicts = [verdict(question, answer) for answer in answers]
    return PassRate(solved=verdicts.count("right"), unsure=verdicts.count("unsure"), samples=len(verdicts))


def verdict(question: Question, answer: Answer | None) -> str:
    """``right``, ``wrong`` or ``unsure``, as the evaluation decides it; an empty answer is wrong."""
    assert question.answer  # difficulty refuses a question without one
    if answer is None:
        return "unsure"
    if not answer.response.strip():
        return "wrong"
    language = question_language(question.question)
    return rule_verdict(question.question, answer.response, question.answer, language).verdict


def generated_tokens(answer: Answer | None) -> int:
    """The tokens that the student wrote, as the answer states them."""
    return answer.tokens.completion if answer else 0
