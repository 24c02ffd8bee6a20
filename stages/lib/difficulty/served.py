"""Ask the untrained student on a server of the OpenAI protocol, by the teacher's client and limits."""

from stages.lib.difficulty.calls import Settings
from stages.lib.params import Run, ServedTeacher
from stages.lib.received import refused_for_its_content, require_received
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.asking import AskResult, Requests, Respondent, ask_missing, chat_request
from stages.lib.teacher.progress import RunCounts


class Served:
    """The served untrained student; ``counts`` is correct at any time, however ``ask`` ends."""

    def __init__(self, backend: ServedTeacher, run: Run) -> None:
        self._respondent = Respondent("difficulty", "collect.keep_hard.backend", backend, "student")
        self._run = run
        self._result = AskResult()

    @property
    def settings(self) -> Settings:
        """What shapes an answer, as the store keeps it."""
        request = chat_request(self._respondent.identity(self._run), self._respondent.model, "", 0)
        return {name: value for name, value in request.items() if name not in ("messages", "sample")}

    @property
    def counts(self) -> RunCounts:
        """The counts of ``ask``."""
        return self._result.counts

    def ask(self, requests: Requests, store: AnswerStore) -> None:
        """Ask for the answers that the store lacks.

        TeacherError where one was not received: a timeout must not decide whether a question is kept. A question that
        the server refuses because of its content has no answer, and the run goes on.
        """
        ask_missing(self._respondent, requests, self._run, store, self._result)
        without = "collect.keep_hard to null"
        answers = "answers of the student"
        require_received("difficulty", answers, self._result, self._run.offline, without, refused_for_its_content)
