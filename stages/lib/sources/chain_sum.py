"""Sums and differences from reasoning-gym's ``chain_sum`` generator, deterministic by seed.

    State the final answer to the following arithmetic problem: 51 + 22 - 80 - 14 =

A question's own seed is ``seed + index``, so the two seeds must lie further apart than the sets are large.
"""

from collections.abc import Iterator

from stages.lib.params import ChainSum, ParamsError
from stages.lib.rows.question import Question
from stages.lib.sources import Drawn


def draw(source: ChainSum, train_size: int, heldout_size: int, key: str) -> Drawn:
    """So many sums to train on, and others to hold out, each set by its own seed."""
    if abs(source.seed - source.heldout_seed) < max(train_size, heldout_size):
        raise ParamsError(
            f"params.yaml: {key}: seed {source.seed} and heldout_seed {source.heldout_seed} are less than "
            f"{max(train_size, heldout_size)} apart: the sets would overlap. Move one of them."
        )
    return Drawn(
        _generate(source, source.seed, train_size, "chain_sum-train"),
        _generate(source, source.heldout_seed, heldout_size, "chain_sum-heldout"),
    )


def _generate(sums: ChainSum, seed: int, size: int, name: str) -> Iterator[Question]:
    if size == 0:  # the generator refuses an empty set
        return
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(
        "chain_sum",
        size=size,
        seed=seed,
        min_terms=sums.min_terms,
        max_terms=sums.max_terms,
        min_digits=sums.min_digits,
        max_digits=sums.max_digits,
    )
    for index, item in enumerate(dataset):
        yield Question(
            id=f"{name}-{index}",
            question=item["question"],
            answer=item["answer"],
            solution=f"{item['metadata']['expression']} = {item['answer']}",
            source=name.replace("-", "/"),
        )
