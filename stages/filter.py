"""Keep the right answers: each response's final answer against the gold one, by rule, by a judge, or by both.

In:   data/distilled.jsonl, the judge's prompt file
Out:  data/filtered.jsonl        the row + {"prediction": "72", "verdict": "right", "decided_by": "rule:label",
                                 "rule_verdict": "right", "judge_verdict": null}
      data/rejected.jsonl        the same + {"reason": "wrong_answer"}
      data/control.jsonl         distilled rows, as many dropped as by the filter but at random (seeded)
      data/disagreements.jsonl   judged rows for people to read + {"kind": "gold_suspect"}
      metrics/filter.json        the counts, the table of rule against judge, and what that says of all rows

A row passes through one at a time, so a million take no more memory than ten thousand; where a judge is asked, the
file is gone through once more for each of its rounds. docs/filter.md shows the strategies.

Alone:  python -m stages.filter --distilled D.jsonl --filtered F.jsonl --rejected R.jsonl --control C.jsonl
        --disagreements X.jsonl --metrics M.json
"""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import compress, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import click

from stages.lib.answers import Verdict, rule_verdict
from stages.lib.command import READ, WRITE, one_line_errors, params_option, project_root
from stages.lib.params import Filter, Judge, Run, audit_of, judge_of, load_params
from stages.lib.rows import DataError, read_rows, write_json, write_rows, writing
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.filtered import Disagreement, Filtered, Rejected
from stages.lib.store.answer_store import AnswerStore, default_path, open_store

if TYPE_CHECKING:
    from stages.lib.judge.judging import Judging

log = logging.getLogger("distillery.filter")

REBUILD = "Run 'dvc repro distill' to rebuild it."
CONFIDENCE = 0.95  # of the intervals of what the judge contradicts


@click.command(help="Judge every answer, keep the right ones, say of each other why it was dropped.")
@click.option("--distilled", "distilled_path", type=READ, required=True, help="The teacher's answers, read.")
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
    filtered_path: Path,
    rejected_path: Path,
    control_path: Path,
    disagreements_path: Path,
    metrics_path: Path,
    store_path: Path | None,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    rows = Rows(distilled_path)
    tally = Tally()
    bench = Bench(params.filter)
    with ExitStack() as stack:
        stack.callback(bench.write_run_facts)  # what was paid is said of a run that was stopped, too
        if judge := judge_of(params.filter):
            bench.call_the_judge(rows, judge, params.run, stack.enter_context(open_store(store_path or default_path())))
        kept_file, rejected_file, disagreements_file = (
            stack.enter_context(writing(path)) for path in (filtered_path, rejected_path, disagreements_path)
        )
        for row in decided(rows, bench, params.filter):
            tally.add(row)
            _write(rejected_file if isinstance(row, Rejected) else kept_file, row)
            _write(disagreements_file, *disagreements(row))
        tally.check(distilled_path)
    write_rows(control_path, random_control(rows, tally.rows, tally.kept, params.filter.control_seed))
    write_json(metrics_path, tally.metrics())
    log.info("filter: kept %d of %d (%s)", tally.kept, tally.rows, tally.reasons())


class Rows:
    """The distilled rows, read from the file as often as they are gone through."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Distilled]:
        return read_rows(self._path, Distilled, REBUILD)


class Bench:
    """Where a row gets its verdict: the rule's, the judge's, and which of them counts."""

    def __init__(self, params: Filter) -> None:
        self._params = params
        self._share, self._seed = audit_of(params)
        self._judge: Judging | None = None
        self._store: AnswerStore | None = None

    def call_the_judge(self, rows: Iterable[Distilled], params: Judge, run: Run, store: AnswerStore) -> None:
        """Have every row marked that the strategy, or the audit, wants marked; the replies are in the store then."""
        from stages.lib.judge.judging import Judging

        wanted = bytearray(self.asks_the_judge(row, _by_rule(row)) for row in rows)  # a byte a row: read once more
        self._judge, self._store = Judging(params, run), store
        self._judge.ask(lambda: compress(rows, wanted), store)

    def asks_the_judge(self, row: Distilled, rule: Verdict) -> bool:
        """Whether the judge is asked about a row."""
        if self._params.strategy in ("judge", "both"):
            return True
        if self._params.strategy == "rule_then_judge" and rule.verdict == "unsure":
            return True
        return rule.verdict != "unsure" and _draw(f"{self._seed}:{row.key}") < self._share

    def judged(self, row: Distilled) -> Filtered:
        """The row with both verdicts and the one that counts."""
        rule = _by_rule(row)
        mark = None
        if self._judge and self._store is not None and self.asks_the_judge(row, rule):
            mark = self._judge.mark(row, self._store)
        verdict, decided_by = self._final(rule, mark)
        return Filtered(
            **row.model_dump(),
            prediction=rule.prediction,
            verdict=verdict,
            decided_by=decided_by,
            rule_verdict=rule.verdict,
            judge_verdict=mark,
        )

    def _final(self, rule: Verdict, mark: Any) -> tuple[Any, str]:
        by_rule = f"rule:{rule.rule}"
        strategy = self._params.strategy
        if strategy == "judge":
            return mark, "judge"
        if strategy in ("rule", "rule_audited") or mark is None:
            return rule.verdict, by_rule
        if rule.verdict == "unsure":
            return mark, "judge"
        if strategy == "both" and mark not in (rule.verdict, "unsure"):
            return "unsure", "disagreement"
        return rule.verdict, by_rule

    def write_run_facts(self) -> None:
        """What the judge cost this time, and what the store saved; no stage depends on it."""
        if self._judge:
            write_json(project_root() / "metrics" / "runs" / "filter.json", self._judge.run_facts())


def _by_rule(row: Distilled) -> Verdict:
    return rule_verdict(row.question, row.response, row.answer)


def _draw(text: str) -> float:
    """A number from 0 to below 1 that a text alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def decided(rows: Iterable[Distilled], bench: Bench, params: Filter) -> Iterator[Filtered]:
    """Every row in its order, as it is kept (``Filtered``) or ``Rejected``; a question's samples stand together."""
    for _, samples in groupby((bench.judged(row) for row in rows), key=lambda row: row.id):
        yield from chosen(list(samples), params)


def chosen(samples: list[Filtered], params: Filter) -> Iterator[Filtered]:
    """Of one question's answers, those to keep as they are, each other one as ``Rejected``."""
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
    reason: Any = {"right": "not_selected", "wrong": "wrong_answer", "unsure": "no_answer_read"}[row.verdict]
    if row.verdict == "unsure" and params.on_unsure == "keep":
        reason = "not_selected"
    elif row.verdict == "unsure" and not row.decided_by.startswith("rule:"):
        reason = {"judge": "no_mark_read", "disagreement": "disagreement"}[row.decided_by]
    return Rejected(**row.model_dump(), reason=reason)


def disagreements(row: Filtered) -> Iterator[Disagreement]:
    """The row once more, if rule and judge contradict each other or, together, the gold answer."""
    kind = _kind_of_disagreement(row)
    if kind:
        yield Disagreement(**row.model_dump(include=set(Filtered.model_fields)), kind=kind)


def _kind_of_disagreement(row: Filtered) -> Literal["rule_against_judge", "gold_suspect"] | None:
    verdicts = {row.rule_verdict, row.judge_verdict}
    if verdicts == {"right", "wrong"}:
        return "rule_against_judge"
    return "gold_suspect" if verdicts == {"wrong"} else None


def random_control(rows: Iterable[Distilled], total: int, size: int, seed: int) -> Iterator[Distilled]:
    """``size`` of ``total`` rows drawn at random, in their order: the filter's effect without its judgement.

    Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S): no row needs to be held.
    """
    draw = random.Random(seed)
    for left, row in zip(range(total, 0, -1), rows, strict=True):
        if draw.random() * left < size:
            size -= 1
            yield row


class Tally:
    """The counts of the rows so far: ``in = kept + rejected``."""

    def __init__(self) -> None:
        self.rows = 0
        self.kept = 0
        self._kept_unsure = 0
        self._reasons: Counter[str] = Counter()
        self._decided_by: Counter[str] = Counter()
        self._table: Counter[tuple[str, str]] = Counter()
        self._kinds: Counter[str | None] = Counter()
        self._of_question: Counter[str] = Counter()  # of the question whose answers come now
        self._pass_rates: Counter[str] = Counter()
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
        self._table[row.rule_verdict, row.judge_verdict or "not_asked"] += 1
        self._kinds[_kind_of_disagreement(row)] += 1
        if row.id != self._question:
            self._end_question()
            self._question = row.id
        self._of_question[row.verdict] += 1

    def check(self, path: Path) -> None:
        """DataError where there was nothing, or nothing to be kept."""
        if not self.rows:
            raise DataError(f"{path}: there is nothing in it. {REBUILD}")
        if not self.kept:
            raise DataError(f"{path}: not one of {self.rows} answers is to be kept. Look at their 'response' fields.")

    def metrics(self) -> dict[str, Any]:
        """All counts; ``pass_rates`` says how many questions have so many right answers of so many."""
        self._end_question()
        asked = sum(count for (_, judge), count in self._table.items() if judge != "not_asked")
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
            "judge_contradicts": contradicted(self._table) if asked else None,
            "judge_asked": asked,
            "judge_calls_saved": self.rows - asked,
            "rule_against_judge": self._kinds["rule_against_judge"],
            "gold_suspect": self._kinds["gold_suspect"],
            "pass_rates": dict(sorted(self._pass_rates.items())),
            "control": self.kept,
        }

    def reasons(self) -> str:
        """``46 wrong_answer, 3 no_answer_read``."""
        return ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common()) or "none dropped"

    def _end_question(self) -> None:
        if self._of_question:
            self._pass_rates[f"{self._of_question['right']}/{self._of_question.total()}"] += 1
        self._of_question.clear()


def contradicted(table: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Of the rule's right and of its wrong verdicts, the share that the judge contradicts, with its interval.

    ``table`` counts by the rule's verdict and the judge's. A share is of the verdicts that the judge ``marked`` right
    or wrong, and None where there is none. The interval is Clopper and Pearson's, which holds at least as often as it
    says for any share: a rule's errors are rare, and near 0 approximate intervals hold less often.
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


def _write(file: BinaryIO, *rows: Filtered) -> None:
    for row in rows:
        file.write(row.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    main()
