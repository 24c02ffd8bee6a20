"""A public set whose columns a file of stages/presets names: GSM8K, MATH and others, without any code.

    {kind: preset, name: gsm8k, origin: modelscope, path: null, split: train, where: {}, shuffle_seed: null}

``path`` null is the set's own id at that origin; else it is another id, a folder in the origin's layout or, with origin
``file``, a file of its rows.
"""

from collections.abc import Iterator
from typing import Any

from stages.lib.params import ParamsError, Preset, PresetSource, preset_named
from stages.lib.sources import Drawn
from stages.lib.sources.table import Form, draw_of
from stages.lib.tables.files import file_rows
from stages.lib.tables.hubs import hub_rows, modelscope_rows


def draw(source: PresetSource, train_size: int, heldout_size: int, key: str) -> Drawn:
    """The questions of the set; the name in their ids is the preset's."""
    preset = preset_named(source.name, key)
    form = Form(key, source.name, source.split, preset.columns, preset.gold, source.where, source.shuffle_seed)
    return draw_of(lambda: _rows(source, preset, f"{key}.path"), form, train_size, heldout_size)


def _rows(source: PresetSource, preset: Preset, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = source.path or {"hub": preset.hub, "modelscope": preset.modelscope, "file": None}[source.origin]
    if path is None:
        raise ParamsError(
            f"params.yaml: {key}: null, and preset {source.name} names no {source.origin} of its own. Write a path."
        )
    if source.origin == "file":
        return file_rows(path, key)
    read = hub_rows if source.origin == "hub" else modelscope_rows
    return read(path, preset.subset, source.split, None, key)
