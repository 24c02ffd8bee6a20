"""Open the table that params name, whatever its kind: its name, its split, and its rows.

opened(params.collect.source, "collect.source")     # Table("gsm8k", "train", …)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from stages.lib.params import InFile, InHub, InModelScope, InPreset, ParamsError, Published
from stages.lib.tables.files import Rows, file_rows
from stages.lib.tables.hubs import hub_rows, modelscope_rows


@dataclass(frozen=True)
class Table:
    """A table. ``name`` and ``split`` say where its rows are from; ``rows`` begins to read them at each call."""

    name: str
    split: str
    rows: Callable[[], Rows]


def opened(source: InFile | InHub | InModelScope, key: str) -> Table:
    """The table of a source; ``key`` is where params name it.

    A dataset's name is its id without the owner, a file's is its own without what follows the first dot.
    """
    if isinstance(source, InFile):
        name = PurePosixPath(source.path).name.partition(".")[0].strip("*?[]") or "file"
        return Table(name, "rows", lambda: file_rows(source.path, f"{key}.path"))
    read = hub_rows if isinstance(source, InHub) else modelscope_rows
    where = (source.path, source.subset, source.split, source.revision, f"{key}.path")
    return Table(source.path.rstrip("/").rpartition("/")[2], source.split, lambda: read(*where))


def opened_preset(source: InPreset, published: Published, key: str) -> Table:
    """The table of a preset, with the preset's name; ParamsError where it is at no such origin."""
    path = source.path or {"hub": published.hub, "modelscope": published.modelscope}.get(source.origin)
    if path is None:
        raise ParamsError(
            f"params.yaml: {key}.path: null, and preset {source.name} names no {source.origin} of its own. "
            "Write a path."
        )
    if source.origin == "file":
        return Table(source.name, source.split, lambda: file_rows(path, f"{key}.path"))
    read = hub_rows if source.origin == "hub" else modelscope_rows
    return Table(source.name, source.split, lambda: read(path, published.subset, source.split, None, f"{key}.path"))
