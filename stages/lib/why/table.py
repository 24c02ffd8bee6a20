"""The table of docs/upgrading.md: for each file of stages/, the stages that an edit to it runs again.

    python -m stages.lib.why --table    # tests/test_upgrading.py compares it with the page

Files of a folder that run the same stages share a row. ``NAME`` is a module or a prompt that params choose.
"""

from collections import defaultdict
from pathlib import PurePosixPath

from stages.lib.why.pipeline import Stage, users_of

HEAD = "| file | an edit runs again |\n|---|---|\n"


def table(files: list[str], pipeline: list[Stage]) -> str:
    """The table in Markdown."""
    again = {file: in_words(users_of(file, pipeline), pipeline) for file in files}
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, words in _folded(again).items():
        rows[str(PurePosixPath(name).parent), words].append(name)
    lines = [f"| {', '.join(f'`{name}`' for name in names)} | {words} |" for (_, words), names in rows.items()]
    return HEAD + "\n".join(lines) + "\n"


def _folded(again: dict[str, str]) -> dict[str, str]:
    """The words by file; the files of a folder as one where they are alike, and those that params choose among."""
    found = {}
    for file, words in again.items():
        path = PurePosixPath(file)
        folder = next((f"{each}/" for each in _folders(path) if _alike(f"{each}/", again)), None)
        if f": {path.stem}" in words:
            found[str(path.with_stem("NAME"))] = words.replace(f": {path.stem}", ": NAME")
        elif f": {path.parent.name}" in words:
            found[f"{path.parent.with_name('NAME')}/"] = words.replace(f": {path.parent.name}", ": NAME")
        else:
            found[folder or file] = words
    return found


def _folders(path: PurePosixPath) -> list[str]:
    """The folders around a file, the widest first; stages/ and stages/lib/ are no room."""
    folders = [str(folder) for folder in reversed(path.parents)]
    return [folder for folder in folders if folder not in (".", "stages", "stages/lib")]


def _alike(folder: str, again: dict[str, str]) -> bool:
    return len({words for file, words in again.items() if file.startswith(folder)}) == 1


def in_words(users: dict[str, str], pipeline: list[Stage]) -> str:
    """``collect; every convert (where train.student.kind: hub)``, or ``nothing`` where no stage lists the file."""
    groups: dict[str, list[str]] = defaultdict(list)  # by condition
    for stage in pipeline:
        if stage.name in users:
            name = stage.name if stage.name == stage.group else f"every {stage.group}"
            groups[users[stage.name]] += [name] if name not in groups[users[stage.name]] else []
    said = [", ".join(names) + (f" (where {condition})" if condition else "") for condition, names in groups.items()]
    return "; ".join(said) or "nothing"
