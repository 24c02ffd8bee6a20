"""Write a dataset as ShareGPT conversations, the format that openMind and LLaMA-Factory read.

In:   distilled rows (data/filtered.jsonl, …), the student's tokenizer (train.student, without its weights)
Out:  data/sharegpt/NAME/NAME.json           [{"system": "…", "conversations": [{"from": "user", "value": "…"},
                                              {"from": "assistant", "value": "<|begin_of_thought|>…"}]}]
      data/sharegpt/NAME/dataset_info.json   the description that a trainer reads
      data/sharegpt/NAME/dropped.jsonl       rows that are not a valid conversation: row + {"reason": "marker_in_text"};
                                              "control_token": the student would read a part of it as a control token
      metrics/convert/NAME.json              the counts, and the conversations' lengths in tokens, as in training
      metrics/convert/NAME.lengths.csv       tokens,share: the share of the conversations that are at most so long

A row with earlier turns is one conversation of all of them, and a row's own system text replaces the one of params. An
earlier answer is written as it is, without thought and markers: the chat templates of reasoning models show it so.

One dataset_info.json serves both trainers. openMind finds NAME.json by local_path and file_name
(``custom_dataset_info: data/sharegpt/NAME/dataset_info.json``); LLaMA-Factory finds it by file_name in its
``dataset_dir: data/sharegpt/NAME``, and ignores local_path. Neither reads any other file of the folder.

Alone:  python -m stages.convert --rows data/filtered.jsonl --out DIR/NAME --metrics M.json --lengths L.csv
"""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, tee
from pathlib import Path
from typing import Any, Literal, get_args

import click

from stages.lib.chat_template import align, control_tokens
from stages.lib.command import READ, WRITE, one_line_errors, params_option
from stages.lib.files.shards import Form, writing_parts
from stages.lib.params import Convert, Engine, Markers, Params, Tags, load_params, prompt_text
from stages.lib.ranks import ranked
from stages.lib.rows import DataError, RowsOf, RowWriter, write_json, writing, writing_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.students import student_tokenizer, token_lengths
from stages.lib.workers import map_rows

log = logging.getLogger("distillery.convert")

Sample = dict[str, Any]
Reason = Literal["turns_do_not_alternate", "marker_in_text", "empty_text", "control_token"]
BATCH = 16  # conversations that are tokenized at once, in a worker
LIST = Form(begin=b"[\n    ", between=b",\n    ", end=b"\n]")  # as json.dumps writes a list with indent 4
CUTOFFS = tuple(2**power for power in range(7, 16))  # usual values of cutoff_len: 128 to 32768 tokens


class Dropped(Distilled):
    """A row that makes no valid conversation, and the reason."""

    reason: Reason


Converted = Sample | Dropped


@click.command(help="Write distilled rows as a ShareGPT dataset, with its dataset_info.json.")
@click.option("--rows", "rows_path", type=READ, required=True, help="Distilled rows, read.")
@click.option("--out", "out_path", type=WRITE, required=True, help="The dataset's folder, written; its name is used.")
@click.option("--metrics", "metrics_path", type=WRITE, required=True, help="Counts and lengths, written.")
@click.option("--lengths", "lengths_path", type=WRITE, required=True, help="The curve of the lengths, written.")
@params_option
@one_line_errors
def main(rows_path: Path, out_path: Path, metrics_path: Path, lengths_path: Path, params_path: Path) -> None:
    params = load_params(params_path)
    rebuild = f"Run 'dvc repro convert@{out_path.name}' to rebuild it."
    rows = RowsOf(rows_path, Distilled, rebuild)
    system = prompt_text(params.convert.system_prompt)
    tokenizer = student_tokenizer(params.train.student)
    control = control_tokens(tokenizer, params.convert.markers)
    refuse_control_tokens(system, control, params.convert.system_prompt)
    tally = Tally()
    for each in converted(rows, system, params.convert, control):
        tally.add(each)
    tally.check(rows_path, rebuild)
    align(tokenizer, params.convert.markers, params.train.system_prompt, tally.with_system, tally.with_history)
    lengths = write_dataset(out_path, converted(rows, system, params.convert, control), tokenizer, params)
    if lengths.total() != tally.kept:
        raise DataError(f"{rows_path}: it changed while convert read it. {rebuild}")
    write_json(metrics_path, tally.metrics() | length_metrics(lengths))
    with writing(lengths_path) as file:
        file.write(length_curve(lengths).encode())
    log.info("convert: %d conversations in %s (%s)", tally.kept, out_path, tally.in_words())


class Tally:
    """The counts of the rows so far, ``in = rows + dropped``; whether some conversation has a system text, and turns
    before its last question."""

    def __init__(self) -> None:
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.with_system = self.with_history = False

    def add(self, row: Converted) -> None:
        """Count a conversation or a dropped row."""
        if isinstance(row, Dropped):
            self.dropped[row.reason] += 1
            return
        self.kept += 1
        self.with_system |= bool(row["system"])
        self.with_history |= len(row["conversations"]) > 2

    def check(self, path: Path, rebuild: str) -> None:
        """DataError where there were no rows, or none makes a conversation."""
        if not (self.kept or self.dropped):
            raise DataError(f"{path}: there is nothing in it. {rebuild}")
        if not self.kept:
            raise DataError(f"{path}: no row makes a valid conversation ({self.in_words()}). Check its first rows.")

    def metrics(self) -> dict[str, Any]:
        """The counts; of reasons, those with none too."""
        dropped = {reason: self.dropped[reason] for reason in get_args(Reason)}
        return {"in": self.kept + self.dropped.total(), "rows": self.kept, "dropped": dropped}

    def in_words(self) -> str:
        """``2 dropped: 2 marker_in_text``."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.metrics()["dropped"].items() if count)
        return f"{self.dropped.total()} dropped: {reasons}" if self.dropped else "none dropped"


def refuse_control_tokens(system: str, control: Sequence[str], name: str) -> None:
    """DataError if the system text, which is in every row, contains a control token."""
    for token in control:
        if token in system:
            raise DataError(
                f"stages/prompts/{name}.txt: contains {token}, which the student reads as a control token, not as "
                "text. Remove it, or choose another convert.system_prompt."
            )


def converted(
    rows: Iterable[Distilled], system: str, params: Convert, control: Sequence[str] = ()
) -> Iterator[Converted]:
    """Each row as a sample, or as ``Dropped``, in the order of the rows; ``control``: the student's control tokens."""
    for row in rows:
        sample = conversation(row, system, params.markers, params.tags)
        reason = reason_to_drop(sample, params.markers, params.tags, control)
        if row.system and any(token in row.system for token in control):
            reason = reason or "control_token"
        yield Dropped(**row.model_dump(), reason=reason) if reason else sample


def conversation(row: Distilled, system: str, markers: Markers, tags: Tags) -> Sample:
    """A row as one ShareGPT sample, with line breaks around the markers as in the article; own system text first."""
    answer = (
        f"{markers.begin_of_thought}\n\n{row.reasoning}{markers.end_of_thought}\n\n"
        f"{markers.begin_of_solution}\n\n{row.response}{markers.end_of_solution}"
    )
    speakers = {"user": tags.user_tag, "assistant": tags.assistant_tag}
    earlier = [(speakers[turn.role], turn.content) for turn in row.history or ()]
    turns = [*earlier, (tags.user_tag, row.question), (tags.assistant_tag, answer)]
    return {
        "system": row.system or system,
        "conversations": [{tags.role_tag: speaker, tags.content_tag: text} for speaker, text in turns],
    }


def reason_to_drop(sample: Sample, markers: Markers, tags: Tags, control: Sequence[str] = ()) -> Reason | None:
    """Why a sample is dropped, or None. A valid one has alternating turns with text, and each marker once, at the end.

    With one more marker in the answer or in another turn, the end of the thought would be ambiguous. The system text
    may contain the markers: the article's does. A literal token of ``control`` would end a turn in the middle of its
    text.
    """
    turns = sample["conversations"]
    if [turn[tags.role_tag] for turn in turns] != [tags.user_tag, tags.assistant_tag] * max(1, len(turns) // 2):
        return "turns_do_not_alternate"
    *before, answer = (turn[tags.content_tag] for turn in turns)
    in_order = list(markers.model_dump().values())
    any_marker = re.compile("|".join(map(re.escape, in_order)))
    if any(map(any_marker.search, before)) or any_marker.findall(answer) != in_order:
        return "marker_in_text"
    _, thought, _, solution, _ = any_marker.split(answer)
    if not all(text.strip() for text in (*before, thought, solution)):
        return "empty_text"
    return "control_token" if any(token in text for token in control for text in (*before, answer)) else None


def messages(sample: Sample, tags: Tags) -> list[dict[str, str]]:
    """A sample as the chat messages of the training."""
    roles = {tags.user_tag: "user", tags.assistant_tag: "assistant"}
    system = [{"role": "system", "content": sample["system"]}] if sample["system"] else []
    return system + [
        {"role": roles[turn[tags.role_tag]], "content": turn[tags.content_tag]} for turn in sample["conversations"]
    ]


def write_dataset(folder: Path, rows: Iterable[Converted], tokenizer: Any, params: Params) -> Counter[int]:
    """Write NAME.json (a list, indent 4, no final newline), dataset_info.json and dropped.jsonl.

    Returns how many conversations have each length in tokens. Above ``run.shard_rows``, NAME.json is a folder of lists.
    """
    name, most, ascii = folder.name, params.run.shard_rows, params.convert.ascii
    lengths: Counter[int] = Counter()
    with (
        writing_parts(folder / f"{name}.json", most, LIST) as parts,
        writing_rows(folder / "dropped.jsonl", most) as dropped,
    ):
        kept, again = tee(kept_of(rows, dropped))
        conversations = (messages(sample, params.convert.tags) for sample in again)
        for sample, length in zip(kept, lengths_of(tokenizer, conversations, params.run.engine), strict=True):
            parts.add(json.dumps(sample, indent=4, ensure_ascii=ascii).replace("\n", "\n    ").encode())
            lengths[length] += 1
    write_json(folder / "dataset_info.json", {name: dataset_info(folder, params.convert.tags)})
    return lengths


def kept_of(rows: Iterable[Converted], dropped: RowWriter) -> Iterator[Sample]:
    """The samples alone; what was dropped is written."""
    for row in rows:
        if isinstance(row, Dropped):
            dropped.add(row)
        else:
            yield row


def lengths_of(tokenizer: Any, conversations: Iterator[list[dict[str, str]]], engine: Engine | None) -> Iterator[int]:
    """The tokens of each conversation, including the chat template's."""
    batches = iter(lambda: list(islice(conversations, BATCH)), [])
    for lengths in map_rows(partial(token_lengths, tokenizer), batches, engine, chunk=1):
        yield from lengths


def dataset_info(folder: Path, tags: Tags) -> dict[str, Any]:
    """The entry that tells a trainer the file and its fields. openMind refuses an entry without ``local_path``."""
    return {
        "local_path": folder.as_posix(),
        "file_name": f"{folder.name}.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
        "tags": tags.model_dump(),
    }


def length_metrics(lengths: Counter[int]) -> dict[str, Any]:
    """Percentiles (nearest rank), and the share of conversations that are longer than each of CUTOFFS.

    ``lengths``: how many conversations have each length.
    """
    at, total = ranked(lengths), lengths.total()
    percentiles = {f"p{share}": at(math.ceil(total * share / 100) - 1) for share in (50, 90, 99)}
    within = {cutoff: sum(count for length, count in lengths.items() if length <= cutoff) for cutoff in CUTOFFS}
    return {
        "tokens": {"sum": sum(length * count for length, count in lengths.items())}
        | percentiles
        | {"max": max(lengths)},
        "share_over_tokens": {str(cutoff): round(1 - count / total, 4) for cutoff, count in within.items()},
    }


def length_curve(lengths: Counter[int]) -> str:
    """The CSV of the lengths' distribution: for each hundredth of the conversations, its longest (nearest rank)."""
    at, total = ranked(lengths), lengths.total()
    longest = [at(max(0, math.ceil(total * share / 100) - 1)) for share in range(101)]
    return "tokens,share\n" + "".join(f"{tokens},{share / 100}\n" for share, tokens in enumerate(longest))


if __name__ == "__main__":
    main()
