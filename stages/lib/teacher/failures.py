"""Decide what a call without an answer leads to: a retry, a row without an answer, or the end of the run.

    CallFailed               this question has no answer: its row goes to the failures, with the server's message
    └── RetryableFailure     the next attempt may succeed
    TeacherError             no question can have one: one line with the server's message and what to change

errors.py classifies an error. repeats.py decides when a repeated failure ends the run.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from stages.lib.command import DistilleryError, without_key
from stages.lib.params import Run
from stages.lib.replies.errors import Scope, Subject, classify_error, hint_for
from stages.lib.replies.reading import SERVER_ERROR, BodyError
from stages.lib.replies.server_message import ServerMessage, message_of
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.repeats import Group, Repeats, kind_of
from stages.lib.teacher.waiting import asked_wait_s

log = logging.getLogger("distillery.asking")

KEPT = "received answers are kept."


class TeacherError(DistilleryError):
    """The teacher refuses all questions, cannot be reached, or too many of its answers failed."""


@dataclass
class CallFailed(Exception):
    """A question without a usable body: the reason, the last HTTP status, the number of calls, the server's message."""

    reason: str
    status: int | None
    attempts: int = 1
    message: str = ""
    subject: Subject = Subject.UNKNOWN
    group: Group = "refused"


@dataclass
class RetryableFailure(CallFailed):
    """A failure that a retry may solve; ``wait_s`` is the wait that the server asked for."""

    group: Group = "transient"
    wait_s: float = 0.0


class Diagnosis:
    """Classifies each failure of a run; ``stored`` is how many of its answers were in the store at the start."""

    def __init__(self, endpoint: Endpoint, section: str, model: str, run: Run, stored: int) -> None:
        self._endpoint = endpoint
        self._section = section
        self._model = model
        self._run = run
        self._repeats = Repeats(run.concurrency, stored)
        self._logged: set[str] = set()

    def of_status(self, status: int, body: bytes, headers: Mapping[str, str]) -> CallFailed | TeacherError:
        """The failure that an HTTP status other than 200 means."""
        return self._of_error(f"http_{status}", status, message_of(body), headers)

    def of_body(self, error: BodyError, body: bytes) -> CallFailed | TeacherError:
        """The failure that a body without an answer, with status 200, means."""
        if error.server_message and str(error) == SERVER_ERROR:
            return self._of_error(SERVER_ERROR, 200, error.server_message, {})
        message = error.server_message or message_of(body)
        return RetryableFailure(str(error), 200, message=self.without_key(message.text), group="unread")

    def answered(self) -> None:
        """Count an answer: earlier failures no longer count."""
        self._repeats.answered()

    def count(self, failed: CallFailed, key: str, attempt: int) -> None:
        """Log each kind of failure once; TeacherError where question after question fails in the same way."""
        kind = kind_of(failed.reason, "" if failed.group == "unread" else failed.message)
        if failed.message and kind not in self._logged:
            self._logged.add(kind)
            log.warning("%s: %s: %s", self._section.partition(".")[0], failed.reason, failed.message)
        last = attempt >= self._run.max_attempts
        # a content filter may refuse many questions; that is no sign of a wrong setting
        counts = {"unread": attempt > 1 or last, "transient": last, "refused": failed.subject is not Subject.CONTENT}
        if counts[failed.group] and (repeats := self._repeats.failed(kind, key, failed.group)):
            raise self._repeated_failure(failed, repeats)

    def without_key(self, text: str) -> str:
        """A server's text without the API key, which some servers repeat."""
        return without_key(text, self._endpoint.api_key)

    def _of_error(
        self, reason: str, status: int, message: ServerMessage, headers: Mapping[str, str]
    ) -> CallFailed | TeacherError:
        found, wait_s = classify_error(status, message), asked_wait_s(headers, message)
        text, too_long = self.without_key(message.text), wait_s > self._run.longest_wait_s
        soon = found.subject is Subject.PERIOD and wait_s > 0 and not too_long
        if found.scope is Scope.TRANSIENT and too_long:
            return self._too_long_a_wait(status, text, wait_s)
        if found.scope is Scope.TRANSIENT or soon:
            return RetryableFailure(reason, status, message=text, subject=found.subject, wait_s=wait_s)
        if found.scope is Scope.RUN:
            return TeacherError(f"{self._answers(status)}: {_sentence(text)} {self._advice(found.subject)}; {KEPT}")
        return CallFailed("refused", status, message=text, subject=found.subject)

    def _advice(self, subject: Subject) -> str:
        variable, section = self._endpoint.key_variable, self._section
        if subject is Subject.CREDIT:
            return f"Top up the account that {variable} belongs to, or change {section} in params.yaml"
        if subject is Subject.PERIOD:
            return f"Run the stage again when the limit is reset, or change {section} in params.yaml"
        return f"Check {variable}, the account's credit and {section} in params.yaml"

    def _too_long_a_wait(self, status: int, text: str, wait_s: float) -> TeacherError:
        return TeacherError(
            f"{self._answers(status)} and asks to wait {wait_s:.0f} s, longer than run.longest_wait_s = "
            f"{self._run.longest_wait_s:g} allows: {_sentence(text)} Run the stage again then; {KEPT}"
        )

    def _repeated_failure(self, failed: CallFailed, repeats: int) -> TeacherError:
        where = self._answers(failed.status) if failed.status else f"{self._endpoint.base_url}: no answer comes"
        reason = "" if failed.group == "refused" else f" ({failed.reason})"
        advice = {
            "refused": hint_for(ServerMessage(failed.message), self._section),
            "unread": "The bodies are next to the store, in *.unread.jsonl: read one before you run the stage again",
            "transient": "Run the stage again when the server works again",
        }[failed.group]
        return TeacherError(
            f"{where}{reason}: {_sentence(failed.message)} {repeats} questions in a row failed like that. "
            f"{advice}; {KEPT}"
        )

    def _answers(self, status: int | None) -> str:
        return f"{self._endpoint.base_url}: the server answers {status} for model '{self._model}'"


def _sentence(text: str) -> str:
    """The server's message with one full stop at the end."""
    return f"{(text or 'no message').rstrip('.。')}."
