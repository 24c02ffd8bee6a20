"""A dataset of ModelScope, or a folder in its layout: any id, subset, split and revision (tables/hubs.py)."""

from stages.lib.params import ModelScopeSource
from stages.lib.sources import Drawn
from stages.lib.sources.table import Form, draw_of
from stages.lib.tables.hubs import modelscope_rows


def draw(source: ModelScopeSource, train_size: int, heldout_size: int, key: str) -> Drawn:
    """The questions of the split; the name in their ids is the dataset's without its owner."""
    name = source.path.rstrip("/").rpartition("/")[2]
    form = Form(key, name, source.split, source.columns, source.gold, source.where, source.shuffle_seed)
    where = (source.path, source.subset, source.split, source.revision, f"{key}.path")
    return draw_of(lambda: modelscope_rows(*where), form, train_size, heldout_size)
