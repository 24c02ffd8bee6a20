"""What an edit costs, and why a stage would run.

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
from stages.lib.why.table import in_words, table

PIPELINE = Path("dvc.yaml")
# what stages import and no stage lists
FREE = ("stages/lib/params", "stages/lib/command.py")


@click.command(help="Say why stages would run, or which stages an edit to a file runs.")
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
        click.echo("\n".join(cost_of_edit(file, pipeline, params)))
    else:
        click.echo("\n".join(why(stage_names(stage), pipeline)))


def cost_of_edit(file: str, pipeline: list[Stage], params: dict[str, Any]) -> Iterator[str]:
    """What an edit to a file runs: at once, where outputs then differ, and where params chose otherwise."""
    name = file.removeprefix("./").rstrip("/")
    if not Path(name).exists():
        raise WhyError(f"{file}: no such file. Give a path from the project's folder, such as stages/filter.py.")
    users = users_of(name, pipeline)
    now = {stage: "" for stage, condition in users.items() if _holds(condition, params)}
    others = {stage: condition for stage, condition in users.items() if stage not in now}
    if now:
        yield f"{name}: an edit runs again: {in_words(now, pipeline)}."
        later = followers(set(now), pipeline)
        yield f"Then, where their outputs differ: {', '.join(later) or 'nothing'}."
    elif name.startswith(FREE):
        yield f"{name}: an edit runs no stage, for it shapes no output."
    else:
        yield f"{name}: an edit runs no stage, for none lists it among its deps."
    if others:
        yield f"With other params: {in_words(others, pipeline)}."


def _holds(condition: str, params: dict[str, Any]) -> bool:
    """Whether params choose so; a condition is as ``train.student.kind: hub``, or empty."""
    key, _, kind = condition.partition(": ")
    return not condition or value_of(params, key) == kind


def why(names: list[str], pipeline: list[Stage]) -> Iterator[str]:
    """What would run of these stages, and for which reasons, its own or those of a stage before it."""
    changed = changed_stages()
    for name in names:
        before = [each for each in changed if name in followers({each}, pipeline)]
        if name in changed:
            yield f"{name} would run:"
            yield from (f"  {reason}" for reason in reasons(name, changed[name]))
        elif before:
            yield f"{name} would run where the outputs of {', '.join(before)} differ."
        else:
            yield f"{name} would not run: nothing changed since dvc.lock."


if __name__ == "__main__":
    main()
