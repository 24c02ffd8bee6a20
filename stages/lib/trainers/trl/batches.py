"""Which rows are in a step of TRL's: rows of similar length together, several packed into one, split over processes.

- The tokens of a packed row attend only to their own row, or nothing is packed.
- N processes see in each step exactly the rows that one process would see in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.lib.params import Train
from stages.lib.tokens import NO_LOSS
from stages.lib.tokens.table import read_tokens
from stages.lib.tokens.tokenizer import Ends

_STEPS_SORTED = 50  # the rows of this many steps are drawn, sorted by length and cut into steps
_AT_ONCE = 2**16  # numbers of rows that are Python's at the same time
_TOLERANCE = 1e-4  # of logits, where only rounding may differ


@dataclass
class RowOrder:
    """The order of the rows in each epoch, the same in every process. Filler rows without a loss come last.

    The order is random, as the Trainer in one process draws it. With ``group``, the ``group`` rows of a step have
    similar lengths, and the order of the steps is random. (transformers' own grouping sorts the rows of fewer steps
    together when there are few rows: of 64 rows in steps of 7, a quarter is padding, here a tenth. It also goes from
    long to short within each window.)

    It takes 12 bytes a row: 4 for its length, 8 for its place.
    """

    lengths: NDArray[np.int32]
    seed: int
    group: int | None = None
    fillers: int = 0
    epoch: int = field(default=0, init=False)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of each epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self.fillers

    def __iter__(self) -> Iterator[int]:
        import torch

        chance = torch.Generator().manual_seed(self.seed + self.epoch)
        count = len(self.lengths)
        drawn = torch.randperm(count, generator=chance).numpy()
        for rows in self._by_length(drawn, self.group, chance) if self.group else _blocks(drawn):
            yield from rows.tolist()
        yield from range(count, len(self))

    def _by_length(self, drawn: NDArray[np.int64], group: int, chance: Any) -> Iterator[NDArray[np.int64]]:
        """The drawn rows, grouped by length. The step with the longest row is first, to run out of memory early."""
        import torch

        for start in range(0, len(drawn), group * _STEPS_SORTED):
            window = drawn[start : start + group * _STEPS_SORTED]
            window[:] = window[np.argsort(-self.lengths[window], kind="stable")]
        steps = len(drawn) // group  # a shorter step would shift all rows after it
        order = torch.randperm(steps, generator=chance).numpy()
        if steps:
            first = int(np.argmax(self.lengths[drawn[: steps * group : group]]))
            yield drawn[first * group : (first + 1) * group]
            for step in order[order != first]:
                yield drawn[step * group : (step + 1) * group]
        yield drawn[steps * group :]


def _blocks(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(numbers), _AT_ONCE):
        yield numbers[start : start + _AT_ONCE]


def row_order(lengths: NDArray[np.int32], params: Train, processes: int) -> RowOrder:
    """The order of the rows. For one process without groups it is the Trainer's own, which takes 36 bytes a row."""
    alone = processes == 1 and not params.group_by_length
    rows_a_step = params.per_device_train_batch_size * params.gradient_accumulation_steps
    return RowOrder(
        lengths=lengths,
        seed=params.seed,
        group=rows_a_step if params.group_by_length else None,
        fillers=0 if alone else fillers(len(lengths), params.per_device_train_batch_size * processes),
    )


def fillers(rows: int, at_once: int) -> int:
    """How many rows are missing for a full batch in all processes; accelerate would repeat rows instead."""
    return -rows % at_once


def padded_with_fillers(dataset: Any, count: int, token: int) -> Any:
    """The Trainer's dataset with ``count`` rows of one token appended, none of which has a loss."""
    from datasets import Dataset, concatenate_datasets

    if not count:
        return dataset
    row = {"input_ids": [token], "labels": [-100], "seq_lengths": [1]}
    names = [name for name in row if name in dataset.column_names]
    rows = dataset.select_columns(names)
    more = Dataset.from_list([{name: row[name] for name in names}] * count, features=rows.features)
    return concatenate_datasets([rows, more])


def leaks(model: Any) -> bool:
    """Whether a packed row attends to the row before it: then its logits change with that row.

    sdpa and eager attention in transformers 5 do not leak without a cache: they separate rows by position ids. Models
    without position ids leak.
    """
    import torch

    one, other, behind = range(1, 9), range(9, 17), range(17, 25)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        first, second = (_logits_behind(model, [*before], [*behind]) for before in (one, other))
    model.train(was_training)
    return bool((first - second).abs().max() > _TOLERANCE)


def _logits_behind(model: Any, before: list[int], behind: list[int]) -> Any:
    """The logits of the second of two packed rows, computed as in the trainer."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    together = before + behind
    pack = {"input_ids": together, "labels": together, "seq_lengths": [len(before), len(behind)]}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([pack])
    del batch["labels"]
    inputs = {name: each.to(model.device) if hasattr(each, "to") else each for name, each in batch.items()}
    return model(**inputs, use_cache=False).logits[0, len(before) :]


def batches_of(dataset: Any) -> Iterator[pa.RecordBatch]:
    """The Trainer's dataset, in record batches."""
    for file in dataset.cache_files:
        yield from read_tokens(Path(file["filename"]))


def packed_rows(batch: pa.RecordBatch) -> Iterator[list[int]]:
    """The tokens of each row of a record batch; packed rows are split."""
    columns = batch.to_pydict()
    for number, ids in enumerate(columns["input_ids"]):
        begin = 0
        for end in accumulate(columns["seq_lengths"][number]) if "seq_lengths" in columns else [len(ids)]:
            yield ids[begin:end]
            begin = end


@dataclass(frozen=True)
class Labelled:
    """What the Trainer's dataset is trained on: the lengths of its rows or packs, the tokens with a loss, the ends."""

    lengths: NDArray[np.int32]
    trained: int
    ends: Ends


def labelled(dataset: Any, end: int) -> Labelled:
    """Read the dataset once; ``end`` is the token that ends an answer."""
    lengths: list[NDArray[np.int32]] = []
    trained = rows = without = ends = 0
    for batch in batches_of(dataset):
        labels = batch.column("labels")
        lengths.append(np.diff(labels.offsets.to_numpy()).astype(np.int32))
        of_rows = (
            batch.column("seq_lengths").flatten().to_numpy() if "seq_lengths" in batch.schema.names else lengths[-1]
        )
        flat = labels.flatten().to_numpy()
        sums = np.concatenate([[0], np.cumsum(flat == end)])
        found = np.diff(sums[np.concatenate([[0], np.cumsum(of_rows)])])
        trained += int((flat != NO_LOSS).sum())
        rows, without, ends = rows + len(found), without + int((found == 0).sum()), ends + int(found.sum())
    return Labelled(np.concatenate(lengths), trained, Ends(rows, without, ends))


@dataclass
class CountingCollator:
    """A collator that counts the tokens of its rows and the positions of its batches, padding included."""

    inner: Any
    tokens: int = 0
    positions: int = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch and add to the counts."""
        batch: dict[str, Any] = self.inner(rows)
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        self.positions += batch["input_ids"].numel()
        return batch

    @property
    def padding_share(self) -> float:
        """The share of positions that are padding."""
        return 1 - self.tokens / self.positions if self.positions else 0.0
