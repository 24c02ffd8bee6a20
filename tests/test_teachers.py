"""A model that teaches on-policy arms is checked and named, and its weights stay where they are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from stages.lib.rows import DataError
from stages.lib.runtime.digests import files_hash
from stages.lib.token_teacher import FILE, teacher_folder, teacher_identity
from stages.teachers import main as teachers
from tests.trainings import ON_POLICY

ARM = ON_POLICY | {"teacher": {"source": "big", "worked_examples": 0}}

Params = Callable[..., Path]


def settings(folder: Path) -> dict[str, Any]:
    """Params with the model in ``folder`` as the teacher of an arm."""
    return {"on_policy": {"polished": ARM}, "teachers": {"big": {"kind": "path", "name": str(folder)}}}


def test_a_model_that_teaches_is_named_and_not_copied(
    tmp_path: Path, tiny_student: Path, tiny_params: Params, runs: Callable[..., Result]
) -> None:
    model = Path(shutil.copytree(tiny_student, tmp_path / "larger"))
    out = tmp_path / "models" / "big"
    runs(teachers, "--name", "big", "--out", out, "--params", tiny_params(settings(model)))
    assert [path.name for path in out.iterdir()] == [FILE]
    assert teacher_folder(out) == model
    assert teacher_identity(out) == {"name": "larger", "revision": None, "sha256": files_hash(model)}
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    with pytest.raises(
        DataError, match=r"larger has other files now .* 'dvc repro --force --single-item teachers@big'"
    ):
        teacher_folder(out)


def test_an_arm_that_teaches_is_its_own_folder(tiny_student: Path) -> None:
    assert teacher_folder(tiny_student) == tiny_student
    found = {"name": tiny_student.name, "revision": None, "sha256": files_hash(tiny_student)}
    assert teacher_identity(tiny_student) == found


def test_another_vocabulary_is_refused_without_the_weights(
    tmp_path: Path, tiny_student: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    model = Path(shutil.copytree(tiny_student, tmp_path / "larger", ignore=shutil.ignore_patterns("*.safetensors")))
    content = json.loads((model / "tokenizer.json").read_text())
    content["added_tokens"][0]["content"] = "<|other|>"
    content["model"]["vocab"]["<|other|>"] = content["model"]["vocab"].pop("<|endoftext|>")
    (model / "tokenizer.json").write_text(json.dumps(content))
    out = tmp_path / "models" / "big"
    line = refuses(teachers, "--name", "big", "--out", out, "--params", tiny_params(settings(model)))
    assert line.startswith(f"teachers.big: {model}: its vocabulary is not the student's")
    assert not out.exists()


def test_a_file_that_names_no_model_says_how_it_is_made(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"model": {"kind": "path"}}')
    with pytest.raises(DataError, match=rf"{FILE}: model\..*'dvc repro teachers@{tmp_path.name}'"):
        teacher_folder(tmp_path)
