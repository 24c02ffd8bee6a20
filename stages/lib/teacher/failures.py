"""What becomes of a call that brought no answer: asked again, a row without an answer, or the end of the run.

    CallFailed      this question has no answer: its row goes to the failures, with the server's own words
    └── Again       it may have one at the next attempt
    TeacherError    no question can have one: one line that says what the server said and what to change

Whose fault an error is, errors.py says; when the same failure of question after question is to end the run, repeats.py.
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

KEPT = "what was received is kept."


class TeacherError(DistilleryError):
    """The teacher refuses us altogether, cannot be reached, or too many of its answers failed."""


@dataclass
class CallFailed(Exception):
    """A question that got no usable body: the reason, the last HTTP status, how many calls, the server's own words."""

    reason: str
    status: int | None
    attempts: int = 1
    message: str = ""
    subject: Subject = Subject.UNKNOWN
    group: Group = "refused"


@dataclass
class Again(CallFailed):
    """A failure that may pass; ``after_s`` is what the server asked us to wait."""

    group: Group = "passing"
    after_s: float = 0.0


class Diagnosis:
    """Says what each failure of a run means; ``stored`` answers of the run were in the store when it began."""

    def __init__(self, endpoint: Endpoint, section: str, model: str, run: Run, stored: int) -> None:
        self._endpoint = endpoint
        self._section = section
        self._model = model
        self._run = run
        self._repeats = Repeats(run.concurrency, stored)
        self._told: set[str] = set()

    def of_status(self, status: int, body: bytes, headers: Mapping[str, str]) -> CallFailed | TeacherError:
        """What an HTTP status other than 200 means."""
        return self._of_error(f"http_{status}", status, message_of(body), headers)

    def of_body(self, error: BodyError, body: bytes) -> CallFailed | TeacherError:
        """What a body with status 200 means that holds no answer."""
        if error.server_message and str(error) == SERVER_ERROR:
            return self._of_error(SERVER_ERROR, 200, error.server_message, {})
        message = error.server_message or message_of(body)
        return Again(str(error), 200, message=self.without_key(message.text), group="unread")

    def answered(self) -> None:
        """An answer came."""
        self._repeats.answered()

    def count(self, failed: CallFailed, key: str, attempt: int) -> None:
        """Say each kind of failure once; TeacherError where question after question fails alike."""
        kind = kind_of(failed.reason, "" if failed.group == "unread" else failed.message)
        if failed.message and kind not in self._told:
            self._told.add(kind)
            log.warning("%s: %s: %s", self._section.partition(".")[0], failed.reason, failed.message)
        last = attempt >= self._run.max_attempts
        # a content filter refuses what it will; that many questions meet it shows nothing
        counts = {"unread": attempt > 1 or last, "passing": last, "refused": failed.subject is not Subject.CONTENT}
        if counts[failed.group] and (repeats := self._repeats.failed(kind, key, failed.group)):
            raise self._always_the_same(failed, repeats)

    def without_key(self, text: str) -> str:
        """A server's text; some say which key was wrong."""
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
            return Again(reason, status, message=text, subject=found.subject, after_s=wait_s)
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

    def _always_the_same(self, failed: CallFailed, repeats: int) -> TeacherError:
        where = self._answers(failed.status) if failed.status else f"{self._endpoint.base_url}: no answer comes"
        reason = "" if failed.group == "refused" else f" ({failed.reason})"
        advice = {
            "refused": hint_for(ServerMessage(failed.message), self._section),
            "unread": "The bodies are kept beside the store, in *.unread.jsonl: look at one before you go on",
            "passing": "Run the stage again when the server is well",
        }[failed.group]
        return TeacherError(
            f"{where}{reason}: {_sentence(failed.message)} {repeats} questions met that and none was answered between. "
            f"{advice}; {KEPT}"
        )

    def _answers(self, status: int | None) -> str:
        return f"{self._endpoint.base_url}: the server answers {status} for model '{self._model}'"


def _sentence(text: str) -> str:
    """The server's words, with one full stop behind them."""
    return f"{(text or 'it says nothing').rstrip('.。')}."
