"""The teacher of an on-policy arm: models/NAME has an arm's weights, or names a model that stays where it is.

In:  models/longer/                   config.json, weights, tokenizer
     models/qwen32b/teacher.json      {"model": {"kind": "hub", "name": "Qwen/Qwen2.5-32B-Instruct", "revision": null},
                                       "sha256": "5e7f…"}

``teacher_folder`` gives the folder that transformers loads, ``teacher_identity`` what the metrics say of it.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.params import Student
from stages.lib.rows import DataError
from stages.lib.runtime.digests import files_hash
from stages.lib.students import student_folder

FILE = "teacher.json"


class NamedModel(BaseModel):
    """models/NAME/teacher.json: a model by its entry in ``teachers``, and the hash of its files."""

    model_config = ConfigDict(extra="forbid")

    model: Student
    sha256: str


def teacher_folder(path: Path) -> Path:
    """The folder with the weights of models/NAME.

    StudentError if a model that it names is not available; DataError if its files are not those that were checked.
    """
    if not (named := _named(path)):
        return path
    folder = student_folder(named.model)
    if (found := files_hash(folder)) != named.sha256:
        raise DataError(
            f"{path / FILE}: {folder} has other files now (sha256 {found:.12}) than when it was checked "
            f"({named.sha256:.12}). Run 'dvc repro --force --single-item teachers@{path.name}'."
        )
    return folder


def teacher_identity(path: Path) -> dict[str, str | None]:
    """``{"name": "Qwen/Qwen2.5-32B-Instruct", "revision": null, "sha256": "5e7f…"}``; an arm has its own name."""
    named = _named(path)
    if not named:
        return {"name": path.name, "revision": None, "sha256": files_hash(path)}
    model = named.model
    name = Path(model.name).name if model.kind == "path" else model.name  # a path is local
    return {"name": name, "revision": model.revision, "sha256": named.sha256}


def _named(path: Path) -> NamedModel | None:
    file = path / FILE
    if not file.is_file():
        return None
    try:
        return NamedModel.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        advice = f"Run 'dvc repro teachers@{path.name}' to rebuild it."
        raise DataError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}. {advice}") from error
