"""Ask the untrained student on a server of the OpenAI protocol, by the teacher's client and limits."""

from collections import Counter

from stages.lib.difficulty.calls import Settings
from stages.lib.params import Run, ServedTeacher
from stages.lib.replies.errors import Subject
from stages.lib.store.answer_store import AnswerStore
from stages.lib.teacher.asking import AskResult, Requests, Respondent, ask_missing, chat_request
from stages.lib.teacher.client import CallFailed, TeacherError
from stages.lib.teacher.progress import RunCounts

ROW_SUBJECTS = (Subject.CONTENT, Subject.LENGTH)  # refused because of the question, which a retry cannot change


class Served:
    """The served untrained student; ``counts`` is correct at any time, however ``ask`` ends."""

    def __init__(self, backend: ServedTeacher, run: Run) -> None:
        self._respondent = Respondent("difficulty", "collect.keep_hard.backend", backend, run.key_variable("student"))
        self._run = run
        self._result = AskResult()

    @property
    def settings(self) -> Settings:
        """What shapes an answer, as the store keeps it."""
        request = chat_request(self._respondent.identity, self._respondent.model, "", 0)
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
        if self._run.offline and self.counts.failed:
            raise TeacherError(
                f"difficulty: run.offline is true, and {self.counts.failed} answers of the student are not in the "
                "store. Set it to false, or collect.keep_hard to null."
            )
        missing = [failed for failed in self._result.failed.values() if not is_permanent(failed)]
        if missing:
            kinds = ", ".join(f"{n} {reason}" for reason, n in Counter(each.reason for each in missing).most_common())
            words = next((f': "{each.message}"' for each in missing if each.message), "")
            raise TeacherError(
                f"difficulty: {len(missing)} answers of the student were not received ({kinds}{words}). The received "
                "ones are kept. Run the stage again to ask for the rest."
            )


def is_permanent(failed: CallFailed) -> bool:
    """Whether a retry cannot help, because the server refuses the question itself."""
    return failed.reason == "refused" and failed.subject in ROW_SUBJECTS
