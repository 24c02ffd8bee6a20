"""Check a model that is to teach on-policy arms, and name it for them. Its weights are not copied.

In:   an entry of ``teachers`` in params.yaml; its tokenizer, then its weights, which a hub's entry downloads
Out:  models/NAME/teacher.json   {"model": {"kind": "hub", "name": "Qwen/Qwen2.5-32B-Instruct", "revision": null},
                                  "sha256": "5e7f…"}

Its vocabulary is compared with that of ``train.student`` before its weights are downloaded.

Alone:  python -m stages.teachers --name qwen32b --out models/qwen32b
"""

import logging
from pathlib import Path

import click

from stages.lib.command import WRITE, one_line_errors, params_option
from stages.lib.params import ParamsError, load_params
from stages.lib.rows import write_json
from stages.lib.runtime.digests import files_hash
from stages.lib.students import StudentError, student_folder, student_tokenizer
from stages.lib.token_teacher import FILE
from stages.lib.vocabulary import check_same_vocabulary

log = logging.getLogger("distillery.teachers")


@click.command(help="Check a model of teachers against the student's vocabulary, and name it for on-policy arms.")
@click.option("--name", required=True, help="The entry of teachers in params.yaml.")
@click.option("--out", "out_path", type=WRITE, required=True, help="The folder that names the model, written.")
@params_option
@one_line_errors
def main(name: str, out_path: Path, params_path: Path) -> None:
    params = load_params(params_path)
    if name not in params.teachers:
        known = ", ".join(params.teachers) or "none"
        raise ParamsError(f"{params_path}: teachers: no entry '{name}'. Known: {known}.")
    model = params.teachers[name]
    student = student_tokenizer(params.train.student)
    try:
        teacher = student_tokenizer(model)
        check_same_vocabulary(Path(student.name_or_path), Path(teacher.name_or_path))
        folder = student_folder(model)
    except StudentError as error:
        raise StudentError(f"teachers.{name}: {error}") from error
    digest = files_hash(folder)
    write_json(out_path / FILE, {"model": model.model_dump(), "sha256": digest})
    log.info("teachers: %s: %s has the student's vocabulary of %d tokens", name, model.name, len(teacher))


if __name__ == "__main__":
    main()
