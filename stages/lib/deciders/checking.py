"""The checks as a decider: what fails one of them is unfit, whatever the strategy would say."""

from collections.abc import Sequence

from stages.lib.checks import failed_check, prepared_checks
from stages.lib.deciders.decision import Decision
from stages.lib.params import Check, Student
from stages.lib.rows.distilled import Distilled

PREFIX = "check:"  # decided_by is this and the reason


class Checking:
    """Runs the checks in the order of params.yaml; the first that fails counts."""

    def __init__(self, checks: Sequence[Check], student: Student) -> None:
        self._checks = prepared_checks(checks, student)

    def decide(self, rows: Sequence[Distilled], of: int) -> list[Decision | None]:
        """``unfit`` where a check fails."""
        found = (failed_check(row, self._checks) for row in rows)
        return [Decision("unfit", PREFIX + failed.reason, detail=failed.detail) if failed else None for failed in found]
