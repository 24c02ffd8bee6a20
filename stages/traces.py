"""Read traces that others published: questions with a model's reasoning and response, as rows for ``convert``.

In:   a table (``traces.NAME``): a file, a dataset of a hub or of ModelScope, or a preset of stages/trace_presets
          {"question": "…", "deepseek_thinking_trajectory": "…", "deepseek_attempt": "…", …}
          {"problem": "…", "generations": ["<think>…</think>…", "<think>…"], "answer": "72", …}
          {"conversations": [{"from": "user", "value": "…"}, {"from": "assistant", "value": "<|begin_of_thought|>…"}]}
      data/heldout.jsonl         whose questions are not trained on
Out:  data/NAME.jsonl            {"id": "NAME-0", "question": "…", "answer": "72", "solution": "…",
                                  "source": "s1K-1.1/train", "sample": 0, "reasoning": "…", "response": "…",
                                  "finish_reason": "unknown", "model": "deepseek-r1", "usage": {}}
      data/NAME_left_out.jsonl   {"id": "NAME-4", "row": 4, "place": "a.jsonl:5", "reason": "cut_off", …}
      metrics/traces/NAME.json   the counts, and of each reason the numbers of the first ten rows

``answer`` is null where the table has no gold answer. An answer is left out for the first of these reasons that holds:

    no_question, no_id, …_not_text       the row holds no question, or the wrong type
    not_messages, turns_do_not_alternate, …    the conversation cannot be read (stages/lib/tables/messages.py)
    not_correct                          its authors call it wrong
    no_reasoning, no_response, cut_off   one of the two is missing, or the text ends before its closing tag
    in_heldout, contaminated             the question is held out, or shares n words with a benchmark's
    duplicate                            the question is in another row already
    not_selected                         the question has ``samples_per_question`` answers already

Rows are read one at a time, up to the ``first`` questions. Control tokens are ``convert``'s subject. ``filter-traces``
marks the answers of the sets that ``filter_traces`` names: data/NAME_filtered.jsonl.

Alone:  python -m stages.traces --name s1k --heldout H.jsonl --rows R.jsonl --left-out L.jsonl --metrics M.json
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.hygiene.contamination import (
    BenchmarkIndex,
    benchmark_hits,
    benchmark_indexes,
    contamination_counts,
)
from stages.lib.hygiene.duplicates import normalised
from stages.lib.hygiene.seen import Seen
from stages.lib.params import Params, ParamsError, Traces, TracesPreset, load_params, trace_preset_named
from stages.lib.rows import DataError, read_rows, write_json, writing_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import Question
from stages.lib.tables.columns import NAMED_ROWS, SeenColumns, fits
from stages.lib.tables.opening import Table, opened, opened_preset
from stages.lib.traces.reading import Place, TraceSchema, left_out, read_row
from stages.lib.traces.rows import LeftOutTrace

log = logging.getLogger("distillery.traces")

Answer = Distilled | LeftOutTrace


@click.command(help="Read published questions, reasoning and responses as distilled rows; leave out what is unusable.")
@click.option("--name", required=True, help="The entry of traces in params.yaml.")
@click.option("--heldout", "heldout_path", type=READ, required=True, help="Held-out questions, read.")
@click.option("--rows", "rows_path", type=WRITE, required=True, help="Distilled rows, written.")
@click.option("--left-out", "left_out_path", type=WRITE, required=True, help="Answers left out, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--eval-data", type=READ, help="The folder of downloaded benchmarks, read if params say so.")
@params_option
@one_line_errors
def main(
    name: str,
    heldout_path: Path,
    rows_path: Path,
    left_out_path: Path,
    metrics_path: Path,
    eval_data: Path | None,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    entry = entry_of(name, params)
    table, schema = table_of(name, entry)
    indexes = benchmark_indexes(params.collect.contamination, eval_data)
    sieve = Sieve(entry, heldout_ids(heldout_path), indexes)
    tally = Tally()
    most = params.run.shard_rows
    with writing_rows(rows_path, most) as rows, writing_rows(left_out_path, most) as others:
        for answer in answers(table, schema, entry, sieve, tally):
            tally.add(answer)
            (rows if isinstance(answer, Distilled) else others).add(answer)
        tally.check(name)
    contamination = contamination_counts(sieve.hits, indexes, params.collect.contamination)
    write_json(metrics_path, tally.metrics() | {"contamination": contamination})
    log.info("traces: %s: %d rows, %d left out (%s)", name, tally.kept, tally.left_out_count, tally.reasons())


def entry_of(name: str, params: Params) -> Traces:
    """The entry of params."""
    if name not in params.traces:
        raise ParamsError(f"params.yaml: traces: no entry '{name}'. Known: {', '.join(params.traces) or 'none'}.")
    return params.traces[name]


def table_of(name: str, entry: Traces) -> tuple[Table, TraceSchema]:
    """The table, and how it is read."""
    source, key = entry.source, f"traces.{name}.source"
    if isinstance(source, TracesPreset):
        preset = trace_preset_named(source.name, key)
        table = opened_preset(source, preset, key)
        return table, TraceSchema(name, _origin(table), preset.columns, preset.gold, preset.model)
    table = opened(source, key)
    return table, TraceSchema(name, _origin(table), source.columns, source.gold, source.model)


def _origin(table: Table) -> str:
    return f"{table.name}/{table.split}"


def heldout_ids(path: Path) -> Seen:
    """The ids of the held-out questions by their normalised texts."""
    found = Seen()
    for row in read_rows(path, Question, "Run 'dvc repro collect' to rebuild it."):
        found.add(normalised(row.user_text), row.id)
    return found


def answers(table: Table, schema: TraceSchema, entry: Traces, sieve: "Sieve", tally: "Tally") -> Iterator[Answer]:
    """Each answer of the table, kept or left out, up to the last one that is needed."""
    key = f"traces.{schema.name}"
    seen = SeenColumns(wanted_columns(schema, entry))
    for number, (text, row) in enumerate(tqdm(table.rows(), desc=f"traces {schema.name}", unit=" rows", disable=None)):
        tally.table_rows += 1
        seen.add(row)
        if not fits(row, entry.where):
            tally.not_where += 1
            continue
        place = Place(number, text)
        yield from sieve.sifted(read_row(row, place, schema), place)
        if sieve.has_enough:
            break
    if not tally.table_rows:
        raise DataError(f"{key}: {schema.source} has no rows. Look at what {key}.source.path names.")
    seen.require(f"{key}: {schema.source}", f"columns of {key}.source and {key}.where")


def wanted_columns(schema: TraceSchema, entry: Traces) -> list[str]:
    """The columns that must be there."""
    found = schema.columns.model_dump(exclude={"form", "system"})
    names = [name for value in found.values() for name in (value if isinstance(value, list) else [value])]
    return [name for name in (*names, *entry.where) if name]


class Sieve:
    """Leaves out the answers to questions that are held out, a benchmark's or there already, and those too many."""

    def __init__(self, entry: Traces, heldout: Seen, indexes: Sequence[BenchmarkIndex]) -> None:
        self._entry, self._heldout, self._indexes = entry, heldout, indexes
        self._ids = Seen()  # of the kept questions, by their normalised texts
        self._places = Seen()  # of the kept questions, by their ids
        self.hits: Counter[str] = Counter()  # questions that share words with each benchmark

    @property
    def has_enough(self) -> bool:
        """Whether as many questions are kept as params ask for."""
        return self._entry.first is not None and len(self._ids) >= self._entry.first

    def sifted(self, answers: list[Answer], place: Place) -> Iterator[Answer]:
        """The answers of one row, in their order; all of them are to one question."""
        usable = [answer for answer in answers if isinstance(answer, Distilled)]
        why = self._why(usable[0], place) if usable else {}
        kept = {answer.key for answer in usable[: self._entry.samples_per_question]}
        for answer in answers:
            if isinstance(answer, LeftOutTrace):
                yield answer
            elif why:
                yield _left_out(answer, place, **why)
            elif answer.key in kept:
                yield answer
            else:
                yield _left_out(answer, place, reason="not_selected")

    def _why(self, answer: Distilled, place: Place) -> dict[str, Any]:
        """Why the question is left out; empty where it is kept. DataError where another one has its id."""
        text = normalised(answer.user_text)
        for asked in (text, *map(normalised, answer.user_turns)):
            if same_as := self._heldout.get(asked):
                return {"reason": "in_heldout", "same_as": same_as}
        # before the duplicates, so that same_as is always the id of a question that was kept
        if hits := benchmark_hits(answer.user_text, self._indexes):
            self.hits.update(hit.benchmark for hit in hits)
            return {"reason": "contaminated", "benchmark_hits": hits}
        if same_as := self._ids.get(text):
            return {"reason": "duplicate", "same_as": same_as}
        if other := self._places.get(answer.id):
            raise DataError(f"{place.text}: the id '{answer.id}' is that of {other} too. Remove columns.id.")
        self._places.add(answer.id, place.text)
        self._ids.add(text, answer.id)
        return {}


def _left_out(answer: Distilled, place: Place, reason: str, **more: Any) -> LeftOutTrace:
    texts = {"reasoning": answer.reasoning, "response": answer.response}
    return left_out(place, reason, answer.id, answer.sample, answer.question, **texts, **more)


@dataclass
class Tally:
    """The counts: ``in = rows + left_out``, in answers; the rows of the table are counted beside them."""

    table_rows: int = 0
    not_where: int = 0
    kept: int = 0
    _questions: int = 0
    _last_question: str = ""
    _no_gold: int = 0
    _models: Counter[str] = field(default_factory=Counter)
    _left_out: Counter[str] = field(default_factory=Counter)
    _first_rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # of each reason

    def add(self, answer: Answer) -> None:
        """Count an answer. Those to one question are adjacent."""
        if isinstance(answer, LeftOutTrace):
            self._left_out[answer.reason] += 1
            rows = self._first_rows[answer.reason]
            if answer.row not in rows and len(rows) < NAMED_ROWS:
                rows.append(answer.row)
            return
        self.kept += 1
        self._questions += answer.id != self._last_question
        self._last_question = answer.id
        self._no_gold += answer.answer is None
        self._models[answer.model] += 1

    @property
    def left_out_count(self) -> int:
        """How many answers were left out."""
        return self._left_out.total()

    def check(self, name: str) -> None:
        """DataError where nothing is kept."""
        if not self.kept:
            raise DataError(
                f"traces.{name}: {self.table_rows} rows, and no answer of them is kept ({self.reasons()}; "
                f"{self.not_where} not in where). Check columns and where."
            )

    def metrics(self) -> dict[str, Any]:
        """All counts; ``rows`` of a reason are the numbers of the first rows in the table."""
        return {
            "table_rows": self.table_rows,
            "not_where": self.not_where,
            "in": self.kept + self.left_out_count,
            "rows": self.kept,
            "questions": self._questions,
            "without_gold": self._no_gold,
            "models": dict(sorted(self._models.items())),
            "left_out": {
                reason: {"count": count, "rows": self._first_rows[reason]}
                for reason, count in sorted(self._left_out.items())
            },
        }

    def reasons(self) -> str:
        """``46 cut_off, 3 no_reasoning``."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self._left_out.items())) or "none"


if __name__ == "__main__":
    main()
