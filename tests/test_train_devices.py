"""The device of a training: its name with an index, the card that a process sees."""

import pytest

from stages.lib.devices import with_index


@pytest.mark.parametrize(
    ("device", "indexed"), [("npu", "npu:0"), ("npu:3", "npu:3"), ("cuda", "cuda:0"), ("cpu", "cpu")]
)
def test_a_card_without_a_number_is_the_first(device: str, indexed: str) -> None:
    assert with_index(device) == indexed
