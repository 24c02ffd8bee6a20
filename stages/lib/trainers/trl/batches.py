"""Which rows meet in a step of TRL's: like with like by length, several packed into one, shared out to processes.

Rows are never mixed up by it: a packed row's tokens see their own row alone, or nothing is packed, and N processes
see in each step just the rows that one process would see in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any

from stages.lib.params import Train

_STEPS_SORTED = 50  # so many steps' rows are drawn, sorted by length and cut into steps
_TOLERANCE = 1e-4  # of logits, where only rounding may differ


@dataclass
class RowOrder:
    """The order of the rows in each epoch, the same in every process; rows without a loss come last and fill it up.

    By chance, as the Trainer in one process draws it; with ``group``, so many rows in a step are of similar length, and
    the steps come in an order by chance. (transformers' own grouping sorts fewer steps' rows together the fewer there
    are, so that of 64 rows in steps of 7 a quarter of the places is padding, here a tenth; and it goes from long to
    short within each window.)
    """

    lengths: list[int]
    seed: int
    group: int | None = None
    fillers: int = 0
    epoch: int = field(default=0, init=False)

    def set_epoch(self, epoch: int) -> None:
        """The Trainer says it at the beginning of each, also when it resumes from a checkpoint."""
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
        """The drawn rows, like with like; the step with the longest first, where memory would run out soon."""
        import torch

        steps = []
        for start in range(0, len(drawn), group * _STEPS_SORTED):
            window = sorted(drawn[start : start + group * _STEPS_SORTED], key=lambda row: -self.lengths[row])
            steps += [window[place : place + group] for place in range(0, len(window), group)]
        last = steps.pop() if len(steps[-1]) < group else []  # a step of fewer rows would shift all behind it
        first = max(range(len(steps)), key=lambda step: self.lengths[steps[step][0]], default=0)
        order = sorted(torch.randperm(len(steps), generator=chance).tolist(), key=lambda step: step != first)
        yield from chain.from_iterable(steps[step] for step in order)
        yield from last


def row_order(lengths: list[int], params: Train, processes: int) -> RowOrder | None:
    """The order to keep to; None where the Trainer's own is that order already."""
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
    """How many rows lack until all processes have a whole batch; accelerate would take rows a second time instead."""
    return -rows % at_once


def filled(dataset: Any, count: int, token: int) -> Any:
    """The Trainer's dataset with so many rows of one token behind it, none of which bears a loss."""
    from datasets import Dataset, concatenate_datasets

    if not count:
        return dataset
    row = {"input_ids": [token], "labels": [-100], "seq_lengths": [1]}
    names = [name for name in row if name in dataset.column_names]
    rows = dataset.select_columns(names)
    more = Dataset.from_list([{name: row[name] for name in names}] * count, features=rows.features)
    return concatenate_datasets([rows, more])


def leaks(model: Any) -> bool:
    """Whether a row that is packed behind another one sees it: its logits then change with the other.

    Not so with sdpa and eager attention in transformers 5, which tells rows apart by their position ids, as long as
    there is no cache; so with models that have no position ids.
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
    """The logits of the last row of two in a pack, as the trainer would have them."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    together = before + behind
    pack = {"input_ids": together, "labels": together, "seq_lengths": [len(before), len(behind)]}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([pack])
    del batch["labels"]
    inputs = {name: each.to(model.device) if hasattr(each, "to") else each for name, each in batch.items()}
    return model(**inputs, use_cache=False).logits[0, len(before) :]


def rows_of(dataset: Any) -> list[list[int]]:
    """The labels of each row, those of packed ones apart."""
    labels: list[list[int]] = list(dataset["labels"])
    if "seq_lengths" not in dataset.column_names:
        return labels
    rows = []
    for pack, lengths in zip(labels, dataset["seq_lengths"], strict=True):
        ends = list(accumulate(lengths, initial=0))
        rows += [pack[start:end] for start, end in pairwise(ends)]
    return rows


@dataclass
class Counting:
    """A collator that counts what it makes: the tokens of rows, and the places that its batches have for tokens."""

    inner: Any
    tokens: int = 0
    places: int = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch, and count it."""
        batch: dict[str, Any] = self.inner(rows)
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        self.places += batch["input_ids"].numel()
        return batch

    @property
    def padding_share(self) -> float:
        """The share of the places that held no token."""
        return 1 - self.tokens / self.places if self.places else 0.0
