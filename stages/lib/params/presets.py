"""The presets of public sets: a YAML file each, of questions in stages/presets, of traces in stages/trace_presets.

Users add their own.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.params.base import ParamsError
from stages.lib.params.collect import Preset
from stages.lib.params.errors import nearest
from stages.lib.params.tables import Published
from stages.lib.params.traces import TracePreset

STAGES = Path(__file__).resolve().parents[2]
PRESETS, TRACE_PRESETS = STAGES / "presets", STAGES / "trace_presets"
P = TypeVar("P", bound=Published)


def preset_names(folder: Path = PRESETS) -> list[str]:
    """The names of all presets of questions, or of those in another folder."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def preset_named(name: str, key: str) -> Preset:
    """The preset of questions of that name; ParamsError where there is none or its file does not fit."""
    return _read(PRESETS, name, key, Preset)


def trace_preset_named(name: str, key: str) -> TracePreset:
    """The preset of traces of that name; ParamsError as above."""
    return _read(TRACE_PRESETS, name, key, TracePreset)


def _read(folder: Path, name: str, key: str, schema: type[P]) -> P:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ParamsError(f"params.yaml: {key}.name: no preset '{name}'.{nearest(name, preset_names(folder))}")
    try:
        return schema.model_validate(YAML(typ="safe").load(path.read_bytes()))
    except (YAMLError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else "not YAML"
        shown = f"stages/{path.relative_to(STAGES)}"
        raise ParamsError(f"{shown}: {what}. The other files of its folder are examples.") from error
