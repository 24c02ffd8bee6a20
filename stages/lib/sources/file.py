"""A file of the user's own: JSONL, JSON, CSV, TSV or Parquet, one, a glob or a URL (tables/files.py)."""

from pathlib import PurePosixPath

from stages.lib.params import FileSource
from stages.lib.sources import Drawn
from stages.lib.sources.table import Form, draw_of
from stages.lib.tables.files import file_rows


def draw(source: FileSource, train_size: int, heldout_size: int, key: str) -> Drawn:
    """The questions of the file; the name in their ids is the file's without what follows its first dot."""
    name = PurePosixPath(source.path).name.partition(".")[0].strip("*?[]") or "file"
    form = Form(key, name, "rows", source.columns, source.gold, source.where, source.shuffle_seed)
    return draw_of(lambda: file_rows(source.path, f"{key}.path"), form, train_size, heldout_size)
