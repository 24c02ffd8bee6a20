"""A file of the user's own: JSONL, JSON, CSV, TSV or Parquet, one, a glob or a URL (tables/files.py)."""

from stages.lib.params import FileSource
from stages.lib.sources import Drawn
from stages.lib.sources.table import Form, draw_of
from stages.lib.tables.opening import opened


def draw(source: FileSource, train_size: int, heldout_size: int, key: str) -> Drawn:
    """The questions of the table."""
    table = opened(source, key)
    form = Form(key, table.name, table.split, source.columns, source.gold, source.where, source.shuffle_seed)
    return draw_of(table.rows, form, train_size, heldout_size)
