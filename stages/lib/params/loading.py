"""Reading a params file, and checking it whole."""

from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.params.base import ParamsError
from stages.lib.params.errors import complaint
from stages.lib.params.whole import Params, contradictions


def load_params(path: Path) -> Params:
    """Read and check a params file against the schema; ParamsError, in one line, on the first thing that is wrong."""
    return checked(parsed(read(path), path), path)


def read(path: Path) -> str:
    """The text of a params file."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file. 'git checkout {path.name}' brings back the committed one.") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 (byte {error.start}). Save the file as UTF-8.") from error


def parsed(text: str, path: Path) -> Any:
    """What the YAML says."""
    try:
        # ruamel reads YAML 1.2, as DVC does: PyYAML takes 1e-3 for a string
        return YAML(typ="safe").load(StringIO(text))
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise ParamsError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)}). Mend that line.") from error


def checked(raw: Any, path: Path) -> Params:
    """The params of a file that was read; one in the older form is told how to be rewritten."""
    if is_older(raw):
        raise ParamsError(
            f"{path}: written before choices were {{kind: …}}; run 'python -m stages.lib.params --migrate {path}'."
        )
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{path}: {complaint(error, Params, raw)}") from error
    for text in contradictions(params):
        raise ParamsError(f"{path}: {text}")
    return params


def is_older(raw: Any) -> bool:
    """Whether a file has the form that ``--migrate`` rewrites: keys of it that the new form has nowhere."""
    sections = [raw.get(name) if isinstance(raw, dict) else None for name in ("train", "run", "evaluate")]
    marks = ("finetuning_type", "served_base_url", "backend_args")
    return sum(isinstance(section, dict) and mark in section for section, mark in zip(sections, marks, strict=True)) > 1
