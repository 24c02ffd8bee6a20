"""A dataset of ModelScope, or a folder in its layout: any id, subset, split and revision (tables/hubs.py)."""

from stages.lib.params import ModelScopeSource
from stages.lib.sources import Drawn
from stages.lib.sources.table import Form, draw_of
from stages.lib.tables.opening import opened


def draw(source: ModelScopeSource, train_size: int, heldout_size: int, key: str) -> Drawn:
    """The questions of the table."""
    table = opened(source, key)
    form = Form(key, table.name, table.split, source.columns, source.gold, source.where, source.shuffle_seed)
    return draw_of(table.rows, form, train_size, heldout_size)
