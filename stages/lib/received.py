"""Answers that a stage cannot do without: it fails in one line where some were not received, as by a timeout.

    ask_missing(respondent, requests, run, store, result)
    require_received("filter", "marks of the judge", result, run.offline, "filter.strategy to rule", is_permanent)

What was received is in the store, so the next run asks for the rest alone.
"""

from collections import Counter
from collections.abc import Callable

from stages.lib.replies.errors import Subject
from stages.lib.teacher.asking import AskResult
from stages.lib.teacher.failures import CallFailed, TeacherError

ROW_SUBJECTS = (Subject.CONTENT, Subject.LENGTH)  # refused because of the row's content, which a retry cannot change


def refused_for_its_content(failed: CallFailed) -> bool:
    """Whether a retry cannot help, because the server refuses the row itself."""
    return failed.reason == "refused" and failed.subject in ROW_SUBJECTS


def require_received(
    stage: str, what: str, result: AskResult, offline: bool, without: str, is_permanent: Callable[[CallFailed], bool]
) -> None:
    """TeacherError where an answer is missing that a retry may bring.

    ``what`` names the answers, and ``without`` says which key lets the stage run without them.
    """
    if offline and result.counts.failed:
        raise TeacherError(
            f"{stage}: run.offline is true, and {result.counts.failed} {what} are not in the store. "
            f"Set it to false, or {without}."
        )
    missing = [failed for failed in result.failed.values() if not is_permanent(failed)]
    if missing:
        kinds = ", ".join(f"{n} {reason}" for reason, n in Counter(each.reason for each in missing).most_common())
        words = next((f': "{each.message}"' for each in missing if each.message), "")
        raise TeacherError(
            f"{stage}: {len(missing)} {what} were not received ({kinds}{words}). The received ones are kept. "
            "Run the stage again to ask for the rest."
        )
