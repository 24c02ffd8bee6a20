"""Which rows are in a step of TRL's: rows of similar length together, several packed into one, split over processes.

- The tokens of a packed row attend only to their own row, or nothing is packed.
- N processes see in each step exactly the rows that one process would see in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any

from stages.lib.params import Train

_STEPS_SORTED = 50  # the rows of this many steps are drawn, sorted by length and cut into steps
_TOLERANCE = 1e-4  # of logits, where only rounding may differ


@dataclass
class RowOrder:
    """The order of the rows in each epoch, the same in every process. Filler rows without a loss come last.

    The order is random, as the Trainer in one process draws it. With ``group``, the ``group`` rows of a step have
    similar lengths, and the order of the steps is random. (transformers' own grouping sorts the rows of fewer steps
    together when there are few rows: of 64 rows in steps of 7, a quarter is padding, here a tenth. It also goes from
    long to short within each window.)
    """

    lengths: list[int]
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
        drawn: list[int] = torch.randperm(count, generator=chance).tolist()
        yield from self._by_length(drawn, self.group, chance) if self.group else drawn
        yield from range(count, len(self))

    def _by_length(self, drawn: list[int], group: int, chance: Any) -> Iterator[int]:
        """The drawn rows, grouped by length. The step with the longest row is first, to run out of memory early."""
        import torch

        steps = []
        for start in range(0, len(drawn), group * _STEPS_SORTED):
            window = sorted(drawn[start : start + group * _STEPS_SORTED], key=lambda row: -self.lengths[row])
            steps += [window[place : place + group] for place in range(0, len(window), group)]
        last = steps.pop() if len(steps[-1]) < group else []  # a shorter step would shift all rows after it
        first = max(range(len(steps)), key=lambda step: self.lengths[steps[step][0]], default=0)
        order = sorted(torch.randperm(len(steps), generator=chance).tolist(), key=lambda step: step != first)
        yield from chain.from_iterable(steps[step] for step in order)
        yield from last


def row_order(lengths: list[int], params: Train, processes: int) -> RowOrder | None:
    """The order of the rows; None if the Trainer's own order is the same."""
    if processes == 1 and not params.group_by_length:
        return None
    rows_a_step = params.per_device_train_batch_size * params.gradient_accumulation_steps
    return RowOrder(
        lengths=lengths,
        seed=params.seed,
        group=rows_a_step if params.group_by_length else None,
        fillers=fillers(len(lengths), params.per_device_train_batch_size * processes),
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


def rows_of(dataset: Any) -> list[list[int]]:
    """The labels of each row; packed rows are split."""
    labels: list[list[int]] = list(dataset["labels"])
    if "seq_lengths" not in dataset.column_names:
        return labels
    rows = []
    for pack, lengths in zip(labels, dataset["seq_lengths"], strict=True):
        ends = list(accumulate(lengths, initial=0))
        rows += [pack[start:end] for start, end in pairwise(ends)]
    return rows


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
