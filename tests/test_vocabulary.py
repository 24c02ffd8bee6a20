"""Two models whose tokens differ are not compared token by token."""

import json
import shutil
from pathlib import Path

import pytest

from stages.lib.students import StudentError
from stages.lib.vocabulary import check_same_vocabulary


def test_a_model_has_the_vocabulary_of_its_copy(tiny_student: Path, tmp_path: Path) -> None:
    check_same_vocabulary(tiny_student, Path(shutil.copytree(tiny_student, tmp_path / "teacher")))


def test_the_first_token_that_differs_is_named(tiny_student: Path, tmp_path: Path) -> None:
    teacher = Path(shutil.copytree(tiny_student, tmp_path / "teacher"))
    path = teacher / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    names = {number: name for name, number in vocabulary.items()}
    vocabulary[names[20]], vocabulary[names[10]] = 10, 20
    path.write_text(json.dumps(content))
    with pytest.raises(StudentError) as caught:
        check_same_vocabulary(tiny_student, teacher)
    assert f"2 of {len(vocabulary)} tokens differ, the first is 10: {names[20]!r} instead of {names[10]!r}." in str(
        caught.value
    )


def test_a_token_more_is_another_vocabulary(tiny_student: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(tmp_path / "teacher")
    with pytest.raises(StudentError, match=r"1 of .* '<think>' instead of 'none'"):
        check_same_vocabulary(tiny_student, tmp_path / "teacher")


def test_a_folder_without_a_tokenizer_is_no_hub_id(tiny_student: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="no tokenizer_config"):
        check_same_vocabulary(tiny_student, tmp_path)
