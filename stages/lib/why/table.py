"""The table in docs/upgrading.md: for each file of stages/, the stages that an edit runs again.

    python -m stages.lib.why --table    # tests/test_upgrading.py compares it with the page

Files of a folder that run the same stages share a row. ``NAME`` is a module or a prompt that params choose.
"""

from collections import defaultdict
from pathlib import PurePosixPath

from stages.lib.why.pipeline import Stage, users_of

HEAD = "| file | an edit runs again |\n|---|---|\n"


def table(files: list[str], pipeline: list[Stage]) -> str:
    """The table in Markdown."""
    again = {file: format_stages(users_of(file, pipeline), pipeline) for file in files}
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, stages in _merged(again).items():
        rows[str(PurePosixPath(name).parent), stages].append(name)
    lines = [f"| {', '.join(f'`{name}`' for name in names)} | {stages} |" for (_, stages), names in rows.items()]
    return HEAD + "\n".join(lines) + "\n"


def _merged(again: dict[str, str]) -> dict[str, str]:
    """The stages by file. Files of a folder with the same stages are merged, and so are modules that params choose."""
    found = {}
    for file, stages in again.items():
        path = PurePosixPath(file)
        folder = next((f"{each}/" for each in _folders(path) if _alike(f"{each}/", again)), None)
        if f": {path.stem}" in stages:
            found[str(path.with_stem("NAME"))] = stages.replace(f": {path.stem}", ": NAME")
        elif f": {path.parent.name}" in stages:
            found[f"{path.parent.with_name('NAME')}/"] = stages.replace(f": {path.parent.name}", ": NAME")
        else:
            found[folder or file] = stages
    return found


def _folders(path: PurePosixPath) -> list[str]:
    """The parent folders of a file, outermost first, without stages/ and stages/lib/."""
    folders = [str(folder) for folder in reversed(path.parents)]
    return [folder for folder in folders if folder not in (".", "stages", "stages/lib")]


def _alike(folder: str, again: dict[str, str]) -> bool:
    return len({stages for file, stages in again.items() if file.startswith(folder)}) == 1


def format_stages(users: dict[str, str], pipeline: list[Stage]) -> str:
    """``collect; every convert (where train.student.kind: hub)``, or ``nothing`` if no stage lists the file."""
    groups: dict[str, list[str]] = defaultdict(list)  # by condition
    for stage in pipeline:
        if stage.name in users:
            name = stage.name if stage.name == stage.group else f"every {stage.group}"
            groups[users[stage.name]] += [name] if name not in groups[users[stage.name]] else []
    said = [", ".join(names) + (f" (where {condition})" if condition else "") for condition, names in groups.items()]
    return "; ".join(said) or "nothing"
