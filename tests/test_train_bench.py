"""The benchmark of training: its rows are as long as R1's answers; its student reads them."""

from pathlib import Path

import pytest

from benchmarks.training import LONGEST, OVER, lengths, made_rows, made_student
from stages.lib.training.dataset import ShareGpt


def test_the_rows_have_the_lengths_of_real_answers() -> None:
    drawn = lengths(20_000, seed=3)
    assert max(drawn) <= LONGEST
    for length, share in OVER.items():
        assert sum(each > length for each in drawn) / len(drawn) == pytest.approx(share, abs=0.01)
    assert drawn == lengths(20_000, seed=3) != lengths(20_000, seed=4)


def test_the_student_counts_the_rows_as_long_as_they_were_drawn(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made_student(tmp_path / "student")
    drawn = [60, 200, 500]
    made_rows(drawn, tmp_path / "rows")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    texts = [tokenizer.apply_chat_template(row.messages(), tokenize=False) for row in ShareGpt(tmp_path / "rows")]
    counted = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    assert counted == pytest.approx(drawn, abs=20)
