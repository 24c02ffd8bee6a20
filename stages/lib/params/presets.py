"""The presets of public question sets: a YAML file each in stages/presets, to which users add their own."""

from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.params.base import ParamsError
from stages.lib.params.collect import Preset
from stages.lib.params.errors import nearest

PRESETS = Path(__file__).resolve().parents[2] / "presets"


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def preset_named(name: str, key: str) -> Preset:
    """The preset of that name; ParamsError where there is none or its file does not fit."""
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise ParamsError(f"params.yaml: {key}.name: no preset '{name}'.{nearest(name, preset_names())}")
    try:
        return Preset.model_validate(YAML(typ="safe").load(path.read_bytes()))
    except (YAMLError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else "not YAML"
        raise ParamsError(f"stages/presets/{name}.yaml: {what}. stages/presets/gsm8k.yaml is an example.") from error
