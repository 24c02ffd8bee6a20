"""A public set whose columns a file of stages/presets names: GSM8K, MATH and others, without any code.

    {kind: preset, name: gsm8k, origin: modelscope, path: null, split: train, where: {}, shuffle_seed: null}

``path`` null is the set's own id at that origin; else it is another id, a folder in the origin's layout or, with origin
``file``, a file of its rows.
"""

from stages.lib.params import PresetSource, preset_named
from stages.lib.sources import Drawn
from stages.lib.sources.table import Form, draw_of
from stages.lib.tables.opening import opened_preset


def draw(source: PresetSource, train_size: int, heldout_size: int, key: str) -> Drawn:
    """The questions of the set; the name in their ids is the preset's."""
    preset = preset_named(source.name, key)
    table = opened_preset(source, preset, key)
    form = Form(key, table.name, table.split, preset.columns, preset.gold, source.where, source.shuffle_seed)
    return draw_of(table.rows, form, train_size, heldout_size)
