"""Read a params file and check all of it."""

from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.params.base import ParamsError
from stages.lib.params.errors import first_error
from stages.lib.params.whole import Params, contradictions


def load_params(path: Path) -> Params:
    """Read a params file and check it against the schema; ParamsError, in one line, for the first error."""
    return checked(parsed(read(path), path), path)


def read(path: Path) -> str:
    """The text of a params file."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file. 'git checkout {path.name}' restores the committed one.") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 (byte {error.start}). Save the file as UTF-8.") from error


def parsed(text: str, path: Path) -> Any:
    """The parsed YAML."""
    try:
        # ruamel reads YAML 1.2, as DVC does: PyYAML reads 1e-3 as a string
        return YAML(typ="safe").load(StringIO(text))
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise ParamsError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)}). Fix that line.") from error


def checked(raw: Any, path: Path) -> Params:
    """The params in a file's content; ParamsError for invalid content, and for the older format."""
    if is_older(raw):
        raise ParamsError(f"{path}: in an older format. Run 'python -m stages.lib.params --migrate {path}'.")
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{path}: {first_error(error, Params, raw)}") from error
    for text in contradictions(params):
        raise ParamsError(f"{path}: {text}")
    return params


def is_older(raw: Any) -> bool:
    """Whether a file has the format that ``--migrate`` rewrites: it has keys that the new format does not have."""
    sections = [raw.get(name) if isinstance(raw, dict) else None for name in ("train", "run", "evaluate")]
    old_keys = ("finetuning_type", "served_base_url", "backend_args")
    found = sum(isinstance(section, dict) and key in section for section, key in zip(sections, old_keys, strict=True))
    return found > 1 or (isinstance(raw, dict) and "collect_s1k" in raw)
