"""Write a dataset as ShareGPT conversations, the form that openMind and LLaMA-Factory read.

In:   distilled rows (data/filtered.jsonl, …)
Out:  data/sharegpt/NAME/NAME.json           [{"system": "…", "conversations": [{"from": "user", "value": "…"},
                                              {"from": "assistant", "value": "<|begin_of_thought|>…"}]}]
      data/sharegpt/NAME/dataset_info.json   how a trainer reads it
      metrics/convert/NAME.json              the counts

Alone:  python -m stages.convert --rows data/filtered.jsonl --out DIR/NAME --metrics M.json
"""

import json
import logging
import statistics
from pathlib import Path
from typing import Any

import click

from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.params import Convert, Markers, load_params, prompt_text
from stages.lib.records import DataError, Distilled, read_some_rows, write_json, writing

log = logging.getLogger("distillery.convert")


@click.command(help="Write distilled rows as a ShareGPT dataset, with its dataset_info.json.")
@click.option("--rows", "rows_path", type=READ, required=True, help="Distilled rows, read.")
@click.option("--out", "out_path", type=WRITE, required=True, help="The dataset's folder, written; it gives the name.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts, written.")
@params_option
@one_line_errors
def main(rows_path: Path, out_path: Path, metrics_path: Path, params_path: Path) -> None:
    params = load_params(params_path).convert
    rows = read_some_rows(rows_path, Distilled, "Run 'dvc repro filter' to rebuild it.")
    system = prompt_text(params.system_prompt)
    check_markers(rows, params.markers, rows_path)
    samples = [conversation(row, system, params.markers) for row in rows]
    write_dataset(out_path, samples, params)
    write_json(metrics_path, counts(rows))
    log.info("convert: %d conversations in %s", len(samples), out_path)


def check_markers(rows: list[Distilled], markers: Markers, path: Path) -> None:
    """No marker inside a text: a reader of the conversation could not tell where the thought ends."""
    for row in rows:
        for marker in markers.model_dump().values():
            if marker in row.reasoning or marker in row.response:
                raise DataError(
                    f"{path}: row '{row.key}' holds the marker {marker}. Choose other convert.markers, or drop the row."
                )


def conversation(row: Distilled, system: str, markers: Markers) -> dict[str, Any]:
    """A row as one ShareGPT sample, with the article's markers and line ends."""
    answer = (
        f"{markers.begin_of_thought}\n\n{row.reasoning}{markers.end_of_thought}\n\n"
        f"{markers.begin_of_solution}\n\n{row.response}{markers.end_of_solution}"
    )
    return {
        "system": system,
        "conversations": [{"from": "user", "value": row.question}, {"from": "assistant", "value": answer}],
    }


def write_dataset(folder: Path, samples: list[dict[str, Any]], params: Convert) -> None:
    """NAME.json (a list, indent 4, no final newline) and the dataset_info.json that describes it."""
    name = folder.name
    with writing(folder / f"{name}.json") as file:
        file.write(json.dumps(samples, indent=4, ensure_ascii=params.ascii).encode())
    write_json(folder / "dataset_info.json", {name: dataset_info(folder)})


def dataset_info(folder: Path) -> dict[str, Any]:
    """The entry by which a trainer finds the file and its fields; openMind refuses one without ``local_path``."""
    return {
        "local_path": folder.as_posix(),
        "file_name": f"{folder.name}.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def counts(rows: list[Distilled]) -> dict[str, Any]:
    """The metrics: rows, and how long their texts are, in characters."""
    return {
        "rows": len(rows),
        "reasoning_chars_median": statistics.median(len(row.reasoning) for row in rows),
        "response_chars_median": statistics.median(len(row.response) for row in rows),
    }


if __name__ == "__main__":
    main()
