"""Where a table of rows is: a file, a dataset of a hub or of ModelScope, or one that a preset describes."""

from typing import Literal

from stages.lib.params.base import FilePath, Name, Section, Text

Scalar = str | int | float | bool
Where = dict[str, Scalar | list[Scalar]]  # the rows whose columns hold these values
Gold = Literal["plain", "after_hashes", "boxed"]


class InFile(Section):
    """A file, a glob or a URL of JSONL, JSON, CSV, TSV or Parquet."""

    kind: Literal["file"]
    path: FilePath


class InHub(Section):
    """A dataset of a hub (HF_ENDPOINT names a mirror), or a folder in its layout."""

    kind: Literal["hub"]
    path: FilePath
    subset: Text | None
    split: Text
    revision: Text | None


class InModelScope(Section):
    """A dataset of ModelScope, or a folder in its layout."""

    kind: Literal["modelscope"]
    path: FilePath
    subset: Text | None
    split: Text
    revision: Text | None


class InPreset(Section):
    """A public set that a preset describes; ``path`` null is the set's own id at its origin."""

    kind: Literal["preset"]
    name: Name
    origin: Literal["hub", "modelscope", "file"]
    path: FilePath | None
    split: Text


class Published(Section):
    """Where a preset's set is published."""

    hub: Text | None
    modelscope: Text | None
    subset: Text | None
