"""Collect s1K-1.1: a thousand hard questions with published answers of DeepSeek-R1, as rows for ``convert``.

In:   simplescaling/s1K-1.1 (``collect_s1k.NAME``), from a hub, from ModelScope, or from a local .parquet or .jsonl
          {"question": "…", "solution": "…", "deepseek_thinking_trajectory": "…", "deepseek_attempt": "…", …}
Out:  data/NAME.jsonl            {"id": "s1k-0", "question": "…", "answer": "…", "solution": "…", "source": "s1K-1.1",
                                  "sample": 0, "reasoning": "…", "response": "…", "finish_reason": "stop",
                                  "model": "deepseek-r1", "usage": {}}
      data/NAME_left_out.jsonl   + {"reason": "contaminated", "same_as": null, "benchmark_hits": [{…}]}
      metrics/collect_s1k/NAME.json   the counts

What s1K does not state:

    the final value          ``answer`` repeats the solution; these rows pass no filter, so nothing reads it
    the end, the tokens      ``finish_reason`` is assumed to be "stop", ``usage`` is empty
    some reasoning, answers  ``convert`` drops such a row

As in ``collect``, a question that shares words with a benchmark (``collect.contamination``) or repeats another one is
left out. The held-out set is not compared.

Alone:  python -m stages.collect_s1k --name s1k --rows R.jsonl --left-out L.jsonl --metrics M.json
"""

import codecs
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.hygiene.contamination import (
    BenchmarkIndex,
    benchmark_hits,
    benchmark_indexes,
    contamination_counts,
)
from stages.lib.hygiene.duplicates import normalised
from stages.lib.params import Params, ParamsError, S1k, load_params
from stages.lib.rows import DataError, write_json, write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import BenchmarkHit

log = logging.getLogger("distillery.collect")

Reason = Literal["duplicate", "contaminated"]


class _SourceRow(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    question: str = Field(min_length=1)
    solution: str = Field(min_length=1)
    deepseek_thinking_trajectory: str | None
    deepseek_attempt: str | None


class LeftOutAnswer(Distilled):
    """A row that was left out: as in ``collect``, ``same_as`` is the id of the kept row that it repeats."""

    reason: Reason
    same_as: str | None
    benchmark_hits: list[BenchmarkHit]


@dataclass
class Collected:
    """The rows by where they go."""

    rows: list[Distilled] = field(default_factory=list)
    left_out: list[LeftOutAnswer] = field(default_factory=list)


@click.command(help="Collect s1K-1.1 as distilled rows, without duplicates and benchmark questions.")
@click.option("--name", required=True, help="The entry of collect_s1k in params.yaml.")
@click.option("--rows", "rows_path", type=WRITE, required=True, help="Distilled rows, written.")
@click.option("--left-out", "left_out_path", type=WRITE, required=True, help="Rows left out, written.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@click.option("--eval-data", type=READ, help="The folder of downloaded benchmarks, read if params say so.")
@params_option
@one_line_errors
def main(
    name: str, rows_path: Path, left_out_path: Path, metrics_path: Path, eval_data: Path | None, params_path: Path
) -> None:
    params = load_params(params_path)
    key, source = entry_of(name, params)
    indexes = benchmark_indexes(params.collect.contamination, eval_data)
    collected = separate(distilled_rows(source, key), indexes)
    if not collected.rows:
        raise DataError(f"{source.path}: {len(collected.left_out)} rows, and none of them is kept. {advice(key)}")
    hits = [hit for row in collected.left_out for hit in row.benchmark_hits]
    contamination = contamination_counts(hits, indexes, params.collect.contamination)
    write_rows(rows_path, collected.rows)
    write_rows(left_out_path, collected.left_out)
    write_json(metrics_path, counts(collected) | {"contamination": contamination})
    log.info("collect-s1k: %d rows, %d left out", len(collected.rows), len(collected.left_out))


def entry_of(name: str, params: Params) -> tuple[str, S1k]:
    """The entry of params, after its key, which messages name."""
    if name not in params.collect_s1k:
        known = ", ".join(params.collect_s1k) or "none"
        raise ParamsError(f"params.yaml: collect_s1k: no entry '{name}'. Known: {known}.")
    return f"collect_s1k.{name}.path", params.collect_s1k[name]


def distilled_rows(source: S1k, key: str) -> Iterator[Distilled]:
    """s1K's rows as distilled ones, in its order; DataError, with the place, on a row that is not s1K's."""
    for index, (where, raw) in enumerate(source_rows(source, key)):
        try:
            row = _SourceRow.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            text = f"field '{first['loc'][0]}': {first['msg']}" if first["loc"] else first["msg"]
            raise DataError(f"{where}: not a row of s1K-1.1 ({text}). {advice(key)}") from error
        yield Distilled(
            id=f"s1k-{index}",
            question=row.question,
            answer=row.solution,
            solution=row.solution,
            source="s1K-1.1",
            sample=0,
            reasoning=row.deepseek_thinking_trajectory or "",
            response=row.deepseek_attempt or "",
            finish_reason="stop",
            model="deepseek-r1",
            usage={},
        )


def source_rows(source: S1k, key: str) -> Iterator[tuple[str, Any]]:
    """The raw rows, each with its place in the source; DataError where they cannot be read."""
    if source.origin == "file":
        yield from _from_file(Path(source.path).expanduser(), key)
        return
    try:
        rows = _from_hub(source.path) if source.origin == "hub" else _from_modelscope(source.path)
    except Exception as error:  # the clients raise their own errors and those of requests and datasets
        raise DataError(
            f"{key}: {source.origin} gave no '{source.path}' ({type(error).__name__}: {error!s:.200}). "
            "Without a network, set origin: file and name its .parquet file, or a .jsonl of its rows."
        ) from error
    for index, row in enumerate(rows):
        yield f"{source.path}[{index}]", row


def _from_hub(path: str) -> Iterable[Any]:
    from datasets import load_dataset

    rows: Iterable[Any] = load_dataset(path, split="train")
    return rows


def _from_modelscope(path: str) -> Iterable[Any]:
    from modelscope.msdatasets import MsDataset

    rows: Iterable[Any] = MsDataset.load(path, split="train")
    return rows


def _from_file(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file. {advice(key)}")
    if path.suffix == ".parquet":
        yield from _from_parquet(path, key)
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield f"{path}:{number}", json.loads(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not a JSON object ({error}). {advice(key)}") from error


def _from_parquet(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error!s:.200}). {advice(key)}") from error
    for index, row in enumerate(rows):
        yield f"{path}[{index}]", row


def separate(rows: Iterable[Distilled], indexes: Sequence[BenchmarkIndex]) -> Collected:
    """Each question once, without the benchmarks' questions."""
    collected = Collected()
    ids: dict[str, str] = {}
    for row in rows:
        # before the duplicates, so that same_as is always the id of a row that was kept
        if hits := benchmark_hits(row.question, indexes):
            collected.left_out.append(_left_out(row, reason="contaminated", benchmark_hits=hits))
        elif (same_as := ids.setdefault(normalised(row.question), row.id)) != row.id:
            collected.left_out.append(_left_out(row, reason="duplicate", same_as=same_as))
        else:
            collected.rows.append(row)
    return collected


def _left_out(row: Distilled, **why: Any) -> LeftOutAnswer:
    return LeftOutAnswer(**row.model_dump(), **{"same_as": None, "benchmark_hits": []} | why)


def counts(collected: Collected) -> dict[str, Any]:
    """The metrics: ``in = rows + left_out``."""
    found = Counter(row.reason for row in collected.left_out)
    return {
        "in": len(collected.rows) + len(collected.left_out),
        "rows": len(collected.rows),
        "left_out": {reason: found[reason] for reason in get_args(Reason)},
    }


def advice(key: str) -> str:
    """The advice for a source that is not s1K-1.1."""
    return f"Point {key} at simplescaling/s1K-1.1."


if __name__ == "__main__":
    main()
