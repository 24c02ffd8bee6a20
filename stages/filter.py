"""Keep the right answers: by gold answers (rule, judge or both), by the majority of the samples, or by a rubric.

In:   data/distilled.jsonl, data/reviews.jsonl (people's verdicts, which overrule all others), the judge's prompt file,
      the phrases of refusals
Out:  data/filtered.jsonl        the row + {"prediction": "72", "verdict": "right", "decided_by": "rule:label",
                                 "rule_verdict": "right", "judge_verdict": null}
      data/rejected.jsonl        the same + {"reason": "wrong_answer"}
      data/control.jsonl         distilled rows, as many dropped as by the filter but at random (seeded)
      data/disagreements.jsonl   judged rows for people to read + {"kind": "gold_suspect"}
      metrics/filter.json        the counts, the table of rule against judge, how often the judge contradicts

Rows are read one at a time, so a million rows take no more memory than ten thousand. Where a judge is asked, the file
is read once more for each of its rounds. docs/filter.md explains the strategies and the checks before them.

Alone:  python -m stages.filter --distilled D.jsonl --reviews V.jsonl --filtered F.jsonl --rejected R.jsonl
        --control C.jsonl --disagreements X.jsonl --metrics M.json
"""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.deciders import Deciders
from stages.lib.deciders.checking import PREFIX
from stages.lib.params import Filter, RubricFilter, load_params
from stages.lib.reviews.applying import DECIDED_BY, Reviews
from stages.lib.rows import DataError, RowsOf, write_json, write_rows, writing_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Disagreement, Filtered, Rejected
from stages.lib.store.answer_store import default_path, open_store

log = logging.getLogger("distillery.filter")

REBUILD = "Run 'dvc repro distill' to rebuild it."
CONFIDENCE = 0.95  # of the intervals in judge_contradicts


@click.command(help="Judge every answer, keep the right ones, and state why each other one was dropped.")
@click.option("--distilled", "distilled_path", type=READ, required=True, help="The teacher's answers, read.")
@click.option("--reviews", "reviews_path", type=READ, help="People's verdicts, read  [default: none]")
@click.option("--filtered", "filtered_path", type=WRITE, required=True, help="Right answers, written.")
@click.option("--rejected", "rejected_path", type=WRITE, required=True, help="Dropped answers, written.")
@click.option("--control", "control_path", type=WRITE, required=True, help="The random control, written.")
@click.option("--disagreements", "disagreements_path", type=WRITE, required=True, help="Rows to look at, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--store", "store_path", type=WRITE, help="The judge's replies  [default: data/store/answers.jsonl]")
@params_option
@one_line_errors
def main(
    distilled_path: Path,
    reviews_path: Path | None,
    filtered_path: Path,
    rejected_path: Path,
    control_path: Path,
    disagreements_path: Path,
    metrics_path: Path,
    store_path: Path | None,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    rows, most = RowsOf(distilled_path, Distilled, REBUILD), params.run.shard_rows
    reviews = Reviews.of(reviews_path)
    deciders = Deciders(params.filter, params.train.student, params.run.engine)
    tally = Tally(has_judge=deciders.judge is not None, compares_gold=not isinstance(params.filter, RubricFilter))
    with ExitStack() as stack:
        stack.callback(write_run_facts, deciders, distilled_path.stem)  # a run that was stopped states its cost, too
        if deciders.judge:
            deciders.ask_judge(rows, params.run, stack.enter_context(open_store(store_path or default_path())))
        kept, rejected, for_people = (
            stack.enter_context(writing_rows(path, most)) for path in (filtered_path, rejected_path, disagreements_path)
        )
        for row in decide_rows(rows, deciders, reviews, params.filter):
            tally.add(row)
            (rejected if isinstance(row, Rejected) else kept).add(row)
            for disagreement in disagreements(row) if tally.compares_gold else ():
                for_people.add(disagreement)
        tally.check(distilled_path)
    write_rows(control_path, random_control(rows, tally.rows, tally.kept, params.filter.control_seed), most)
    write_json(metrics_path, tally.metrics() | {"reviews": reviews.counts()})
    reviews.log_summary()
    log.info("filter: kept %d of %d (%s)", tally.kept, tally.rows, tally.reasons())


def write_run_facts(deciders: Deciders, rows: str) -> None:
    """Write what the judge cost in this run and what the store saved; no stage depends on this file."""
    if deciders.judge and deciders.judge.run_facts:
        name = "filter.json" if rows == "distilled" else f"filter-{rows}.json"
        write_json(project_root() / "metrics" / "runs" / name, deciders.judge.run_facts())


def decide_rows(rows: Iterable[Distilled], deciders: Deciders, reviews: Reviews, params: Filter) -> Iterator[Filtered]:
    """Every row in its order: kept (``Filtered``) or ``Rejected``. The samples of one question are adjacent."""
    for answers in deciders.decided(rows):
        yield from select_answers(reviews.applied(answers), params)


def select_answers(samples: list[Filtered], params: Filter) -> Iterator[Filtered]:
    """The answers to one question: those to keep unchanged, the others as ``Rejected``."""
    good = [row for row in samples if row.verdict == "right"]
    if params.on_unsure == "keep" and (not good or params.select == "all_correct"):
        good += [row for row in samples if row.verdict == "unsure"]
    if good and params.select == "first_correct":
        good = good[:1]
    elif good and params.select == "shortest_correct":
        good = [min(good, key=lambda row: len(row.reasoning) + len(row.response))]
    keys = {row.key for row in good}
    return (row if row.key in keys else _rejected(row, params) for row in samples)


def _rejected(row: Filtered, params: Filter) -> Rejected:
    return Rejected(**row.model_dump(), reason=_reason(row, params))


def _reason(row: Filtered, params: Filter) -> Any:
    if row.verdict == "unfit":
        return row.decided_by.removeprefix(PREFIX)
    if row.verdict == "right" or (row.verdict == "unsure" and params.on_unsure == "keep"):
        return "not_selected"
    if row.decided_by == DECIDED_BY:
        return f"reviewed_{row.verdict}"
    if row.verdict == "wrong":
        return {"majority": "not_the_majority", "rubric": "rubric_not_met"}.get(row.decided_by, "wrong_answer")
    if row.majority and row.majority.value is None:
        return "no_majority"
    named = {"judge": "no_mark_read", "rubric": "no_mark_read", "disagreement": "disagreement", "no_gold": "no_gold"}
    return named.get(row.decided_by, "no_answer_read")


def disagreements(row: Filtered) -> Iterator[Disagreement]:
    """The row as a ``Disagreement``, if rule and judge contradict each other, or both contradict the gold answer."""
    kind = _kind_of_disagreement(row)
    if kind:
        yield Disagreement(**row.model_dump(include=set(Filtered.model_fields)), kind=kind)


def _kind_of_disagreement(row: Filtered) -> Literal["rule_against_judge", "gold_suspect"] | None:
    verdicts = {row.rule_verdict, row.judge_verdict}
    if verdicts == {"right", "wrong"}:
        return "rule_against_judge"
    return "gold_suspect" if verdicts == {"wrong"} else None


def random_control(rows: Iterable[Distilled], total: int, size: int, seed: int) -> Iterator[Distilled]:
    """``size`` of ``total`` rows, drawn at random, in their order: a control of the same size as the filtered set.

    Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S): no row is kept in memory.
    """
    draw = random.Random(seed)
    for left, row in zip(range(total, 0, -1), rows, strict=True):
        if draw.random() * left < size:
            size -= 1
            yield row


class Tally:
    """The counts of the rows so far: ``in = kept + rejected``.

    ``compares_gold``: the judge, if there is one, compares with gold answers, as the rule does; a rubric's does not.
    """

    def __init__(self, has_judge: bool, compares_gold: bool) -> None:
        self._has_judge = has_judge
        self.compares_gold = compares_gold
        self.rows = 0
        self.kept = 0
        self._kept_unsure = 0
        self._reasons: Counter[str] = Counter()
        self._decided_by: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._table: Counter[tuple[str, str]] = Counter()
        self._asked = 0
        self._majority = MajorityTally()
        self._scores: Counter[float | None] = Counter()
        self._marks: Counter[str] = Counter()  # by a rubric
        self._kinds: Counter[str | None] = Counter()
        self._of_question: Counter[str] = Counter()  # the verdicts on the current question
        self._right_shares: Counter[str] = Counter()
        self._question: str | None = None

    def add(self, row: Filtered) -> None:
        """Count a kept or a rejected row."""
        self.rows += 1
        if isinstance(row, Rejected):
            self._reasons[row.reason] += 1
        else:
            self.kept += 1
            self._kept_unsure += row.verdict == "unsure"
        self._decided_by[row.decided_by] += 1
        self._verdicts[row.verdict] += 1
        self._asked += row.judge_verdict is not None
        if row.rule_verdict and self.compares_gold:  # the rule says nothing without a gold answer
            self._table[row.rule_verdict, row.judge_verdict or "not_asked"] += 1
        if self.compares_gold:
            self._kinds[_kind_of_disagreement(row)] += 1
        elif row.judge_verdict:
            self._marks[row.judge_verdict] += 1
            self._scores[row.score] += 1
        self._majority.add(row)
        if row.id != self._question:
            self._end_question()
            self._question = row.id
        self._of_question[row.verdict] += 1

    def check(self, path: Path) -> None:
        """DataError where there were no rows, or none to keep."""
        if not self.rows:
            raise DataError(f"{path}: there is nothing in it. {REBUILD}")
        if self._reasons["no_gold"] and self._reasons["no_gold"] + self._verdicts["unfit"] == self.rows:
            raise DataError(
                f"{path}: no row that passes the checks has a gold answer, and the strategy needs one. Name the answer "
                "in the columns of the source, or set filter.strategy to majority or judge_rubric."
            )
        if not self.kept:
            raise DataError(f"{path}: none of {self.rows} answers is kept. Look at their 'response' fields.")

    def metrics(self) -> dict[str, Any]:
        """All counts; ``questions_by_right_share`` as ``{"1/2": 3}``: one of two answers was right, to 3 questions."""
        self._end_question()
        return {
            "in": self.rows,
            "kept": self.kept,
            "kept_unsure": self._kept_unsure,
            "kept_share": round(self.kept / self.rows, 4),
            "rejected": self._reasons.total(),
            "rejected_by_reason": dict(sorted(self._reasons.items())),
            "decided_by": dict(sorted(self._decided_by.items())),
            "rule_by_judge": {
                rule: {judge: count for (found, judge), count in sorted(self._table.items()) if found == rule}
                for rule in ("right", "wrong", "unsure")
            },
            "judge_contradicts": contradicted(self._table) if self._table and self._asked else None,
            "judge_asked": self._asked,
            "judge_calls_saved": self.rows - self._asked if self._has_judge else None,
            "rule_against_judge": self._kinds["rule_against_judge"],
            "gold_suspect": self._kinds["gold_suspect"],
            "questions_by_right_share": dict(sorted(self._right_shares.items())),
            "control": self.kept,
            **self._majority.metrics(),
            **self._rubric_metrics(),
        }

    def _rubric_metrics(self) -> dict[str, Any]:
        if not self._marks:
            return {}
        scores = sorted((score, count) for score, count in self._scores.items() if score is not None)
        counts = {mark: self._marks[mark] for mark in ("right", "wrong", "unsure")}
        return {"rubric": counts | {"scores": {f"{score:g}": count for score, count in scores}}}

    def reasons(self) -> str:
        """``46 wrong_answer, 3 no_answer_read``."""
        return ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common()) or "none dropped"

    def _end_question(self) -> None:
        if self._of_question:
            self._right_shares[f"{self._of_question['right']}/{self._of_question.total()}"] += 1
        self._of_question.clear()


class MajorityTally:
    """The counts of the strategy ``majority``, by question and by answer."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._shares: Counter[str] = Counter()  # the questions by the largest cluster's share
        self._decided = 0
        self._table: Counter[tuple[str, str]] = Counter()  # the answers by both verdicts

    def add(self, row: Filtered) -> None:
        """Count a row that the majority decided about, and its question once."""
        if row.majority is None:
            return
        if row.id != self._last:
            self._last = row.id
            self._decided += row.majority.value is not None
            self._shares[f"{row.majority.share:.2f}"] += 1
        if row.rule_verdict and row.decided_by == "majority":  # and no person decided
            self._table[row.verdict, row.rule_verdict] += 1

    def metrics(self) -> dict[str, Any]:
        """Nothing without the strategy. ``by_gold["right"]["wrong"]``: in the majority, wrong by the gold answer."""
        if self._last is None:
            return {}
        verdicts = ("right", "wrong", "unsure")
        found = {
            "questions": self._shares.total(),
            "decided": self._decided,
            "undecided": self._shares.total() - self._decided,
            "largest_share": dict(sorted(self._shares.items())),
        }
        by_gold = {ours: {gold: self._table[ours, gold] for gold in verdicts} for ours in verdicts}
        return {"majority": found | ({"by_gold": by_gold} if self._table else {})}


def contradicted(table: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """The share of the rule's right verdicts, and of its wrong ones, that the judge contradicts, with its interval.

    ``table`` counts rows by the rule's verdict and the judge's. A share is taken over the verdicts that the judge
    ``marked`` right or wrong; it is None where there are none. The interval is Clopper and Pearson's, whose coverage is
    at least the stated one for any share. A rule's errors are rare, and near 0 approximate intervals cover less.
    """
    found = {}
    for verdict, opposite in (("right", "wrong"), ("wrong", "right")):
        marked = sum(table.get((verdict, mark), 0) for mark in ("right", "wrong"))
        found[verdict] = {
            "verdicts": sum(count for (rule, _), count in table.items() if rule == verdict),
            "marked": marked,
            "contradicted": table.get((verdict, opposite), 0),
            **_share(table.get((verdict, opposite), 0), marked),
        }
    return {"confidence": CONFIDENCE, "interval": "Clopper-Pearson", **found}


def _share(count: int, of: int) -> dict[str, float | None]:
    from scipy.stats import binomtest

    if not of:
        return {"share": None, "low": None, "high": None}
    interval = binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return {"share": round(count / of, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


if __name__ == "__main__":
    main()
