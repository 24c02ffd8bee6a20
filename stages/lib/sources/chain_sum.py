"""Sums and differences from reasoning-gym's ``chain_sum`` generator, deterministic by seed.

    State the final answer to the following arithmetic problem: 51 + 22 - 80 - 14 =

A question's own seed is ``seed + index``, so the two seeds must lie further apart than the sets are large.
"""

from collections.abc import Iterator

from stages.lib.params import ChainSum, Collect, ParamsError
from stages.lib.rows.question import Question


def candidates(params: Collect) -> Iterator[Question]:
    """The training questions, ``params.train_size`` of them."""
    sums = _sums(params)
    if abs(sums.seed - sums.heldout_seed) < max(params.train_size, params.heldout_size):
        raise ParamsError(
            f"params.yaml: collect.source: seed {sums.seed} and heldout_seed {sums.heldout_seed} are less than "
            f"{max(params.train_size, params.heldout_size)} apart: the sets would overlap. Move one of them."
        )
    return _generate(sums, sums.seed, params.train_size, "chain_sum-train")


def heldout(params: Collect) -> Iterator[Question]:
    """The questions to evaluate on, ``params.heldout_size`` of them."""
    sums = _sums(params)
    return _generate(sums, sums.heldout_seed, params.heldout_size, "chain_sum-heldout")


def _sums(params: Collect) -> ChainSum:
    assert isinstance(params.source, ChainSum)  # its kind has chosen this module
    return params.source


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
