"""Let people's verdicts overrule the rule and the judge, and measure both against them.

    reviews = Reviews.of(Path("data/reviews.jsonl"))
    rows = reviews.applied(rows)    # the answers to one question, with people's verdicts
    reviews.counts()                # for the metrics, once all rows have passed

Of several reviews of an answer, the one with the latest ``when`` counts, of equally late ones the last in the file. A
review that names the hash of another text is outdated: it is counted and not applied.
"""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

from stages.lib.reviews import Review, read_reviews, text_sha256
from stages.lib.rows import DataError
from stages.lib.rows.filtered import Filtered
from stages.lib.statistics.shares import wilson_interval

log = logging.getLogger("distillery.filter")

DECIDED_BY = "review"
CONFIDENCE = 0.95  # of the intervals
SHOWN = 3  # ids in a message


class Reviews:
    """People's reviews by the id that they name, and the counts of what became of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[str, Review]]] = {}
        self._lines: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._found: Counter[tuple[str, str, str]] = Counter()  # who decided, its verdict, people's verdict

    @classmethod
    def of(cls, path: Path | None) -> "Reviews":
        """The reviews of a file, none without one; DataError on a bad line."""
        reviews, seen = cls(), set()
        for where, review in read_reviews(path):
            reviews._lines["lines"] += 1
            if review in seen:
                reviews._lines["duplicates"] += 1
            else:
                seen.add(review)
                reviews._waiting.setdefault(review.id, []).append((where, review))
        return reviews

    def applied(self, rows: list[Filtered]) -> list[Filtered]:
        """The answers to one question, each with the verdict of its latest review."""
        return [self._applied(row, found) if (found := self._take(row, len(rows))) else row for row in rows]

    def _take(self, row: Filtered, answers: int) -> list[Review]:
        """The reviews that name a row, by its key or by its question's id."""
        found = self._waiting.pop(row.key, [])
        if not re.search(r"#\d+$", row.id):  # else it looks like the key of another question's answer
            by_question = self._waiting.pop(row.id, [])
            if by_question and answers > 1:
                raise DataError(
                    f"{by_question[0][0]}: '{row.id}' is a question with {answers} answers. "
                    f"Name the one that was reviewed, for example '{row.key}'."
                )
            found = found + by_question
        return [review for _, review in found]

    def _applied(self, row: Filtered, found: list[Review]) -> Filtered:
        digest = text_sha256(row)
        current = [review for review in found if review.text_sha256 in (None, digest)]
        self._lines["outdated"] += len(found) - len(current)
        if not current:
            return row
        last = sorted(current, key=lambda review: review.when)[-1]
        self._lines["superseded"] += len(current) - 1
        self._answers.update(["answers", last.verdict])
        self._answers["without_hash"] += last.text_sha256 is None
        self._answers["changed"] += last.verdict != row.verdict
        self._answers["contradictory"] += _contradictory(current)
        self._found["rule", row.rule_verdict or "not_asked", last.verdict] += 1
        self._found["judge", row.judge_verdict or "not_asked", last.verdict] += 1
        if row.verdict == "unfit" and last.verdict == "unsure":
            return row  # whoever cannot say does not overrule a check
        return row.model_copy(update={"verdict": last.verdict, "decided_by": DECIDED_BY})

    def counts(self) -> dict[str, Any] | None:
        """The metrics; None without reviews. ``lines`` is the sum of the four after it and of ``answers``."""
        if not self._lines["lines"]:
            return None
        lines = ("lines", "duplicates", "superseded", "outdated")
        answers = ("answers", "right", "wrong", "unsure", "changed", "contradictory", "without_hash")
        return (
            {name: self._lines[name] for name in lines}
            | {"no_such_answer": sum(map(len, self._waiting.values()))}
            | {name: self._answers[name] for name in answers}
            | {"confidence": CONFIDENCE, "interval": "Wilson"}
            | {by: {verdict: self._errors(by, verdict) for verdict in ("right", "wrong")} for by in ("rule", "judge")}
        )

    def _errors(self, by: str, verdict: str) -> dict[str, Any]:
        """How many of the reviewed ``verdict``s of the rule or the judge people contradict."""
        right, wrong = self._found[by, verdict, "right"], self._found[by, verdict, "wrong"]
        count, of = (wrong if verdict == "right" else right), right + wrong
        if not of:
            return {"reviewed": 0, "false": 0, "share": None, "low": None, "high": None}
        low, high = wilson_interval(count, of, CONFIDENCE)
        return {
            "reviewed": of,
            "false": count,
            "share": round(count / of, 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }

    def log_summary(self) -> None:
        """One line about the reviews that count, and one for each kind that does not."""
        if not self._lines["lines"]:
            return
        log.info(
            "filter: people reviewed %d answers, %d verdicts changed",
            self._answers["answers"],
            self._answers["changed"],
        )
        if self._lines["outdated"]:
            log.warning("filter: %d reviews are of an older text and were not applied", self._lines["outdated"])
        if self._waiting:
            ids = sorted(self._waiting)
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            log.warning("filter: reviews of answers that do not exist: %s%s", ", ".join(ids[:SHOWN]), more)


def _contradictory(reviews: list[Review]) -> bool:
    """Whether one person's last word is right and another's wrong."""
    last = {review.who: review.verdict for review in sorted(reviews, key=lambda review: review.when)}
    return {"right", "wrong"} <= set(last.values())
