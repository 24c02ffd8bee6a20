"""Show why a stage would run, and which stages an edit runs.

python -m stages.lib.why                                  # every stage that would run, and why: make why
python -m stages.lib.why --stage train@filtered           # one stage, or all of train@…:        make why STAGE=train
python -m stages.lib.why --file stages/lib/store/index.py # what an edit to the file runs:       make why FILE=…
python -m stages.lib.why --table                          # the table of docs/upgrading.md
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from stages.lib.command import one_line_errors, params_option
from stages.lib.params import load_params
from stages.lib.why.pipeline import Stage, files_of_stages, followers, read_pipeline, users_of, value_of
from stages.lib.why.reasons import WhyError, changed_stages, reasons, stage_names
from stages.lib.why.table import format_stages, table

PIPELINE = Path("dvc.yaml")
# stages import these, but none lists them as a dep
IN_NO_DEPS = ("stages/lib/params", "stages/lib/command.py", "stages/lib/workers.py", "stages/lib/cluster/")


@click.command(help="Show why stages would run, or which stages an edit to a file runs.")
@click.option("--stage", "stage", default="", help="A stage, such as filter, train or train@filtered.")
@click.option("--file", "file", default="", help="A file or a folder of the project.")
@click.option("--table", "as_table", is_flag=True, help="The table of every file of stages/, in Markdown.")
@params_option
@one_line_errors
def main(stage: str, file: str, as_table: bool, params_path: Path) -> None:
    params = load_params(params_path).model_dump()
    pipeline = read_pipeline(PIPELINE, params)
    if as_table:
        click.echo(table(list(files_of_stages(Path())), pipeline), nl=False)
    elif file:
        click.echo("\n".join(stages_of_edit(file, pipeline, params)))
    else:
        click.echo("\n".join(why(stage_names(stage), pipeline)))


def stages_of_edit(file: str, pipeline: list[Stage], params: dict[str, Any]) -> Iterator[str]:
    """The stages that an edit to a file runs: directly, after changed outputs, and with other params."""
    name = file.removeprefix("./").rstrip("/")
    if not Path(name).exists():
        raise WhyError(f"{file}: no such file. Give a path from the project's folder, such as stages/filter.py.")
    users = users_of(name, pipeline)
    direct = {stage: "" for stage, condition in users.items() if _holds(condition, params)}
    others = {stage: condition for stage, condition in users.items() if stage not in direct}
    if direct:
        yield f"{name}: an edit runs again: {format_stages(direct, pipeline)}."
        later = followers(set(direct), pipeline)
        yield f"Then, if their outputs change: {', '.join(later) or 'nothing'}."
    elif name.startswith(IN_NO_DEPS):
        yield f"{name}: an edit runs no stage, because it affects no output."
    else:
        yield f"{name}: an edit runs no stage, because none lists it as a dep."
    if others:
        yield f"With other params: {format_stages(others, pipeline)}."


def _holds(condition: str, params: dict[str, Any]) -> bool:
    """Whether params meet a condition, such as ``train.student.kind: hub``; an empty one is always met."""
    key, _, kind = condition.partition(": ")
    return not condition or value_of(params, key) == kind


def why(names: list[str], pipeline: list[Stage]) -> Iterator[str]:
    """Which of these stages would run, and the reasons: their own, or changed outputs of earlier stages."""
    changed = changed_stages()
    for name in names:
        before = [each for each in changed if name in followers({each}, pipeline)]
        if name in changed:
            yield f"{name} would run:"
            yield from (f"  {reason}" for reason in reasons(name, changed[name]))
        elif before:
            yield f"{name} would run if the outputs of {', '.join(before)} change."
        else:
            yield f"{name} would not run: nothing changed since dvc.lock."


if __name__ == "__main__":
    main()
